"""The forbidden acts, attempted for real.

Each probe tries one act and says whether it succeeded. The same functions run inside a jail,
where all must fail, and outside, where each must succeed: a probe that fails outside proves
nothing about the jail. They use the standard library only.
"""

from __future__ import annotations

import mmap
import os
import select
import socket
from collections.abc import Callable

__all__ = ["PROBES", "SUCCEEDED", "attempt"]

SUCCEEDED = "succeeded"
_ALLOCATION = 1 << 20
_LINGER_MS = 60_000
_STDOUT = 1


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
    return SUCCEEDED


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


def _connect_abstract(name: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(2)
        client.connect(f"\0{name}")


def _send_datagram(port: str) -> None:
    """Send a datagram to a bound port; without a route or a listener there the kernel objects."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", int(port)))
        client.send(b"x")
        client.send(b"x")  # meets the refusal that answered the first one


def _fork(_: str) -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)


def _exec(path: str) -> None:
    """Run a program; the attempt counts as soon as the program starts."""
    pid = os.posix_spawn(path, [path], {})
    os.waitpid(pid, 0)


def _fork_many(count: str) -> None:
    """Have many processes at the same time, and end them again."""
    children: list[int] = []
    release_r, release_w = os.pipe()
    try:
        for _ in range(int(count)):
            pid = os.fork()
            if pid == 0:
                os.close(release_w)
                os.read(release_r, 1)
                os._exit(0)
            children.append(pid)
    finally:
        os.close(release_w)
        os.close(release_r)
        for pid in children:
            os.waitpid(pid, 0)


def _leave_orphan(_: str) -> None:
    """Start a process that outlives this one and its session, until its output is closed."""
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork() == 0:
            poller = select.poll()
            poller.register(_STDOUT, 0)  # errors are always reported
            poller.poll(_LINGER_MS)
        os._exit(0)
    os.waitpid(pid, 0)


def _signal_parent(pid: str) -> None:
    os.kill(int(pid), 0)


def _read_environment(name: str) -> None:
    if name not in os.environ:
        raise ValueError("no such variable")


def _allocate(size: str) -> None:
    """Map and touch anonymous shared memory, which RLIMIT_DATA does not count."""
    with mmap.mmap(-1, int(size)) as area:
        for offset in range(0, int(size), _ALLOCATION):
            area[offset : offset + _ALLOCATION] = bytes(_ALLOCATION)


PROBES: dict[str, Callable[[str], None]] = {
    "read_file": _read_file,
    "write_file": _write_file,
    "create_file": _create_file,
    "connect_loopback": _connect_loopback,
    "connect_unix": _connect_unix,
    "connect_abstract": _connect_abstract,
    "send_datagram": _send_datagram,
    "fork": _fork,
    "exec": _exec,
    "fork_many": _fork_many,
    "leave_orphan": _leave_orphan,
    "signal_parent": _signal_parent,
    "read_environment": _read_environment,
    "allocate": _allocate,
}
