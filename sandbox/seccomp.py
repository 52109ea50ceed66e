"""Seccomp: leave the calling process only the system calls an optimizer needs.

An allowlist, compiled to classic BPF here: everything else answers "operation not permitted",
so that a candidate sees an ordinary error and the trusted side a clear reason. Foreign
instruction sets are killed. There is no way back, and no thread or process can be started.
Reference: seccomp(2), kernel documentation userspace-api/seccomp_filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from dataclasses import dataclass

__all__ = ["ALLOWED", "install", "is_supported"]

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_ALLOW = 0x7FFF0000

_LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
_JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
_JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
_JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
_RETURN = 0x06  # BPF_RET | BPF_K

_OFFSET_NUMBER, _OFFSET_ARCH, _OFFSET_FLAGS = 0, 4, 32  # flags: third argument of openat
_X32_BIT = 0x40000000  # system calls of the x32 interface share the architecture's name


_REFUSED_OPEN_FLAGS = (
    os.O_PATH | os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_TMPFILE
) & ~os.O_DIRECTORY  # a part of O_TMPFILE


@dataclass(frozen=True, slots=True)
class _Architecture:
    audit: int
    numbers: dict[str, int]


# What the shipped optimizer, and optimizers using any of torch.optim, were seen to call while
# training, and what CPython and the memory allocator fall back to. `openat` stays because
# Landlock decides about paths; without it CPU detection would differ from the trusted side's.
ALLOWED = frozenset(
    {
        "brk",
        "clock_getres",
        "clock_gettime",
        "clock_nanosleep",
        "close",
        "exit",
        "exit_group",
        "fstat",
        "futex",
        "getcpu",
        "getdents64",
        "getpid",
        "getrandom",
        "getrusage",
        "gettid",
        "gettimeofday",
        "lseek",
        "madvise",
        "mmap",
        "mprotect",
        "mremap",
        "munmap",
        "nanosleep",
        "openat",
        "read",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "sched_yield",
        "sigaltstack",
        "uname",
        "write",
        "writev",
    }
)

_X86_64 = _Architecture(
    audit=0xC000003E,
    numbers={
        "brk": 12,
        "clock_getres": 229,
        "clock_gettime": 228,
        "clock_nanosleep": 230,
        "close": 3,
        "exit": 60,
        "exit_group": 231,
        "fstat": 5,
        "futex": 202,
        "getcpu": 309,
        "getdents64": 217,
        "getpid": 39,
        "getrandom": 318,
        "getrusage": 98,
        "gettid": 186,
        "gettimeofday": 96,
        "lseek": 8,
        "madvise": 28,
        "mmap": 9,
        "mprotect": 10,
        "mremap": 25,
        "munmap": 11,
        "nanosleep": 35,
        "openat": 257,
        "read": 0,
        "rseq": 334,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "sched_getaffinity": 204,
        "sched_yield": 24,
        "sigaltstack": 131,
        "uname": 63,
        "write": 1,
        "writev": 20,
        "clone3": 435,
    },
)

_ARCHITECTURES = {"x86_64": _X86_64}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_supported() -> bool:
    """Tell whether a filter is known for this machine's instruction set."""
    return platform.machine() in _ARCHITECTURES


def install() -> None:
    """Confine the calling thread to `ALLOWED`. The caller must have set NO_NEW_PRIVS.

    Raises:
        OSError: the kernel refused, or no filter is known for this architecture.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.EOPNOTSUPP, f"no seccomp filter is known for {machine}")
    code = _compile(_ARCHITECTURES[machine])
    program = _Program(length=len(code) // 8, filter=code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECCOMP): {os.strerror(number)}")


def _compile(architecture: _Architecture) -> bytes:
    """Compile the allowlist: check the architecture, then compare numbers one by one."""
    code = [
        _instruction(_LOAD_WORD, _OFFSET_ARCH),
        _instruction(_JUMP_EQUAL, architecture.audit, on_true=1),
        _instruction(_RETURN, _RET_KILL_PROCESS),
        _instruction(_LOAD_WORD, _OFFSET_NUMBER),
        _instruction(_JUMP_AT_LEAST, _X32_BIT, on_false=1),
        _instruction(_RETURN, _RET_KILL_PROCESS),
    ]
    # Opening for anything but reading is refused here already. So is O_PATH, which Landlock lets
    # pass and which would show the size and times of any file.
    code += [
        _instruction(_JUMP_EQUAL, architecture.numbers["openat"], on_false=4),
        _instruction(_LOAD_WORD, _OFFSET_FLAGS),
        _instruction(_JUMP_ANY_BIT, _REFUSED_OPEN_FLAGS, on_true=1),
        _instruction(_RETURN, _RET_ALLOW),
        _instruction(_RETURN, _RET_ERRNO | errno.EPERM),
    ]
    for name in sorted(ALLOWED - {"openat"}):
        code.append(_instruction(_JUMP_EQUAL, architecture.numbers[name], on_false=1))
        code.append(_instruction(_RETURN, _RET_ALLOW))
    # glibc falls back from clone3 to clone only on ENOSYS; clone then fails with EPERM.
    code.append(_instruction(_JUMP_EQUAL, architecture.numbers["clone3"], on_false=1))
    code.append(_instruction(_RETURN, _RET_ERRNO | errno.ENOSYS))
    code.append(_instruction(_RETURN, _RET_ERRNO | errno.EPERM))
    return b"".join(code)


def _instruction(operation: int, operand: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, on_true, on_false, operand)
