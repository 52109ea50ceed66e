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
from enum import StrEnum
from typing import Any

from sandbox.bubblewrap import find_bubblewrap, wrap
from sandbox.cgroups import ControlGroup, make_control_group
from sandbox.confine import ALL_LAYERS, Layer, set_timer_slack
from sandbox.jobs import Status
from sandbox.monitor import Monitor
from sandbox.zygote_start import ZygoteOptions, zygote_command

__all__ = [
    "ExitReport",
    "Jail",
    "JailFailure",
    "Outer",
    "SandboxFailure",
    "Zygote",
    "memory_file",
]

_ZYGOTE_START_S = 120.0
_FORK_S = 20.0
_EXIT_S = 20.0
_CLOSE_S = 2.0
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


class Outer(StrEnum):
    """Who puts a zygote and its jails into namespaces of their own.

    `auto` is the zygote itself or, where it may not, bubblewrap where that is installed. With
    `none` there is no control group either: level 2 is then the most there can be.
    """

    AUTO = "auto"
    BUBBLEWRAP = "bubblewrap"
    NONE = "none"


class Zygote:
    """The process that has only imported torch; forks one jail at a time.

    It and its jails live in namespaces and a control group of their own where that is possible.
    """

    def __init__(self, outer: Outer = Outer.AUTO) -> None:
        set_timer_slack(_TIMER_SLACK_NS)
        self._outer = outer
        self._group, reason = None, "not asked for"
        if outer is not Outer.NONE:
            self._group, reason = make_control_group(os.getpid())
        self._no_group = (f"control group: {reason}",) if reason else ()
        self._bubblewrap = find_bubblewrap() if outer is Outer.BUBBLEWRAP else None
        self._control, self._process = self._launch()
        self._report: dict[str, Any] | None = None

    def wait_until_ready(self) -> None:
        """Wait until the zygote has imported everything.

        Raises:
            SandboxFailure: it did not get there, or has more than one thread.
        """
        if self._report is not None:
            return
        report = self._receive(_ZYGOTE_START_S)
        program = find_bubblewrap()
        if report["missing"] and program is not None and self._outer is Outer.AUTO:
            report = self._restart_inside(program) or report
        if report["threads"] != 1:
            threads = report["threads"]
            raise SandboxFailure(f"the zygote has {threads} threads; forking it could hang")
        if self._group is not None and not report["joined"]:
            self._group.abandon()
            self._group, self._no_group = None, ("control group: it could not be joined",)
        if self._group is not None:
            self._group.settle()
        self._report = report

    @property
    def layers(self) -> frozenset[Layer]:
        """The lines of defence that every candidate's jail gets here."""
        self.wait_until_ready()
        has_tables = self._report is not None and self._report["process_tables"]
        return ALL_LAYERS if has_tables else ALL_LAYERS - {Layer.PROCESS_TABLE}

    @property
    def missing(self) -> tuple[str, ...]:
        """What the zygote and its worker could not set up, as "mechanism: reason"."""
        no_table = Layer.PROCESS_TABLE not in self.layers
        no_tables = ("process table: the kernel does not allow it",) if no_table else ()
        # Bubblewrap has done what the zygote was not asked for.
        own = self._report["missing"] if self._report and not self.is_wrapped else ()
        return (*own, *no_tables, *self._no_group)

    @property
    def pid(self) -> int:
        """Process id of the zygote; of bubblewrap, where that is the outer layer."""
        return self._process.pid

    @property
    def is_wrapped(self) -> bool:
        """Whether bubblewrap is the outer layer."""
        return self._bubblewrap is not None

    def fork(
        self,
        order: Mapping[str, Any],
        params_fd: int,
        grads_fd: int,
        layers: frozenset[Layer] = ALL_LAYERS,
    ) -> Jail:
        """Fork a jail that will carry out `order` over the two shared maps.

        Args:
            order: see `sandbox.jailed.jail_order`.
            params_fd: memory file of the parameters.
            grads_fd: memory file of the gradients.
            layers: the lines of defence to put up, of those that there are; probing alone leaves
                any out.

        Raises:
            SandboxFailure: the zygote did not answer, or memory has run out.
        """
        layers = layers & self.layers
        names = sorted(layers)
        if self._group is not None:
            self._prepare_group(self._group, order["limits"]["memory_bytes"])
        with contextlib.ExitStack() as ours:
            pipes = _Pipes(ours)
            order_fd = memory_file("order", json.dumps({**order, "layers": names}).encode("utf-8"))
            ours.callback(os.close, order_fd)
            sent = [order_fd, params_fd, grads_fd, *pipes.theirs]
            self._control.settimeout(_FORK_S)
            try:
                socket.send_fds(self._control, [json.dumps({"layers": names}).encode()], sent)
                _, fds, _, _ = socket.recv_fds(self._control, _READ_BYTES, 1)
            except OSError as error:
                pipes.close_ours()
                raise SandboxFailure(f"the zygote did not fork a jail: {error}") from error
            if not fds:
                pipes.close_ours()
                raise SandboxFailure("the zygote ended instead of forking a jail")
        return Jail(zygote=self, pidfd=fds[0], pipes=pipes)

    def exit_report(self) -> ExitReport:
        """Wait for the report on the jail that has ended or is being killed.

        Whatever the jail has started is gone, too, when this returns.
        """
        report = ExitReport(**self._receive(_EXIT_S))
        if self._group is not None:
            try:
                self._group.clear()
            except (TimeoutError, OSError) as error:
                raise SandboxFailure(f"a jail's control group: {error}") from error
        return report

    def close(self) -> None:
        """End the zygote, and with it any jail."""
        self._control.close()
        self._process.kill()
        self._process.wait()
        if self._group is not None:
            self._group.remove()
            self._group = None

    def _launch(self) -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        joins = self._group.joins if self._group is not None else ()
        wrapped = self._bubblewrap is not None
        options = ZygoteOptions(
            parent=0 if wrapped else os.getpid(),
            control_fd=theirs.fileno(),
            joins=joins,
            namespaces=self._outer is not Outer.NONE and not wrapped,
        )
        command, environment = zygote_command(options)
        if self._bubblewrap is not None:
            command = wrap(self._bubblewrap, command)
        # A clean environment: children can read their parent's in /proc/self/environ.
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command,
            env=environment,
            pass_fds=(theirs.fileno(), *joins),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
        )
        theirs.close()
        return ours, process

    def _restart_inside(self, program: str) -> dict[str, Any] | None:
        """Start again inside bubblewrap; None, and back as before, if that does not work."""
        before = self._control, self._process
        self._bubblewrap = program
        self._control, self._process = self._launch()
        try:
            report = self._receive(_ZYGOTE_START_S)
        except SandboxFailure:
            self._control.close()
            self._process.kill()
            self._process.wait()
            self._bubblewrap = None
            self._control, self._process = before
            return None
        before[0].close()
        before[1].kill()
        before[1].wait()
        return report

    def _prepare_group(self, group: ControlGroup, memory_bytes: int) -> None:
        try:
            group.limit_memory(memory_bytes)
        except OSError as error:
            raise SandboxFailure(f"a jail's control group: {error}") from error

    def _exit_code(self) -> str:
        try:
            return f"exit code {self._process.wait(_CLOSE_S)}"
        except subprocess.TimeoutExpired:
            return "it has hung up and is about to end"

    def _receive(self, timeout_s: float) -> dict[str, Any]:
        try:
            self._control.settimeout(timeout_s)
            message = self._control.recv(_READ_BYTES)
        except OSError as error:
            raise SandboxFailure(f"the zygote did not answer: {error}") from error
        if not message:
            raise SandboxFailure(
                f"the process that jails are forked from ended ({self._exit_code()}): its last "
                "words are in the error output; if a module is missing, run `make setup`; if it "
                "was killed, try again with more memory free"
            )
        fields: dict[str, Any] = json.loads(message)
        return fields


class _Pipes:
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

    def __init__(self, *, zygote: Zygote, pidfd: int, pipes: _Pipes) -> None:
        self.pid = _pid_of(pidfd)
        self._zygote = zygote
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
                self.report = self._zygote.exit_report()
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
