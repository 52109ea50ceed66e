"""The trusted side of a jailed process: let it run, stop it, see it end.

A jail runs only after `send`, and `stop` returns only when the kernel has confirmed that it no
longer runs. What it answers and prints is handed on as bytes; what they mean is decided in
`sandbox.jailed`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import select
import signal
import socket
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass

from sandbox.jobs import Status
from sandbox.monitor import Monitor

__all__ = ["ExitReport", "Jail", "JailFailure", "Pipes", "SandboxFailure"]

_STOP_S = 20.0
_STOP_POLL_S = 1e-5
_READ_BYTES = 1 << 16


class JailFailure(Exception):  # noqa: N818 - a candidate's failure is an outcome, not an error
    """A candidate's training run ended early, by the trusted side's verdict."""

    def __init__(self, status: Status, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.line = line


class SandboxFailure(Exception):  # noqa: N818 - mirrors Status.SANDBOX_ERROR
    """The sandbox itself failed; no candidate is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How a jail ended, as its parent saw it."""

    signal: int
    code: int
    cpu_s: float
    peak_memory_bytes: int


class Pipes:
    """The lines to a jail: our ends stay, theirs are closed with the stack once they are sent."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        requests_r, self.requests = os.pipe()
        self.answers, answers_w = os.pipe()
        self.output, output_w = os.pipe()
        self.monitor, monitor = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        stack.callback(monitor.close)
        for descriptor in (requests_r, answers_w, output_w):
            stack.callback(os.close, descriptor)
        self.theirs = [requests_r, answers_w, output_w, monitor.fileno()]

    def close_ours(self) -> None:
        """Give up: there will be no jail."""
        self.monitor.close()
        for descriptor in (self.requests, self.answers, self.output):
            os.close(descriptor)


