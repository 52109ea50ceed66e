"""Turn the calling process into a jail: everything is given up in one fixed order.

Session, death signal, descriptors, resource limits, user, privileges, files and network, system
calls. Each step needs something that a later one takes away. Nothing here knows what will run
in the jail. Mechanisms the kernel does not offer are left out and reported: whether the result
is good enough is decided by probing (`sandbox.probe`), never by what was requested.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import functools
import itertools
import os
import resource
import signal
import socket
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

from sandbox import landlock, seccomp
from sandbox.cgroups import MAX_PROCESSES
from sandbox.monitor import hand_over_listener

__all__ = [
    "ALL_LAYERS",
    "READABLE",
    "Confinement",
    "Layer",
    "Surroundings",
    "adopt_orphans",
    "confine",
    "die_with_parent",
    "set_timer_slack",
]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_TIMERSLACK = 29
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_NO_NEW_PRIVS = 38
_CAPABILITY_VERSION_3 = 0x20080522

# Numeric libraries choose their kernels by these; without them a jailed step could differ in its
# last bits from the same step outside.
READABLE = ("/proc/cpuinfo", "/sys/devices/system/cpu")

_MISSING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)


class Layer(StrEnum):
    """A line of defence that can be put up by itself; jails of candidates have them all.

    What the zygote is in already, and its jails inherit, is not listed here: its namespaces of
    network and files, its control group.
    """

    RESOURCES = "resources"
    OWN_USER = "own_user"
    FILTERS = "filters"
    PROCESS_TABLE = "process_table"


ALL_LAYERS = frozenset(Layer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a jail may use. Memory is counted on top of the address space it starts with."""

    cpu_s: float
    memory_bytes: int
    descriptors: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What a jail is born with and needs for its confinement.

    `lifeline` is the read end of a pipe that the parent holds open as long as it lives; `monitor`
    is the socket over which the trusted side asks to hear of forbidden calls; `user` is the user
    and group to become, where that is possible; `address_space_bytes` is what the process has
    mapped without the candidate's doing.
    """

    lifeline: int
    monitor: int
    user: int
    address_space_bytes: int


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, and make sure it has not yet."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Make this process the parent of grandchildren whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def set_timer_slack(nanoseconds: int) -> None:
    """Let the kernel delay this thread's timers by no more than this."""
    _prctl(_PR_SET_TIMERSLACK, nanoseconds)


def confine(
    limits: Confinement,
    keep: Collection[int],
    surroundings: Surroundings,
    layers: Collection[Layer] = ALL_LAYERS,
) -> tuple[str, ...]:
    """Confine the calling process for good.

    Args:
        limits: resource limits.
        keep: descriptors to leave open; all others are closed.
        surroundings: what the process was born with; its descriptors are closed too.
        layers: which lines of defence to put up; those of the zygote's making stand already.

    Returns:
        What the kernel does not offer, as "mechanism: reason"; empty when all is in place.

    Raises:
        OSError: a step failed that every Linux system offers.
    """
    os.setsid()
    lifeline = surroundings.lifeline
    _die_with_lifeline(lifeline)
    _close_all_but({*keep, lifeline, surroundings.monitor})
    if Layer.RESOURCES in layers:
        _limit_resources(limits, surroundings.address_space_bytes)
    steps: list[tuple[str, Callable[[], None]]] = []
    if Layer.OWN_USER in layers:
        steps.append(("own user", functools.partial(_change_user, surroundings.user)))
    steps += [
        ("no dumps", functools.partial(_prctl, _PR_SET_DUMPABLE, 0)),
        ("no capabilities", _drop_capabilities),
        ("no new privileges", functools.partial(_prctl, _PR_SET_NO_NEW_PRIVS, 1)),
    ]
    if Layer.FILTERS in layers:
        steps.append(("landlock", functools.partial(landlock.restrict, READABLE)))
    missing = tuple(_carry_out(steps))
    _die_with_lifeline(lifeline)  # a change of user clears the death signal
    os.close(lifeline)
    with socket.socket(fileno=surroundings.monitor) as monitor:
        if Layer.FILTERS in layers:
            missing += _filter_calls(monitor)
    return missing


def _carry_out(steps: Iterable[tuple[str, Callable[[], None]]]) -> Iterable[str]:
    for name, step in steps:
        try:
            step()
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            yield f"{name}: {error}"


def _filter_calls(monitor: socket.socket) -> tuple[str, ...]:
    """Filter system calls; return what is missing of that."""
    try:
        is_announcing = seccomp.install(functools.partial(hand_over_listener, monitor))
    except OSError as error:
        if error.errno not in _MISSING:
            raise
        return (f"seccomp: {error}",)
    if not is_announcing:
        return ("call monitor: the kernel has none, or another one is watching already",)
    return ()


def _die_with_lifeline(lifeline: int) -> None:
    """Ask the kernel to kill this process with its parent; end if the parent has gone already.

    The parent may live in another process table, where it has no number to be asked for.
    """
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    os.set_blocking(lifeline, False)
    with contextlib.suppress(BlockingIOError):
        os.read(lifeline, 1)
        os._exit(1)


def _change_user(identity: int) -> None:
    """Become a user that owns nothing, which only root may."""
    if os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "only root can change users")
    os.setgroups([])
    os.setresgid(identity, identity, identity)
    os.setresuid(identity, identity, identity)


def _drop_capabilities() -> None:
    """Give up what an ordinary user has inside a user namespace."""
    header = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0)
    nothing = (ctypes.c_uint32 * 6)()
    if _libc.capset(ctypes.byref(header), ctypes.byref(nothing)) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"capset: {os.strerror(number)}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _close_all_but(keep: Collection[int]) -> None:
    last, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    edges = [-1, *sorted(keep), last]
    for before, after in itertools.pairwise(edges):
        if before + 1 < after:  # an empty range would be taken for all there is
            os.closerange(before + 1, after)


def _limit_resources(limits: Confinement, address_space_bytes: int) -> None:
    cpu_s = int(limits.cpu_s) + 2  # a backstop: the worker's own clock is finer
    kinds = {
        resource.RLIMIT_AS: address_space_bytes + limits.memory_bytes,
        resource.RLIMIT_CPU: cpu_s,
        resource.RLIMIT_NOFILE: limits.descriptors,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_MSGQUEUE: 0,
        resource.RLIMIT_SIGPENDING: 16,
    }
    if os.geteuid() == 0:
        # Counts the processes of a user: fit for the jail's own one, not for a person's.
        kinds[resource.RLIMIT_NPROC] = MAX_PROCESSES
    for kind, value in kinds.items():
        _, highest = resource.getrlimit(kind)
        least = value if highest == resource.RLIM_INFINITY else min(value, highest)
        resource.setrlimit(kind, (least, least))
