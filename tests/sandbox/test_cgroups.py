from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.cgroups import (
    MAX_PROCESSES,
    ControlGroup,
    _places,
    make_control_group,
    remove_stale,
)

_MEMORY_BYTES = 64 << 20


@pytest.fixture
def group() -> Iterator[ControlGroup]:
    made, reason = make_control_group(os.getpid())
    if made is None:
        pytest.skip(f"no control group can be made here: {reason}")
    yield made
    made.remove()


def _start_in(group: ControlGroup, code: str) -> subprocess.Popen[str]:
    joining = f"import os\nfor fd in {group.joins}: os.write(fd, b'0')\n"
    return subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-S", "-c", joining + code],
        pass_fds=group.joins,
        stdout=subprocess.PIPE,
        text=True,
    )


def _run_in(group: ControlGroup, code: str) -> tuple[int, str]:
    with _start_in(group, code) as process:
        printed, _ = process.communicate()
        return process.returncode, printed


def test_more_processes_than_allowed_are_refused(group: ControlGroup) -> None:
    code = f"""
import time
try:
    for _ in range({2 * MAX_PROCESSES}):
        if os.fork() == 0:
            time.sleep(60)
except BlockingIOError:
    print("refused", flush=True)
    time.sleep(60)
"""

    with _start_in(group, code) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "refused\n"
        group.clear()

    assert group._members() == frozenset()


def test_more_memory_than_allowed_ends_the_process(group: ControlGroup) -> None:
    group.limit_memory(_MEMORY_BYTES)

    modest = _run_in(group, f"bytearray({_MEMORY_BYTES // 2}); print('had it')")
    greedy = _run_in(group, f"bytearray({_MEMORY_BYTES * 2}); print('had it')")

    assert modest == (0, "had it\n")
    assert greedy == (-9, "")


def test_the_limit_can_be_raised_and_lowered(group: ControlGroup) -> None:
    for memory_bytes in (_MEMORY_BYTES, 4 * _MEMORY_BYTES, 2 * _MEMORY_BYTES):
        group.limit_memory(memory_bytes)

    assert _run_in(group, f"bytearray({_MEMORY_BYTES}); print('had it')") == (0, "had it\n")


def test_residents_are_left_alone(group: ControlGroup) -> None:
    waiting = "print(1, flush=True); import time; time.sleep(60)"
    with _start_in(group, waiting) as resident:
        assert resident.stdout is not None
        resident.stdout.readline()
        group.settle()
        with _start_in(group, waiting) as stranger:
            assert stranger.stdout is not None
            stranger.stdout.readline()
            group.clear()

            assert stranger.wait(10) == -9
        assert resident.poll() is None
        resident.kill()


def test_the_group_of_a_dead_owner_is_removed() -> None:
    code = f"""
import os, sys
sys.path[:] = {sys.path!r}
from sandbox.cgroups import make_control_group
group, reason = make_control_group(os.getpid())
print(reason if group is None else " ".join(str(f.path) for f in group._folders))
sys.stdout.flush()
os._exit(0)
"""
    printed = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    folders = [Path(word) for word in printed.split() if word.startswith("/sys/fs/cgroup")]
    if not folders:
        pytest.skip(f"no control group can be made here: {printed}")

    deadline = time.monotonic() + 5
    while not remove_stale() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert not any(folder.exists() for folder in folders)


def _proc(folder: Path, cgroup: str, mountinfo: str) -> Path:
    (folder / "cgroup").write_text(cgroup)
    (folder / "mountinfo").write_text(mountinfo)
    return folder


def test_a_delegated_group_of_version_2_is_found(tmp_path: Path) -> None:
    own = tmp_path / "mount" / "user" / "scope"
    own.mkdir(parents=True)
    (own / "cgroup.controllers").write_text("cpu memory pids\n")
    (own / "cgroup.subtree_control").write_text("memory pids\n")
    mount = f"41 31 0:38 / {tmp_path}/mount rw - cgroup2 cgroup2 rw\n"

    places = list(_places(_proc(tmp_path, "0::/user/scope\n", mount)))

    assert [(place.path, place.version, place.controllers) for place in places] == [
        (own, 2, ("memory", "pids"))
    ]


def test_a_group_of_version_2_without_our_controllers_is_none(tmp_path: Path) -> None:
    own = tmp_path / "mount"
    own.mkdir()
    (own / "cgroup.controllers").write_text("hugetlb\n")
    (own / "cgroup.subtree_control").write_text("")
    mount = f"41 31 0:38 / {own} rw - cgroup2 cgroup2 rw\n"

    assert list(_places(_proc(tmp_path, "0::/\n", mount))) == []


def test_groups_of_version_1_are_found_per_controller(tmp_path: Path) -> None:
    for name in ("memory", "pids"):
        (tmp_path / name / "box").mkdir(parents=True)
    mounts = "".join(
        f"3{n} 31 0:3{n} / {tmp_path}/{name} rw - cgroup cgroup rw,{name}\n"
        for n, name in enumerate(("memory", "pids", "cpu"))
    )

    places = list(_places(_proc(tmp_path, "5:memory:/box\n4:pids:/box\n1:cpu:/\n", mounts)))

    assert [(place.path.parent.name, place.version) for place in places] == [
        ("memory", 1),
        ("pids", 1),
    ]
