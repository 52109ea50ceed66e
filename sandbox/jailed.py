"""The trusted side of a jail: fork it, take turns with it, judge how it ended.

`Zygote` forks jails, `JailedOptimizer` is an optimizer service whose work happens in one. The
jail runs only in its turn: between turns it is stopped, and the worker goes on only after the
kernel has confirmed it. Everything read from a jail is bounded, and no word of it is believed
beyond one expected byte.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sandbox.confine import set_timer_slack
from sandbox.jobs import Limits, Status
from sandbox.protocol import (
    ANSWER_DONE,
    ANSWER_FAILED,
    ANSWER_READY,
    FAILURE_HEADER,
    MAX_FAILURE_BYTES,
    REQUEST_ENTER_EVAL,
    REQUEST_LEAVE_EVAL,
    REQUEST_STEP,
    STATE_FORMAT,
    Failure,
    MalformedFailureError,
    clean_text,
    decode_failure,
)
from sandbox.zygote_start import zygote_command

__all__ = ["ExitReport", "JailFailure", "JailedOptimizer", "SandboxFailure", "Zygote"]

_ZYGOTE_START_S = 120.0
_FORK_S = 20.0
_EXIT_S = 20.0
_STOP_S = 20.0
_STOP_POLL_S = 1e-5
_TIMER_SLACK_NS = 1000  # the default of 50 us would be most of a turn's overhead
_FAILURE_READ_S = 2.0
_FAILURE_POLL_S = 0.02
_HEARTBEAT_S = 1.0
_READ_BYTES = 1 << 16

# What PyTorch and CPython say when an allocation is refused.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
_SIGNAL_STATUS = {
    signal.SIGSYS: (Status.POLICY_VIOLATION, "used a forbidden system interface"),
    signal.SIGXCPU: (Status.TIMEOUT_CPU, "used up its CPU time"),
    signal.SIGKILL: (Status.OOM, "was killed by the kernel, most likely for memory"),
}


class JailFailure(Exception):  # noqa: N818 - a candidate's failure is an outcome, not an error
    """A candidate's training run ended early, by the trusted side's verdict."""

    def __init__(self, status: Status, reason: str, line: int | None = None) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = reason
        self.line = line


class SandboxFailure(Exception):  # noqa: N818 - mirrors Status.SANDBOX_ERROR
    """The sandbox itself failed; no candidate is to blame."""


class TrainingStateLike(Protocol):
    """The fields of `nanochat.contract.TrainingState` that cross the line."""

    @property
    def step(self) -> int:
        """Number of the step, from 0."""

    @property
    def total_steps(self) -> int:
        """How many steps the run has."""

    @property
    def loss(self) -> float:
        """Training loss of this step's batch, in nats."""

    @property
    def tokens(self) -> int:
        """Training tokens seen, this batch included."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ExitReport:
    """How a jail ended, as its parent saw it."""

    signal: int
    code: int
    cpu_s: float
    peak_memory_bytes: int


def memory_file(name: str, content: bytes) -> int:
    """Make an anonymous memory file that can be mapped but neither resized nor reopened."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.truncate(fd, max(1, len(content)))
    os.pwrite(fd, content, 0)
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
        self._stat = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
        # clock ids of other processes: see clock_getcpuclockid(3)
        self._cpu_clock = ctypes.c_int32((~pid << 3) | 2).value
        self._last_cpu_s = 0.0
        self.report: ExitReport | None = None
        self.printed = bytearray()
        self.printed_bytes = 0
        self._output_open = True
        self._fds: tuple[int, ...] = (pidfd, requests, answers, output, self._stat)
        for fd in (answers, output):
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
        """Write a request and let the jail run."""
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
        fds, self._fds = self._fds, ()
        for fd in fds:
            os.close(fd)

    def _state(self) -> bytes:
        try:
            stat = os.pread(self._stat, 512, 0)
        except ProcessLookupError:
            return b"X"
        end = stat.rfind(b")")
        return stat[end + 2 : end + 3]

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # ended by itself: its report will tell
            signal.pidfd_send_signal(self._pidfd, number)


