"""Turn the calling process into a jail: everything is given up in one fixed order.

Session, death signal, descriptors, resource limits, user, privileges, files and network, system
calls. Each step needs something that a later one takes away. Nothing here knows what will run
in the jail. Mechanisms the kernel does not offer are left out and reported: whether the result
is good enough is decided by probing (`sandbox.probe`), never by what was requested.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import os
import resource
import signal
from collections.abc import Callable, Collection
from dataclasses import dataclass

from sandbox import landlock, seccomp

__all__ = ["READABLE", "Confinement", "confine", "die_with_parent", "set_timer_slack"]

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_TIMERSLACK = 29
_PR_SET_NO_NEW_PRIVS = 38

# Numeric libraries choose their kernels by these; without them a jailed step could differ in its
# last bits from the same step outside.
READABLE = ("/proc/cpuinfo", "/sys/devices/system/cpu")

# A jail started by root runs as this user and group, which own nothing.
_JAIL_ID = 64321

_MISSING = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM)

_libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Confinement:
    """What a jail may use. Memory is counted on top of the address space at this moment."""

    cpu_s: float
    memory_bytes: int
    descriptors: int


def die_with_parent(parent: int) -> None:
    """Ask the kernel to kill this process when its parent ends, and make sure it has not yet."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def set_timer_slack(nanoseconds: int) -> None:
    """Let the kernel delay this thread's timers by no more than this."""
    _prctl(_PR_SET_TIMERSLACK, nanoseconds)


def confine(limits: Confinement, keep: Collection[int], parent: int) -> tuple[str, ...]:
    """Confine the calling process for good.

    Args:
        limits: resource limits.
        keep: descriptors to leave open; all others are closed.
        parent: process id of the parent, whose death ends this process too.

    Returns:
        What the kernel does not offer, as "mechanism: reason"; empty when all is in place.

    Raises:
        OSError: a step failed that every Linux system offers.
    """
    os.setsid()
    die_with_parent(parent)
    _close_all_but(keep)
    _limit_resources(limits)
    steps: tuple[tuple[str, Callable[[], None]], ...] = (
        ("own user", functools.partial(_change_user, parent)),
        ("dumps", functools.partial(_prctl, _PR_SET_DUMPABLE, 0)),
        ("privileges", functools.partial(_prctl, _PR_SET_NO_NEW_PRIVS, 1)),
        ("landlock", functools.partial(landlock.restrict, READABLE)),
        ("seccomp", seccomp.install),
    )
    missing = []
    for name, step in steps:
        try:
            step()
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            missing.append(f"{name}: {error}")
    return tuple(missing)


def _change_user(parent: int) -> None:
    """Become a user that owns nothing, where the caller is root and may do that."""
    if os.geteuid() != 0:
        return
    os.setgroups([])
    os.setresgid(_JAIL_ID, _JAIL_ID, _JAIL_ID)
    os.setresuid(_JAIL_ID, _JAIL_ID, _JAIL_ID)
    die_with_parent(parent)  # a change of user clears the death signal


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl({option}): {os.strerror(number)}")


def _close_all_but(keep: Collection[int]) -> None:
    for descriptor in [int(name) for name in os.listdir("/proc/self/fd")]:
        if descriptor not in keep:
            try:
                os.close(descriptor)
            except OSError as error:
                if error.errno != errno.EBADF:  # the listing's own descriptor is gone already
                    raise


def _limit_resources(limits: Confinement) -> None:
    with open("/proc/self/statm", encoding="ascii") as statm:
        size = int(statm.read().split()[0]) * resource.getpagesize()
    cpu_s = int(limits.cpu_s) + 2  # a backstop: the worker's own clock is finer
    for kind, value in (
        (resource.RLIMIT_AS, size + limits.memory_bytes),
        (resource.RLIMIT_CPU, cpu_s),
        (resource.RLIMIT_NOFILE, limits.descriptors),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_MEMLOCK, 0),
        (resource.RLIMIT_MSGQUEUE, 0),
    ):
        resource.setrlimit(kind, (value, value))
