"""A control group per zygote: a cap on the memory and the processes of all its jails.

Resource limits hold for one process; a control group holds for whatever a jail may have started,
shared maps included. The worker makes one where it may (as root, or in a group that was delegated
to the user), hands the zygote the means to join it, and removes it. Jails are born in it: moving
a process costs milliseconds. Version 1 and 2 of the interface are both spoken, also mixed.
Reference: cgroups(7).
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sandbox.ownership import PREFIX, is_deserted, owner_mark

__all__ = ["ControlGroup", "join", "make_control_group", "remove_stale"]

MAX_PROCESSES = 6  # zygote and jail, and one in between at their start

_CONTROLLERS = ("memory", "pids")
_EMPTY_S = 5.0
_POLL_S = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class _Folder:
    """One folder of the group: version 1 has one per controller, version 2 one in all."""

    path: Path
    version: int
    controllers: tuple[str, ...]


class ControlGroup:
    """A control group of our own, for a zygote and its jails one after the other."""

    def __init__(self, folders: tuple[_Folder, ...]) -> None:
        self._folders = folders
        self.joins = tuple(
            os.open(folder.path / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for folder in folders
        )
        self._residents: frozenset[int] = frozenset()

    def limit_memory(self, memory_bytes: int) -> None:
        """Cap the memory of the next jail and of whatever it starts.

        Raises:
            OSError: the kernel did not take the limit.
        """
        for folder in self._folders:
            if "memory" not in folder.controllers:
                continue
            if folder.version == 1:
                _lower_first(folder.path, memory_bytes)
            else:
                (folder.path / "memory.max").write_text(str(memory_bytes))
                _write_if_there(folder.path / "memory.swap.max", "0")

    def settle(self) -> None:
        """Take whoever is in the group now for its residents, whom `clear` leaves alone."""
        self._residents = self._members()

    def clear(self) -> None:
        """Kill whatever a jail has left in the group.

        Raises:
            TimeoutError: something in it does not end.
        """
        deadline = time.monotonic() + _EMPTY_S
        while left := self._members() - self._residents:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            if time.monotonic() > deadline:
                raise TimeoutError(f"processes {sorted(left)} in a jail's control group live on")
            time.sleep(_POLL_S)

    def remove(self) -> None:
        """Kill what is in the group and remove it."""
        self._residents = frozenset()
        self.clear()
        self.abandon()

    def abandon(self) -> None:
        """Remove the group as far as it is there and empty; whatever is in it goes on."""
        for descriptor in self.joins:
            os.close(descriptor)
        self.joins = ()
        for folder in self._folders:
            with contextlib.suppress(OSError):  # gone, or busy and then for `remove_stale` to find
                folder.path.rmdir()

    def _members(self) -> frozenset[int]:
        return frozenset(
            int(pid)
            for folder in self._folders
            for pid in (folder.path / "cgroup.procs").read_text().split()
        )


def join(descriptors: tuple[int, ...]) -> None:
    """Make the calling process a member of the group that `joins` belongs to."""
    for descriptor in descriptors:
        os.write(descriptor, b"0")


def make_control_group(owner: int) -> tuple[ControlGroup | None, str]:
    """Make a control group with caps on memory and processes.

    Args:
        owner: the process that will remove it; its id begins the group's name.

    Returns:
        The group and "", or None and the reason.
    """
    remove_stale()
    made: list[_Folder] = []
    name = f"{owner_mark(owner)}{secrets.token_hex(4)}"
    try:
        for place in _places():
            path = place.path / name
            path.mkdir()
            made.append(_Folder(path=path, version=place.version, controllers=place.controllers))
        reason = _why_not(made)
        if not reason:
            return ControlGroup(tuple(made)), ""
    except OSError as error:
        reason = str(error)
    for folder in made:
        folder.path.rmdir()
    return None, reason


def _why_not(made: Sequence[_Folder]) -> str:
    """Set the cap on processes; return why these folders are not enough, "" if they are."""
    covered = {name for folder in made for name in folder.controllers}
    lacking = ", ".join(name for name in _CONTROLLERS if name not in covered)
    if lacking:
        return f"no group with the controllers {lacking} can be made"
    for folder in made:
        if "pids" in folder.controllers:
            (folder.path / "pids.max").write_text(str(MAX_PROCESSES))
    return ""


def remove_stale(owner: int | None = None) -> bool:
    """Remove the groups of owners that were killed before they could do so themselves.

    Returns:
        Whether none of this owner's is left: its last processes may still be about to end.
    """
    mark = owner_mark(owner) if owner is not None else ""
    is_clean = True
    for place in _places():
        for path in place.path.glob(f"{PREFIX}*"):
            if is_deserted(path.name):
                try:
                    path.rmdir()
                except FileNotFoundError:
                    pass  # somebody else was faster
                except OSError:
                    is_clean = is_clean and not path.name.startswith(mark)
    return is_clean


def _places(proc: Path = Path("/proc/self")) -> Iterator[_Folder]:
    """Yield the groups this process is in and could make others in."""
    mounts = dict(_mounts(proc))
    for line in (proc / "cgroup").read_text().splitlines():
        _, names, own = line.split(":", 2)
        controllers = tuple(name for name in _CONTROLLERS if name in names.split(","))
        if names and not controllers:
            continue
        mount = mounts.get(controllers[0] if controllers else "")
        if mount is None:
            continue
        path = Path(f"{mount}{own}")
        if not names:
            controllers = _enabled(path)
        if controllers and os.access(path, os.W_OK):
            yield _Folder(path=path, version=1 if names else 2, controllers=controllers)


def _mounts(proc: Path) -> Iterator[tuple[str, str]]:
    """Yield where each controller is mounted; version 2 goes by the empty name."""
    for line in (proc / "mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        kind, _, options = after.split(" ", 2)
        where = before.split(" ")[4]
        if kind == "cgroup2":
            yield "", where
        elif kind == "cgroup":
            for option in options.split(","):
                yield option, where


def _enabled(path: Path) -> tuple[str, ...]:
    """Return which controllers groups below a version 2 group have, after trying to enable ours."""
    try:
        offered = (path / "cgroup.controllers").read_text().split()
    except OSError:
        return ()
    switch = path / "cgroup.subtree_control"
    on = switch.read_text().split()
    off = [name for name in _CONTROLLERS if name in offered and name not in on]
    if off:
        # Refused where processes live directly in the group.
        with contextlib.suppress(OSError):
            switch.write_text(" ".join(f"+{name}" for name in off))
            on = switch.read_text().split()
    return tuple(name for name in _CONTROLLERS if name in on)


def _lower_first(path: Path, memory_bytes: int) -> None:
    """Set both limits of version 1: the one that includes swap may never be the smaller one."""
    plain, with_swap = path / "memory.limit_in_bytes", path / "memory.memsw.limit_in_bytes"
    if memory_bytes > int(plain.read_text()):
        _write_if_there(with_swap, str(memory_bytes))
        plain.write_text(str(memory_bytes))
    else:
        plain.write_text(str(memory_bytes))
        _write_if_there(with_swap, str(memory_bytes))


def _write_if_there(path: Path, text: str) -> None:
    """Write a setting that some kernels are built without."""
    if path.exists():
        path.write_text(text)
