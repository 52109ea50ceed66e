from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from sandbox.ownership import owner_mark
from sandbox.scratch import scratch_folder


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def _dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        pass
    return process.pid


def test_the_folder_goes_with_all_that_is_in_it(place: Path) -> None:
    with scratch_folder() as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "file").write_text("x")

    assert list(place.iterdir()) == []


def test_a_deserted_folder_is_removed_and_a_living_owners_is_kept(place: Path) -> None:
    deserted = place / f"{owner_mark(_dead_pid())}abc"
    living = place / f"{owner_mark(os.getppid())}abc"
    foreign = place / f"nanoevolve-12345-{_dead_pid()}-abc"  # of another process table
    for folder in (deserted, living, foreign):
        folder.mkdir()
        (folder / "file").write_text("x")

    with scratch_folder():
        assert not deserted.exists()

    assert living.exists()
    assert foreign.exists()


def test_a_link_with_the_name_of_a_deserted_folder_is_not_followed(place: Path) -> None:
    precious = place / "precious"
    precious.mkdir()
    (precious / "file").write_text("x")
    (place / f"{owner_mark(_dead_pid())}abc").symlink_to(precious)

    with scratch_folder():
        pass

    assert (precious / "file").exists()


def test_others_may_pass_through_but_not_look_around() -> None:
    with scratch_folder() as folder:
        assert folder.stat().st_mode & 0o777 == 0o711