class JailedOptimizer:
    """An optimizer service whose optimizer lives in a jail.

    Raises `JailFailure` from any call when the candidate fails, and `SandboxFailure` when the
    sandbox does. Call `end()` in any case; it returns how the jail ended.
    """

    def __init__(
        self, jail: Jail, limits: Limits, heartbeat: Callable[[], None] = lambda: None
    ) -> None:
        self._jail = jail
        self._limits = limits
        self._heartbeat = heartbeat
        self._wall_s = 0.0

    def build(self) -> None:
        """Wait until the candidate's optimizer is built."""
        self._take_turn(None, ANSWER_READY)

    def step(self, state: TrainingStateLike) -> None:
        """Give the candidate its turn: one optimizer step on the shared parameters."""
        message = REQUEST_STEP + STATE_FORMAT.pack(
            state.step, state.total_steps, state.loss, state.tokens
        )
        self._take_turn(message, ANSWER_DONE)

    def enter_eval(self) -> None:
        """Have the weights to validate with put in place."""
        self._take_turn(REQUEST_ENTER_EVAL, ANSWER_DONE)

    def leave_eval(self) -> None:
        """Have the training weights put back."""
        self._take_turn(REQUEST_LEAVE_EVAL, ANSWER_DONE)

    def end(self) -> ExitReport:
        """Kill the jail and wait until it is gone."""
        if self._jail.report is None:
            self._jail.drain_output(self._limits.output_keep_bytes)
        return self._jail.kill()

    @property
    def pid(self) -> int:
        """Process id of the jail."""
        return self._jail.pid

    @property
    def output_tail(self) -> str:
        """What the candidate printed last, safe to store and show."""
        return clean_text(self._jail.printed.decode("utf-8", errors="replace"))

    def _take_turn(self, message: bytes | None, expected: bytes) -> None:
        started = time.monotonic()
        if message is not None:
            self._jail.send(message)
        answer = self._await_answer(started)
        if answer[:1] == ANSWER_FAILED:
            self._raise_failure(answer)
        self._jail.stop()
        self._wall_s += time.monotonic() - started
        surplus = self._jail.read_answer() or b""
        if answer != expected or surplus:
            found = (answer + surplus)[:20]
            raise JailFailure(
                Status.PROTOCOL_ERROR,
                f"wrote to the pipe it answers over: found {found!r}, expected {expected!r}",
            )
        self._check_limits(time.monotonic())

    def _await_answer(self, started: float) -> bytes:
        next_heartbeat = started + _HEARTBEAT_S
        while True:
            left_s = self._check_limits(started)
            answered, ended = self._jail.wait(min(left_s, _HEARTBEAT_S))
            self._jail.drain_output(self._limits.output_keep_bytes)
            answer = self._jail.read_answer() if answered else b""
            if answer:
                return answer
            if answer is None or ended:
                raise self._diagnose_end()
            if time.monotonic() > next_heartbeat:
                next_heartbeat += _HEARTBEAT_S
                self._heartbeat()

    def _check_limits(self, turn_started: float) -> float:
        """Return the seconds until a limit could be reached; raise if one has been."""
        limits = self._limits
        cpu_left_s = limits.cpu_s - self._jail.cpu_s()
        wall_left_s = limits.wall_s - self._wall_s - (time.monotonic() - turn_started)
        if cpu_left_s <= 0:
            raise JailFailure(
                Status.TIMEOUT_CPU, f"used more than {limits.cpu_s:.2f} s of CPU time"
            )
        if wall_left_s <= 0:
            raise JailFailure(Status.TIMEOUT_WALL, f"took longer than {limits.wall_s:.2f} s")
        if self._jail.printed_bytes > limits.output_kill_bytes:
            raise JailFailure(
                Status.OUTPUT_LIMIT, f"printed more than {limits.output_kill_bytes} bytes"
            )
        return min(cpu_left_s, wall_left_s)

    def _raise_failure(self, answer: bytes) -> None:
        """Read the rest of a failure report and turn it into a verdict."""
        header = 1 + FAILURE_HEADER.size
        deadline = time.monotonic() + _FAILURE_READ_S
        while time.monotonic() < deadline:
            if len(answer) >= header:
                (size,) = FAILURE_HEADER.unpack(answer[1:header])
                if size > MAX_FAILURE_BYTES or len(answer) >= header + size:
                    break
            self._jail.wait(_FAILURE_POLL_S)
            answer += self._jail.read_answer(MAX_FAILURE_BYTES) or b""
        try:
            failure = decode_failure(answer[1:])
        except MalformedFailureError as error:
            raise JailFailure(Status.PROTOCOL_ERROR, str(error)) from error
        raise JailFailure(_failure_status(failure), _failure_reason(failure), failure.line)

    def _diagnose_end(self) -> JailFailure:
        """Say how a jail ended that ended, or hung up, without an answer."""
        deadline = time.monotonic() + _FAILURE_READ_S
        while not self._jail.has_ended and time.monotonic() < deadline:
            self._jail.wait(_FAILURE_POLL_S)
        if not self._jail.has_ended:
            return JailFailure(Status.PROTOCOL_ERROR, "closed the pipe it answers over")
        report = self._jail.kill()
        if report.signal in _SIGNAL_STATUS:
            status, reason = _SIGNAL_STATUS[signal.Signals(report.signal)]
            return JailFailure(status, reason)
        if report.signal:
            name = signal.Signals(report.signal).name
            return JailFailure(Status.CRASH, f"was killed by {name}")
        return JailFailure(
            Status.PROTOCOL_ERROR, f"ended with exit code {report.code} instead of answering"
        )


def _failure_status(failure: Failure) -> Status:
    if failure.kind == "MemoryError" or any(word in failure.message for word in _MEMORY_WORDS):
        return Status.OOM
    if failure.kind == "PermissionError":
        return Status.POLICY_VIOLATION
    return Status.CRASH


def _failure_reason(failure: Failure) -> str:
    place = f"line {failure.line} in {failure.where}: " if failure.line is not None else ""
    message = " ".join(failure.message.split())[:500]
    return f"{place}{failure.kind}: {message}"


def jail_order(
    *,
    source: str,
    source_name: str,
    params: Sequence[Mapping[str, Any]],
    elements: int,
    horizon: Mapping[str, int],
    limits: Limits,
) -> dict[str, Any]:
    """Describe a training jail: the candidate's text and where its parameters lie.

    Args:
        source: the candidate's file.
        source_name: what the file is called in tracebacks.
        params: name, role, layer, shape and offset (in elements) of each parameter.
        elements: length of the flat maps.
        horizon: fields of `nanochat.contract.Horizon`.
        limits: what the jail may use.
    """
    return {
        "kind": "candidate",
        "source": source,
        "source_name": source_name,
        "params": list(params),
        "elements": elements,
        "horizon": dict(horizon),
        "limits": {
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "descriptors": limits.descriptors,
        },
    }
