"""The trusted side of a jailed process: fork it, let it run, stop it, see it end.

`Zygote` is the process jails are forked from, `Jail` one of them. A jail runs only after `send`,
and `stop` returns only when the kernel has confirmed that it no longer runs. What it answers and
prints is handed on as bytes; what they mean is decided in `sandbox.jailed`.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import select
import signal
import socket
import subprocess
import sys
import termios
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from sandbox.confine import set_timer_slack
from sandbox.jobs import Status
from sandbox.zygote_start import zygote_command

__all__ = ["ExitReport", "Jail", "JailFailure", "SandboxFailure", "Zygote", "memory_file"]

_ZYGOTE_START_S = 120.0
_FORK_S = 20.0
_EXIT_S = 20.0
_STOP_S = 20.0
_STOP_POLL_S = 1e-5
_TIMER_SLACK_NS = 1000  # the default of 50 us would be most of a turn's overhead
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


def memory_file(name: str, content: bytes) -> int:
    """Make an anonymous memory file of fixed size: a shrinking one would crash whoever maps it."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, max(1, len(content)))
    os.pwrite(fd, content, 0)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)
    return fd


class Zygote:
    """The process that has only imported torch; forks one jail at a time."""

    def __init__(self) -> None:
        set_timer_slack(_TIMER_SLACK_NS)
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        command, environment = zygote_command(os.getpid(), theirs.fileno())
        # A clean environment: children can read their parent's in /proc/self/environ.
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            env=environment,
            pass_fds=(theirs.fileno(),),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        theirs.close()
        self._is_ready = False

    def wait_until_ready(self) -> None:
        """Wait until the zygote has imported everything.

        Raises:
            SandboxFailure: it did not get there, or has more than one thread.
        """
        if self._is_ready:
            return
        threads = self._receive(_ZYGOTE_START_S)["threads"]
        if threads != 1:
            raise SandboxFailure(f"the zygote has {threads} threads; forking it could hang")
        self._is_ready = True

    def fork(self, order: Mapping[str, Any], params_fd: int, grads_fd: int) -> Jail:
        """Fork a jail that will carry out `order` over the two shared maps.

        Raises:
            SandboxFailure: the zygote did not answer.
        """
        self.wait_until_ready()
        order_fd = memory_file("order", json.dumps(order).encode("utf-8"))
        requests_r, requests_w = os.pipe()
        answers_r, answers_w = os.pipe()
        output_r, output_w = os.pipe()
        sent = [order_fd, params_fd, grads_fd, requests_r, answers_w, output_w]
        try:
            self._control.settimeout(_FORK_S)
            socket.send_fds(self._control, [b"fork"], sent)
            message, fds, _, _ = socket.recv_fds(self._control, _READ_BYTES, 1)
            if not message or not fds:
                raise SandboxFailure("the zygote ended instead of forking a jail")
        except OSError as error:
            for fd in (requests_w, answers_r, output_r):
                os.close(fd)
            raise SandboxFailure(f"the zygote did not fork a jail: {error}") from error
        finally:
            for fd in (order_fd, requests_r, answers_w, output_w):
                os.close(fd)
        return Jail(
            zygote=self,
            pid=int(json.loads(message)["pid"]),
            pidfd=fds[0],
            requests=requests_w,
            answers=answers_r,
            output=output_r,
        )

    def exit_report(self) -> ExitReport:
        """Wait for the report on the jail that has ended or is being killed."""
        return ExitReport(**self._receive(_EXIT_S))

    def close(self) -> None:
        """End the zygote, and with it any jail."""
        self._control.close()
        self._process.kill()
        self._process.wait()

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            self._control.settimeout(timeout_s)
            message = self._control.recv(_READ_BYTES)
        except OSError as error:
            raise SandboxFailure(f"the zygote did not answer: {error}") from error
        if not message:
            raise SandboxFailure("the zygote ended")
        fields: dict[str, Any] = json.loads(message)
        return fields


class Jail:
    """One jailed process: its descriptors, its stop and go, its end."""

    def __init__(
        self, *, zygote: Zygote, pid: int, pidfd: int, requests: int, answers: int, output: int
    ) -> None:
        self.pid = pid
        self._zygote = zygote
        self._pidfd = pidfd
        self._requests = requests
        self._answers = answers
        self._output = output
        self._stat = _open_stat(pid)
        # clock ids of other processes: see clock_getcpuclockid(3)
        self._cpu_clock = ctypes.c_int32((~pid << 3) | 2).value
        self._last_cpu_s = 0.0
        self.report: ExitReport | None = None
        self.printed = bytearray()
        self.printed_bytes = 0
        self._output_open = True
        self._fds = [fd for fd in (pidfd, requests, answers, output, self._stat) if fd is not None]
        for fd in (requests, answers, output):
            os.set_blocking(fd, False)
        self._poller = select.poll()
        for fd in (answers, output, pidfd):
            self._poller.register(fd, select.POLLIN)

    def cpu_s(self) -> float:
        """CPU seconds the jail has used so far; the last known figure once it has ended."""
        if self.report is not None:
            return self.report.cpu_s
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

    def kill(self) -> ExitReport:
        """Kill the jail if it still runs, and wait until it is gone."""
        if self.report is None:
            self._signal(signal.SIGKILL)
            try:
                self.report = self._zygote.exit_report()
            finally:
                self._close()
        return self.report

    def _close(self) -> None:
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


def _open_stat(pid: int) -> int | None:
    try:
        return os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None  # it has ended already, and been reaped
