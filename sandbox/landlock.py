"""Landlock: take away the file system and the network from the calling process.

A few system calls by number, since no maintained binding exists. The rule set denies every
right the running kernel knows of and then allows reading the few paths named. It cannot be
undone, and whatever the process starts inherits it. Reference: landlock(7), kernel
documentation userspace-api/landlock.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Sequence

__all__ = ["abi_version", "restrict"]

# The same numbers on every architecture: they came after system call tables were unified.
_SYS_CREATE_RULESET = 444
_SYS_ADD_RULE = 445
_SYS_RESTRICT_SELF = 446

_CREATE_RULESET_VERSION = 1
_RULE_PATH_BENEATH = 1
_READ_FILE = 1 << 2
_READ_DIR = 1 << 3

# How many file system rights each ABI version handles, from ABI 1 on.
_FS_RIGHTS_BY_ABI = (13, 14, 15, 15, 16)
_NET_SINCE_ABI = 4  # bind and connect of TCP sockets
_SCOPE_SINCE_ABI = 6  # abstract Unix sockets and signals to processes outside

_libc = ctypes.CDLL(None, use_errno=True)


class _RulesetAttr(ctypes.Structure):
    _fields_ = (
        ("handled_access_fs", ctypes.c_uint64),
        ("handled_access_net", ctypes.c_uint64),
        ("scoped", ctypes.c_uint64),
    )


class _PathBeneathAttr(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def _check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def abi_version() -> int:
    """Return the kernel's Landlock ABI version, 0 where Landlock is absent or disabled."""
    version: int = _libc.syscall(_SYS_CREATE_RULESET, None, 0, _CREATE_RULESET_VERSION)
    if version < 0:
        if ctypes.get_errno() in (errno.ENOSYS, errno.EOPNOTSUPP):
            return 0
        return _check(version, "landlock_create_ruleset")
    return version


def restrict(readable: Sequence[str]) -> None:
    """Deny every file system and network right but reading `readable`, for good.

    The caller must have set NO_NEW_PRIVS. Paths that do not exist are left out.

    Raises:
        OSError: the kernel refused, or has no Landlock (ENOSYS, EOPNOTSUPP).
    """
    abi = abi_version()
    if abi == 0:
        raise OSError(errno.EOPNOTSUPP, "this kernel has no Landlock")
    rights = _FS_RIGHTS_BY_ABI[min(abi, len(_FS_RIGHTS_BY_ABI)) - 1]
    attributes = _RulesetAttr(
        handled_access_fs=(1 << rights) - 1,
        handled_access_net=0b11 if abi >= _NET_SINCE_ABI else 0,
        scoped=0b11 if abi >= _SCOPE_SINCE_ABI else 0,
    )
    size = 24 if abi >= _SCOPE_SINCE_ABI else 16 if abi >= _NET_SINCE_ABI else 8
    ruleset = _check(
        _libc.syscall(_SYS_CREATE_RULESET, ctypes.byref(attributes), ctypes.c_size_t(size), 0),
        "landlock_create_ruleset",
    )
    try:
        for path in readable:
            _allow_reading(ruleset, path)
        _check(_libc.syscall(_SYS_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)


def _allow_reading(ruleset: int, path: str) -> None:
    try:
        parent = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
        rule = _PathBeneathAttr(allowed_access=rights, parent_fd=parent)
        _check(
            _libc.syscall(_SYS_ADD_RULE, ruleset, _RULE_PATH_BENEATH, ctypes.byref(rule), 0),
            f"landlock_add_rule {path}",
        )
    finally:
        os.close(parent)
