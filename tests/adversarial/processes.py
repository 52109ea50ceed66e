"""Which processes are below this one, and what they hold: read from /proc, changed by signals."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "Process",
    "adopt_orphans",
    "descendants",
    "end_and_reap",
    "open_files",
    "resident_bytes",
]

_PR_SET_CHILD_SUBREAPER = 36
_PROC = Path("/proc")
_GRACE_S = 1.0
_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class Process:
    """A process: the same id and start time mean the same process."""

    pid: int
    parent: int
    started: int
    state: str
    name: str


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends.

    Raises:
        OSError: the kernel refused.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "cannot become the parent of orphans")


def descendants() -> dict[int, Process]:
    """Return all processes below this one by id, the dead that nobody reaped included."""
    children: dict[int, list[Process]] = {}
    for entry in _PROC.iterdir():
        if entry.name.isdecimal() and (process := _read(int(entry.name))) is not None:
            children.setdefault(process.parent, []).append(process)
    found: dict[int, Process] = {}
    waiting = [os.getpid()]
    while waiting:
        for process in children.get(waiting.pop(), []):
            found[process.pid] = process
            waiting.append(process.pid)
    return found


def end_and_reap(known: set[int]) -> Counter[str]:
    """End and reap every descendant that is not `known`; count, by name, those still alive.

    What ends by itself within a second, or is dead and only waits to be reaped, does not count.
    """
    deadline = time.monotonic() + _GRACE_S
    while alive := [
        process
        for process in descendants().values()
        if process.pid not in known and process.state != "Z"
    ]:
        if time.monotonic() > deadline:
            break
        time.sleep(_POLL_S)
    for process in alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    for process in descendants().values():
        if process.pid not in known and process.parent == os.getpid():
            with contextlib.suppress(ChildProcessError):
                os.waitpid(process.pid, 0)
    return Counter(process.name for process in alive)


def open_files(pid: int) -> int:
    """Return how many descriptors a process of this user has open."""
    return len(os.listdir(_PROC / str(pid) / "fd"))


def resident_bytes(pid: int) -> int:
    """Return how much memory a process has in use."""
    return int((_PROC / str(pid) / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _read(pid: int) -> Process | None:
    try:
        stat = (_PROC / str(pid) / "stat").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return None  # it has ended meanwhile
    name = stat[stat.index("(") + 1 : stat.rindex(")")]
    values = stat[stat.rindex(")") + 2 :].split()
    return Process(pid, int(values[1]), int(values[19]), values[0], name)
