"""Learn which forbidden system calls a jail makes, and refuse each of them.

The kernel holds a forbidden call until the trusted side has answered (seccomp user notification),
so what is recorded here was really asked for: no candidate can hide an attempt by catching the
error, nor be blamed for one by the text of an exception. The answer is always "operation not
permitted". Reference: seccomp_unotify(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import socket
import struct

from sandbox.seccomp import call_name

__all__ = ["UNREMARKABLE", "Monitor", "hand_over_listener"]

_RECEIVE = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV
_SEND = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND
# struct seccomp_notif: id, pid, flags, then the call's number, architecture, address, arguments
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RESPONSE = struct.Struct("=QqiI")  # id, value, error, flags
_KEPT_NAMES = 8

# What libraries try on the way to a fallback, to find out where they are, or (`tgkill`) to abort:
# refused like all others, but no sign of intent.
UNREMARKABLE = frozenset(
    {
        "access",
        "dup",
        "faccessat",
        "faccessat2",
        "fcntl",
        "get_mempolicy",
        "getcwd",
        "getegid",
        "geteuid",
        "getgid",
        "getppid",
        "getrlimit",
        "getuid",
        "ioctl",
        "lstat",
        "mbind",
        "mincore",
        "mlock",
        "newfstatat",
        "poll",
        "ppoll",
        "pread64",
        "prlimit64",
        "readlink",
        "readlinkat",
        "sched_setaffinity",
        "select",
        "set_mempolicy",
        "set_robust_list",
        "stat",
        "statfs",
        "statx",
        "sysinfo",
        "tgkill",
        "times",
    }
)


def hand_over_listener(channel: socket.socket, listener: int) -> None:
    """Give the descriptor on which calls are announced to whoever holds the other end."""
    socket.send_fds(channel, [b"listener"], [listener])


class Monitor:
    """The trusted end: takes over a jail's listener and answers what it announces.

    Register `descriptors` for reading and call `attend` whenever one is ready. `names` holds the
    first few different calls, `count` all of them.
    """

    def __init__(self, channel: socket.socket) -> None:
        channel.setblocking(False)
        self._channel: socket.socket | None = channel
        self._listener: int | None = None
        self.names: list[str] = []
        self.count = 0

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What to wait on at this moment."""
        channel = (self._channel.fileno(),) if self._channel is not None else ()
        return (*channel, self._listener) if self._listener is not None else channel

    @property
    def remarkable(self) -> tuple[str, ...]:
        """The recorded calls that no library makes on its own."""
        return tuple(name for name in self.names if name not in UNREMARKABLE)

    def attend(self) -> None:
        """Take over the listener if it has come, and answer every call that waits."""
        if self._channel is not None:
            self._take_over(self._channel)
        while self._listener is not None and self._is_waiting(self._listener):
            self._answer(self._listener)

    def close(self) -> None:
        """Stop attending; calls that still wait fail."""
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        if self._listener is not None:
            os.close(self._listener)
            self._listener = None

    def _take_over(self, channel: socket.socket) -> None:
        try:
            _, descriptors, _, _ = socket.recv_fds(channel, 64, 1)
        except BlockingIOError:
            return
        except ConnectionResetError:
            descriptors = []
        self._listener = descriptors[0] if descriptors else None
        channel.close()
        self._channel = None

    def _is_waiting(self, listener: int) -> bool:
        poller = select.poll()
        poller.register(listener, select.POLLIN)
        events = poller.poll(0)
        if events and not events[0][1] & select.POLLIN:  # the jail is gone
            os.close(listener)
            self._listener = None
            return False
        return bool(events)

    def _answer(self, listener: int) -> None:
        buffer = bytearray(_NOTIFICATION.size)
        try:
            fcntl.ioctl(listener, _RECEIVE, buffer)
            identity, _, _, number, *_ = _NOTIFICATION.unpack(buffer)
            self._record(call_name(number))
            response = bytearray(_RESPONSE.pack(identity, 0, -errno.EPERM, 0))
            fcntl.ioctl(listener, _SEND, response)
        except OSError as error:
            # The call was interrupted, or its process is gone: there is nothing to answer.
            if error.errno not in (errno.ENOENT, errno.EINTR):
                raise

    def _record(self, name: str) -> None:
        self.count += 1
        if name not in self.names and len(self.names) < _KEPT_NAMES:
            self.names.append(name)