class Jail:
    """One jailed process: its descriptors, its stop and go, its end."""

    def __init__(self, *, pidfd: int, pipes: Pipes, exit_report: Callable[[], ExitReport]) -> None:
        self.pid = _pid_of(pidfd)
        self._exit_report = exit_report
        self._pidfd = pidfd
        self._requests, self._answers, self._output = pipes.requests, pipes.answers, pipes.output
        self.monitor = Monitor(pipes.monitor)
        self._stat = _open_stat(self.pid)
        # clock ids of other processes: see clock_getcpuclockid(3)
        self._cpu_clock = ctypes.c_int32((~self.pid << 3) | 2).value if self.pid > 0 else None
        self._last_cpu_s = 0.0
        self.report: ExitReport | None = None
        self.printed = bytearray()
        self.printed_bytes = 0
        self._output_open = True
        lines = (pidfd, self._requests, self._answers, self._output, self._stat)
        self._fds = [fd for fd in lines if fd is not None]
        for fd in (self._requests, self._answers, self._output):
            os.set_blocking(fd, False)
        self._poller = select.poll()
        self._watched = self.monitor.descriptors
        for fd in (self._answers, self._output, pidfd, *self._watched):
            self._poller.register(fd, select.POLLIN)

    def cpu_s(self) -> float:
        """CPU seconds the jail has used so far; the last known figure once it has ended."""
        if self.report is not None:
            return self.report.cpu_s
        if self._cpu_clock is not None:
            with contextlib.suppress(OSError):  # it has just ended: its report will tell
                self._last_cpu_s = time.clock_gettime(self._cpu_clock)
        return self._last_cpu_s

    def send(self, message: bytes) -> None:
        """Write a request and let the jail run.

        Raises:
            JailFailure: an earlier request was answered without having been read, or the jail
                hung up.
        """
        unread = fcntl.ioctl(self._requests, termios.FIONREAD, bytes(4))
        if any(unread):
            raise JailFailure(
                Status.PROTOCOL_ERROR, "answered a request before it was done with the one before"
            )
        try:
            os.write(self._requests, message)
        except BrokenPipeError as error:
            raise JailFailure(
                Status.PROTOCOL_ERROR, "the candidate closed the pipe it is asked over"
            ) from error
        self._signal(signal.SIGCONT)

    def wait(self, timeout_s: float) -> tuple[bool, bool]:
        """Wait until the jail answers, prints or ends; returns (has answer, has ended)."""
        events = {fd for fd, _ in self._poller.poll(max(0.0, timeout_s) * 1000 + 1)}
        if not events.isdisjoint(self._watched):
            self._attend()
        return self._answers in events, self._pidfd in events

    def read_answer(self, limit: int = 64) -> bytes | None:
        """Read what the jail has answered so far, without waiting; None if it closed the pipe."""
        try:
            return os.read(self._answers, limit) or None
        except BlockingIOError:
            return b""

    def drain_output(self, keep: int) -> None:
        """Take over what the candidate printed, keeping the last `keep` bytes."""
        with contextlib.suppress(BlockingIOError):
            while self._output_open:
                chunk = os.read(self._output, _READ_BYTES)
                if not chunk:
                    self._output_open = False
                    self._poller.unregister(self._output)
                self.printed_bytes += len(chunk)
                self.printed += chunk
                del self.printed[:-keep]

    @property
    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return bool(select.select([self._pidfd], [], [], 0)[0])

    def stop(self) -> None:
        """Stop the jail, and return once the kernel says that it has stopped or ended.

        One thread is all a jail can have, so its state is the whole process's.
        """
        self._signal(signal.SIGSTOP)
        deadline = time.monotonic() + _STOP_S
        while self._state() not in b"TtZX":
            # Sleeping, not yielding: a jail on this very core can only stop if it gets the core,
            # and a yield may hand the core to a stranger for milliseconds. Measured under load,
            # upper quartile: 0.2 ms asleep, 2 ms yielding, 3 ms spinning.
            time.sleep(_STOP_POLL_S)
            if time.monotonic() > deadline:
                raise SandboxFailure("a jail could not be stopped")

    def has_survivors(self, timeout_s: float) -> bool:
        """Kill the jail's first process, and tell whether others of it go on.

        Whoever was started by a jail has inherited the pipe it answers over, so it is closed only
        when all of them are gone.
        """
        self._signal(signal.SIGKILL)
        deadline = time.monotonic() + timeout_s
        while (left_s := deadline - time.monotonic()) > 0:
            answered, _, _ = select.select([self._answers], [], [], left_s)
            if answered and self.read_answer() is None:
                return False
        return True

    def kill(self) -> ExitReport:
        """Kill the jail if it still runs, and wait until it is gone.

        Raises:
            SandboxFailure: the zygote did not report its end, now or the last time.
        """
        if self.report is None:
            if not self._fds:
                raise SandboxFailure("the end of a jail was not reported")
            self._signal(signal.SIGKILL)
            try:
                self.report = self._exit_report()
            finally:
                self._close()
        return self.report

    def _attend(self) -> None:
        """Answer forbidden calls; what is to be watched for them changes on the way."""
        for fd in self._watched:
            self._poller.unregister(fd)
        self.monitor.attend()
        self._watched = self.monitor.descriptors
        for fd in self._watched:
            self._poller.register(fd, select.POLLIN)

    def _close(self) -> None:
        self.monitor.close()
        self._output_open = False
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)

    def _state(self) -> bytes:
        if self._stat is None:
            return b"X"
        try:
            stat = os.pread(self._stat, 512, 0)
        except ProcessLookupError:
            return b"X"
        end = stat.rfind(b")")
        return stat[end + 2 : end + 3]

    def _signal(self, number: int) -> None:
        try:
            signal.pidfd_send_signal(self._pidfd, number)
        except ProcessLookupError:
            pass  # ended by itself: its report will tell
        except PermissionError as error:
            raise SandboxFailure(
                "the kernel does not let this process signal its own jail: run as an ordinary "
                "user, or as root with all privileges"
            ) from error


def _pid_of(pidfd: int) -> int:
    """Return the process id in this process's own table: the zygote's may be another one.

    Not positive if the process has been reaped already.
    """
    with open(f"/proc/self/fdinfo/{pidfd}", encoding="ascii") as lines:
        fields = dict(line.split(":", 1) for line in lines)
    return int(fields["Pid"])


def _open_stat(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # it has ended already, and been reaped
