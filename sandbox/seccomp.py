"""Seccomp: leave the calling process only the system calls an optimizer needs.

An allowlist, compiled to classic BPF here. Everything else answers "operation not permitted", so
that a candidate sees an ordinary error; where the kernel offers it, the trusted side is asked
first and so learns the name of the call (`sandbox.monitor`). Foreign instruction sets are killed.
There is no way back, and no thread or process can be started. Reference: seccomp(2), kernel
documentation userspace-api/seccomp_filter.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.system_calls import TABLES, number_of

__all__ = ["FALLBACK", "RECORDED", "call_name", "install", "is_tested"]

_PR_SET_SECCOMP = 22
_SECCOMP_MODE_FILTER = 2
_SECCOMP_SET_MODE_FILTER = 1
_SECCOMP_FILTER_FLAG_NEW_LISTENER = 8

_RET_KILL_PROCESS = 0x80000000
_RET_ERRNO = 0x00050000
_RET_USER_NOTIF = 0x7FC00000
_RET_ALLOW = 0x7FFF0000
_REFUSE = _RET_ERRNO | errno.EPERM

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

# What honest jails were seen to call once confined: the shipped optimizer and every optimizer of
# torch.optim, training, printing and failing. `tests/sandbox/test_seccomp.py` records it again.
RECORDED = frozenset({"brk", "close", "futex", "mmap", "mprotect", "openat", "read", "write"})

# What CPython, libc and the memory allocator turn to on longer runs and other machines. `openat` is
# above because CPU detection opens files that Landlock allows; Landlock decides about paths. A
# sleep that was interrupted by a stop goes on with `restart_syscall`.
FALLBACK = frozenset(
    {
        "clock_getres",
        "clock_gettime",
        "clock_nanosleep",
        "exit",
        "exit_group",
        "fstat",
        "getcpu",
        "getdents64",
        "getpid",
        "getrandom",
        "getrusage",
        "gettid",
        "gettimeofday",
        "lseek",
        "madvise",
        "mremap",
        "munmap",
        "nanosleep",
        "restart_syscall",
        "rseq",
        "rt_sigaction",
        "rt_sigprocmask",
        "rt_sigreturn",
        "sched_getaffinity",
        "sched_yield",
        "sigaltstack",
        "uname",
        "writev",
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Architecture:
    audit: int
    numbers: Mapping[str, int]
    is_tested: bool


_ARCHITECTURES = {
    "x86_64": _Architecture(audit=0xC000003E, numbers=TABLES["x86_64"], is_tested=True),
    # Written from the kernel's tables; nobody has run a jail on such a machine yet.
    "aarch64": _Architecture(audit=0xC00000B7, numbers=TABLES["aarch64"], is_tested=False),
}


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def is_tested() -> bool:
    """Tell whether the filter for this machine's instruction set has ever been run."""
    machine = platform.machine()
    return machine in _ARCHITECTURES and _ARCHITECTURES[machine].is_tested


def call_name(number: int) -> str:
    """Return the name of a system call of this machine."""
    numbers = TABLES.get(platform.machine(), {})
    return next((name for name, n in numbers.items() if n == number), f"system call {number}")


def install(hand_over: Callable[[int], None] | None = None) -> bool:
    """Confine the calling thread to `RECORDED` and `FALLBACK`. It must have set NO_NEW_PRIVS.

    Args:
        hand_over: gives the descriptor on which forbidden calls are announced to the trusted
            side; without it, and where the kernel cannot announce, they are just refused.

    Returns:
        Whether forbidden calls are announced.

    Raises:
        OSError: the kernel refused, or no filter is known for this architecture.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(errno.EOPNOTSUPP, f"no seccomp filter is known for {machine}")
    architecture = _ARCHITECTURES[machine]
    if hand_over is not None:
        # Handing over and closing up need two calls that the second filter takes away again: of
        # two filters the stricter answer holds, and a refusal is stricter than an announcement.
        needed = {"sendmsg", "prctl"}
        listener = _announce(_compile(architecture, _RET_USER_NOTIF, needed))
        if listener is not None:
            hand_over(listener)
            os.close(listener)
            _install(_refuse_only(architecture, needed))
            return True
    _install(_compile(architecture, _REFUSE, frozenset()))
    return False


def _install(code: bytes) -> None:
    program = _Program(length=len(code) // 8, filter=code)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"prctl(PR_SET_SECCOMP): {os.strerror(number)}")


def _announce(code: bytes) -> int | None:
    """Install a filter that announces; return the listening descriptor, None if unsupported."""
    program = _Program(length=len(code) // 8, filter=code)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor: int = libc.syscall(
        number_of("seccomp"),
        _SECCOMP_SET_MODE_FILTER,
        _SECCOMP_FILTER_FLAG_NEW_LISTENER,
        ctypes.byref(program),
    )
    return descriptor if descriptor >= 0 else None


def _compile(architecture: _Architecture, otherwise: int, more: frozenset[str] | set[str]) -> bytes:
    """Compile the allowlist: check the architecture, then compare numbers one by one."""
    numbers = architecture.numbers
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
        _instruction(_JUMP_EQUAL, numbers["openat"], on_false=4),
        _instruction(_LOAD_WORD, _OFFSET_FLAGS),
        _instruction(_JUMP_ANY_BIT, _REFUSED_OPEN_FLAGS, on_true=1),
        _instruction(_RETURN, _RET_ALLOW),
        _instruction(_RETURN, otherwise),
    ]
    for name in sorted((RECORDED | FALLBACK | more) - {"openat"}):
        code.append(_instruction(_JUMP_EQUAL, numbers[name], on_false=1))
        code.append(_instruction(_RETURN, _RET_ALLOW))
    # glibc falls back from clone3 to clone only on ENOSYS; clone is then refused.
    code.append(_instruction(_JUMP_EQUAL, numbers["clone3"], on_false=1))
    code.append(_instruction(_RETURN, _RET_ERRNO | errno.ENOSYS))
    code.append(_instruction(_RETURN, otherwise))
    return b"".join(code)


def _refuse_only(architecture: _Architecture, names: set[str]) -> bytes:
    code = [_instruction(_LOAD_WORD, _OFFSET_NUMBER)]
    for name in sorted(names):
        code.append(_instruction(_JUMP_EQUAL, architecture.numbers[name], on_false=1))
        code.append(_instruction(_RETURN, _REFUSE))
    code.append(_instruction(_RETURN, _RET_ALLOW))
    return b"".join(code)


def _instruction(operation: int, operand: int, on_true: int = 0, on_false: int = 0) -> bytes:
    return struct.pack("=HBBI", operation, on_true, on_false, operand)
