"""Run the corpus under other conditions than the ones it was started in.

Both changes are made to this process before it starts anything, and everything it starts inherits
them; there is no way back.
"""

from __future__ import annotations

import atexit
import ctypes
import errno
import os
import platform
import shutil
import struct
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

__all__ = ["as_ordinary_user", "without_namespaces"]

_USER = 65533
_CLONE_NEWNS = 0x00020000
_MS_BIND, _MS_REC, _MS_PRIVATE = 0x1000, 0x4000, 0x40000
_PR_SET_SECCOMP, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 22, 24, 38
_SECCOMP_MODE_FILTER = 2

# What a container engine leaves to root by default: chown, dac_override, fowner, fsetid, kill,
# setgid, setuid, setpcap, net_bind_service, net_raw, sys_chroot, mknod, audit_write, setfcap.
_CONTAINER_CAPABILITIES = frozenset({0, 1, 3, 4, 5, 6, 7, 8, 10, 13, 18, 27, 29, 31})
_LAST_CAPABILITY = 40

# unshare, setns, clone, clone3: see the kernel's tables of system calls
_NUMBERS = {"x86_64": (272, 308, 56, 435), "aarch64": (97, 268, 220, 435)}
_NEW_NAMESPACE = 0x7E020000  # every CLONE_NEW… flag that clone takes

_libc = ctypes.CDLL(None, use_errno=True)


def as_ordinary_user() -> None:
    """Become a user that owns nothing, with interpreter and checkout still within reach.

    They may lie below folders that only root may enter. In a mount namespace of our own, an
    empty folder everybody may enter takes the place of each of those, and inside of it the same
    paths lead to the same files. Needs root with all privileges.

    Raises:
        OSError: a step was refused.
    """
    if os.geteuid() != 0:
        raise PermissionError(errno.EPERM, "only root can become another user")
    _call("unshare", _CLONE_NEWNS)
    _mount("none", "/", _MS_REC | _MS_PRIVATE)
    checkout = Path(__file__).resolve().parents[2]
    _open_the_way_to({Path(sys.base_prefix).resolve(), Path(sys.prefix).resolve(), checkout})
    home = tempfile.mkdtemp(prefix="nanoevolve-home-")
    atexit.register(shutil.rmtree, home)
    os.chown(home, _USER, _USER)
    os.environ.update(HOME=home, TMPDIR=home)
    tempfile.tempdir = home
    os.setgroups([])
    os.setresgid(_USER, _USER, _USER)
    os.setresuid(_USER, _USER, _USER)


def without_namespaces() -> None:
    """Refuse every new namespace from now on, and keep only a container's capabilities.

    What a container engine does by default: the calls answer "operation not permitted".

    Raises:
        OSError: the kernel refused, or the system calls of this architecture are not known.
    """
    if platform.machine() not in _NUMBERS:
        raise OSError(errno.EOPNOTSUPP, f"no filter is known for {platform.machine()}")
    if os.geteuid() == 0:
        for capability in set(range(_LAST_CAPABILITY + 1)) - _CONTAINER_CAPABILITIES:
            _call("prctl", _PR_CAPBSET_DROP, capability, 0, 0, 0)
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    code = _buffer(_filter(*_NUMBERS[platform.machine()]))
    program = _buffer(struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(code)))
    _call("prctl", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, program, 0, 0)


def _filter(unshare: int, setns: int, clone: int, clone3: int) -> bytes:
    """Compile the filter to classic BPF: see seccomp(2)."""
    load, equal, any_bit, answer = 0x20, 0x15, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x50000 | errno.EPERM, 0x50000 | errno.ENOSYS
    number, first_argument = 0, 16
    instructions = (
        (load, 0, 0, number),
        (equal, 6, 0, unshare),
        (equal, 5, 0, setns),
        (equal, 5, 0, clone3),  # glibc falls back to clone, whose flags can be looked at
        (equal, 0, 2, clone),
        (load, 0, 0, first_argument),
        (any_bit, 1, 0, _NEW_NAMESPACE),
        (answer, 0, 0, allow),
        (answer, 0, 0, refuse),
        (answer, 0, 0, unknown),
    )
    return b"".join(struct.pack("=HBBI", *each) for each in instructions)


def _open_the_way_to(paths: Iterable[Path]) -> None:
    """Let everybody reach these folders by their own paths, wherever they lie."""
    held = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in paths}
    closed = {path: _closed_ancestor(path) for path in held}
    for ancestor in {each for each in closed.values() if each is not None}:
        _mount("tmpfs", str(ancestor), 0, "tmpfs", "mode=755")
    for path, descriptor in held.items():
        if closed[path] is not None:
            path.mkdir(parents=True)
            _mount(f"/proc/self/fd/{descriptor}", str(path), _MS_BIND | _MS_REC)
        os.close(descriptor)


def _closed_ancestor(path: Path) -> Path | None:
    """Return the outermost folder on the way that not everybody may enter."""
    closed = [each for each in path.parents if not each.stat().st_mode & 0o001]
    return closed[-1] if closed else None


def _mount(source: str, target: str, flags: int, kind: str = "", options: str = "") -> None:
    texts = [text.encode() or None for text in (source, target, kind, options)]
    _call("mount", texts[0], texts[1], texts[2], ctypes.c_ulong(flags), texts[3])


def _call(name: str, *arguments: object) -> None:
    if getattr(_libc, name)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _buffer(content: bytes) -> ctypes.Array[ctypes.c_char]:
    return ctypes.create_string_buffer(content, len(content))
