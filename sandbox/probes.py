"""The forbidden acts, attempted for real.

Each probe tries one act and says whether it succeeded. The same functions run inside a jail,
where all must fail, and outside, where each must succeed: a probe that fails outside proves
nothing about the jail. They use the standard library only.
"""

from __future__ import annotations

import mmap
import os
import socket
from collections.abc import Callable

__all__ = ["PROBES", "attempt"]

_SUCCEEDED = "succeeded"
_ALLOCATION = 1 << 20


def attempt(name: str, argument: str) -> str:
    """Attempt the act `name`; return "succeeded", or how it failed.

    Args:
        name: a key of `PROBES`.
        argument: what the act needs: a path, a port, a number of bytes.
    """
    try:
        PROBES[name](argument)
    except (OSError, MemoryError, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    return _SUCCEEDED


def _read_file(path: str) -> None:
    with open(path, "rb") as stream:
        stream.read(1)


def _write_file(path: str) -> None:
    with open(path, "ab") as stream:
        stream.write(b"x")


def _create_file(folder: str) -> None:
    path = os.path.join(folder, "probe-created")
    os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
    os.unlink(path)


def _connect_loopback(port: str) -> None:
    with socket.socket(socket.AF_INET) as client:
        client.settimeout(2)
        client.connect(("127.0.0.1", int(port)))


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(path)


def _fork(_: str) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _exec(path: str) -> None:
    """Run a program; the attempt counts as soon as the program starts."""
    pid = os.posix_spawn(path, [path], {})
    os.waitpid(pid, 0)


def _signal_parent(pid: str) -> None:
    os.kill(int(pid), 0)


def _allocate(size: str) -> None:
    """Map and touch anonymous shared memory, which RLIMIT_DATA does not count."""
    with mmap.mmap(-1, int(size)) as area:
        for offset in range(0, int(size), _ALLOCATION):
            area[offset] = 1


PROBES: dict[str, Callable[[str], None]] = {
    "read_file": _read_file,
    "write_file": _write_file,
    "create_file": _create_file,
    "connect_loopback": _connect_loopback,
    "connect_unix": _connect_unix,
    "fork": _fork,
    "exec": _exec,
    "signal_parent": _signal_parent,
    "allocate": _allocate,
}
