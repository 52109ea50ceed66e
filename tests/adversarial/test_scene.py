from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.adversarial.scene import Scene


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Scene() as scene:
        yield scene


def _path(scene: Scene, placeholder: str) -> Path:
    return Path(scene.fill_in(placeholder))


def _port(scene: Scene) -> int:
    return int(scene.fill_in("@PORT@"))


def _call(family: socket.AddressFamily, address: tuple[str, int] | str) -> None:
    with socket.socket(family) as caller:
        caller.connect(address)


def _send(scene: Scene, family: socket.AddressFamily, host: str) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"x", (host, _port(scene)))


def _link_over(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/passwd")


_IN_SHARED_MEMORY = "/dev/shm/x@MARK@"  # noqa: S108 - a watched folder is what it is about

_EFFECTS: dict[str, tuple[Callable[[Scene], object], str]] = {
    "new file": (lambda s: (_path(s, "@VICTIM@") / "new").touch(), "made"),
    "changed file": (lambda s: _path(s, "@VALFILE@").write_bytes(b""), "changed"),
    "changed mode": (lambda s: _path(s, "@SECRET@").chmod(0o600), "changed"),
    "changed times": (lambda s: os.utime(_path(s, "@SECRET@"), (1, 1)), "changed"),
    "hard link": (
        lambda s: (_path(s, "@VICTIM@") / "link").hardlink_to(_path(s, "@SECRET@")),
        "made",
    ),
    "link in place": (lambda s: _link_over(_path(s, "@VICTIM@") / "optim.py"), "changed"),
    "removed file": (lambda s: _path(s, "@METRICS@").unlink(), "removed"),
    "TCP": (lambda s: _call(socket.AF_INET, ("127.0.0.1", _port(s))), "a TCP connection"),
    "UDP": (lambda s: _send(s, socket.AF_INET, "127.0.0.1"), "a datagram"),
    "UNIX": (
        lambda s: _call(socket.AF_UNIX, str(_path(s, "@VICTIM@") / "sock")),
        "a UNIX connection",
    ),
    "abstract": (
        lambda s: _call(socket.AF_UNIX, s.fill_in("\0@MARK@")),
        "an abstract UNIX connection",
    ),
    "shared memory": (lambda s: _path(s, _IN_SHARED_MEMORY).touch(), "left /dev/shm"),
}


@pytest.mark.parametrize("effect", _EFFECTS)
def test_an_effect_is_seen(scene: Scene, effect: str) -> None:
    act, words = _EFFECTS[effect]

    act(scene)

    assert any(words in sighting for sighting in scene.sightings("", ()))


def test_nothing_is_seen_where_nothing_was_done(scene: Scene) -> None:
    _path(scene, "@SECRET@").read_text()

    assert scene.sightings("PWN: blocked", ["PWN:0"]) == []


def test_a_leaked_file_is_seen_by_its_canary(scene: Scene) -> None:
    text = f"line 3: ValueError: {_path(scene, '@SECRET@').read_text()}"

    assert scene.sightings(text, ()) == ["the output has the canary of a file"]


def test_a_listing_of_the_victims_folder_is_seen_by_a_name(scene: Scene) -> None:
    text = str(os.listdir(_path(scene, "@VICTIM@")))

    assert scene.sightings(text, ()) == ["the output has the canary of a file"]


def test_words_that_show_a_breach_are_seen_with_their_placeholders(scene: Scene) -> None:
    size = _path(scene, "@VALFILE@").stat().st_size

    seen = scene.sightings(f"PWN:{size}", ["PWN:@VALSIZE@"])

    assert seen == [f"the output has 'PWN:{size}'"]


def test_two_scenes_share_no_name_and_leave_nothing() -> None:
    with Scene() as first, Scene() as second:
        assert first.fill_in("@SECRET@@PORT@@MARK@") != second.fill_in("@SECRET@@PORT@@MARK@")
        outside = _path(first, _IN_SHARED_MEMORY)
        outside.touch()
        folder = first.workplace.parent

    assert not outside.exists()
    assert not folder.exists()
