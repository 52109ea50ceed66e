"""Namespaces: give jails a network, a file tree and a process table of their own.

The zygote enters the outer ones once, after it has imported everything: network, System V IPC,
host name, and a file tree that holds nothing but the few paths named. Jails inherit them. The
process table is made anew for each jail, so that nothing a jail starts outlives it. Everything
here stands on its own: it holds even if the filters of `sandbox.confine` did not. An ordinary
user enters a user namespace first, where the system allows that. Reference: namespaces(7).
"""

from __future__ import annotations

import ctypes
import os
import tempfile
from collections.abc import Sequence

from sandbox.ownership import owner_mark
from sandbox.system_calls import number_of

__all__ = ["ProcessTables", "enter_outer"]

_CLONE_NEWNS = 0x00020000
_CLONE_NEWUTS = 0x04000000
_CLONE_NEWIPC = 0x08000000
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWPID = 0x20000000
_CLONE_NEWNET = 0x40000000

_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 1, 2, 4, 8
_MS_REMOUNT, _MS_BIND, _MS_REC, _MS_PRIVATE = 32, 4096, 16384, 1 << 18
_MNT_DETACH = 2
_SEALED = _MS_RDONLY | _MS_NOSUID | _MS_NODEV | _MS_NOEXEC

_HOST_NAME = b"jail"

_libc = ctypes.CDLL(None, use_errno=True)


def enter_outer(readable: Sequence[str]) -> tuple[str, ...]:
    """Enter namespaces of network, IPC, host name and files, for good.

    The calling process must have one thread. Afterwards it sees no file but `readable`.

    Returns:
        What could not be had, as "mechanism: reason"; empty when all is in place.
    """
    flags = _CLONE_NEWNET | _CLONE_NEWIPC | _CLONE_NEWUTS | _CLONE_NEWNS
    try:
        _unshare(flags)
    except PermissionError:
        try:
            _enter_user_namespace(flags)
        except OSError as error:
            return _without(error)
    except OSError as error:
        return _without(error)
    _libc.sethostname(_HOST_NAME, len(_HOST_NAME))  # in vain at worst: it is no secret
    try:
        _empty_file_tree(readable)
    except OSError as error:
        return (f"own file tree: {error}",)
    return ()


def _without(error: OSError) -> tuple[str, ...]:
    return tuple(f"{name}: {error}" for name in ("namespaces", "own file tree"))


class ProcessTables:
    """Makes process tables, one for each next child of the calling process.

    Make it before `enter_outer`, which takes away what it needs.
    """

    def __init__(self) -> None:
        self._own = os.open("/proc/self/ns/pid", os.O_RDONLY | os.O_CLOEXEC)

    def enter(self) -> None:
        """Let the calling process's next child be the first of a new process table.

        Raises:
            OSError: the kernel does not allow it.
        """
        _unshare(_CLONE_NEWPID | _CLONE_NEWIPC)

    def leave(self) -> None:
        """Let the children after the next one be in this process's own table again.

        Raises:
            OSError: the kernel does not allow it; it wants rights over the own table.
        """
        _check(_libc.setns(self._own, _CLONE_NEWPID), "setns")


def _enter_user_namespace(flags: int) -> None:
    """Enter a user namespace in which this user is itself, and the others within it."""
    user, group = os.geteuid(), os.getegid()
    _unshare(_CLONE_NEWUSER | flags)
    for name, text in (
        ("setgroups", "deny"),  # the kernel wants this before an ordinary user maps a group
        ("uid_map", f"{user} {user} 1"),
        ("gid_map", f"{group} {group} 1"),
    ):
        with open(f"/proc/self/{name}", "w", encoding="ascii") as stream:
            stream.write(text)


def _empty_file_tree(readable: Sequence[str]) -> None:
    """Make a read-only tree of the readable paths the root, and let go of the old one."""
    root = tempfile.mkdtemp(prefix=owner_mark(os.getpid()))
    outer = os.open(os.path.dirname(root), os.O_RDONLY | os.O_DIRECTORY)
    try:
        _mount("none", "/", "", _MS_REC | _MS_PRIVATE)
        _mount("tmpfs", root, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "size=64k,mode=755")
        for path in readable:
            if os.path.exists(path):
                _bind(path, root + path)
        os.chdir(root)
        _pivot_root(".", ".")
        _check(_libc.umount2(b".", _MNT_DETACH), "umount2")
        os.chdir("/")
        _mount("none", "/", "", _MS_REMOUNT | _MS_BIND | _SEALED)
    except OSError:
        _libc.umount2(root.encode(), _MNT_DETACH)  # which fails if it never was mounted
        raise
    finally:
        os.rmdir(os.path.basename(root), dir_fd=outer)  # it was only a place to mount on
        os.close(outer)


def _bind(path: str, target: str) -> None:
    if os.path.isdir(path):
        os.makedirs(target)
    else:
        os.makedirs(os.path.dirname(target), exist_ok=True)
        os.close(os.open(target, os.O_CREAT | os.O_WRONLY, 0o444))
    _mount(path, target, "", _MS_BIND | _MS_REC)
    _mount("none", target, "", _MS_REMOUNT | _MS_BIND | _SEALED)


def _unshare(flags: int) -> None:
    _check(_libc.unshare(flags), "unshare")


def _pivot_root(new: str, old: str) -> None:
    _check(_libc.syscall(number_of("pivot_root"), new.encode(), old.encode()), "pivot_root")


def _mount(source: str, target: str, kind: str, flags: int, options: str = "") -> None:
    result = _libc.mount(
        source.encode(),
        target.encode(),
        kind.encode() or None,
        ctypes.c_ulong(flags),
        options.encode() or None,
    )
    _check(result, f"mount {target}")


def _check(result: int, what: str) -> None:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
