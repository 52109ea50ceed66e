"""An optimizer service whose optimizer lives in a jail.

The jail runs only in its turn, and the worker goes on only after it has been stopped. Everything
read from a jail is bounded, and no word of it is believed beyond one expected byte.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sandbox.jail_process import ExitReport, Jail, JailFailure, SandboxFailure
from sandbox.jobs import Limits, Status
from sandbox.protocol import (
    ANSWER_CONFINED,
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
from sandbox.refusals import describe_calls

__all__ = ["JailedOptimizer", "ParameterLayout", "jail_order"]

_FAILURE_READ_S = 2.0
_FAILURE_POLL_S = 0.02
_HEARTBEAT_S = 1.0
_MAX_REFUSED_CALLS = 10_000
_LAST_WORDS = 300

# What PyTorch and CPython say when an allocation is refused.
_MEMORY_WORDS = ("can't allocate memory", "not enough memory", "Cannot allocate memory")
_SIGNAL_STATUS = {
    signal.SIGSYS: (Status.POLICY_VIOLATION, "used a forbidden system interface"),
    signal.SIGXCPU: (Status.TIMEOUT_CPU, "used up its CPU time"),
    signal.SIGKILL: (Status.OOM, "was killed by the kernel, most likely for memory"),
}


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
        self._is_confined = False

    def build(self) -> None:
        """Wait until the jail is confined and the candidate's optimizer is built.

        Raises:
            SandboxFailure: the jail could not be confined; no line of the candidate has run.
        """
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
        if self._jail.monitor.remarkable:
            raise JailFailure(Status.POLICY_VIOLATION, f"{self._asked_for()} and hid the refusal")

    def _await_answer(self, started: float) -> bytes:
        next_heartbeat = started + _HEARTBEAT_S
        while True:
            left_s = self._check_limits(started)
            answered, ended = self._jail.wait(min(left_s, _HEARTBEAT_S))
            self._jail.drain_output(self._limits.output_keep_bytes)
            answer = self._jail.read_answer() if answered else b""
            if answer and not self._is_confined:
                answer = self._without_confinement(answer)
            if answer:
                return answer
            if answer is None or ended:
                raise self._diagnose_end()
            if time.monotonic() > next_heartbeat:
                next_heartbeat += _HEARTBEAT_S
                self._heartbeat()

    def _without_confinement(self, answer: bytes) -> bytes:
        """Take the word that the jail is confined off its first answer."""
        if answer[:1] != ANSWER_CONFINED:
            raise SandboxFailure(f"a jail began with {answer[:20]!r} instead of being confined")
        self._is_confined = True
        return answer[1:]

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
        if self._jail.monitor.count > _MAX_REFUSED_CALLS:
            reason = f"made more than {_MAX_REFUSED_CALLS} system calls that are not allowed"
            raise JailFailure(Status.POLICY_VIOLATION, reason)
        return min(cpu_left_s, wall_left_s)

    def _asked_for(self) -> str:
        """Say which forbidden calls the kernel has announced."""
        return f"asked the kernel for {describe_calls(self._jail.monitor.remarkable)}"

    def _raise_failure(self, answer: bytes) -> None:
        """Read the rest of a failure report and turn it into a verdict."""
        header = 1 + FAILURE_HEADER.size
        deadline = time.monotonic() + _FAILURE_READ_S
        while time.monotonic() < deadline:
            if len(answer) >= header:
                (size,) = FAILURE_HEADER.unpack(answer[1:header])
                if size > MAX_FAILURE_BYTES or len(answer) >= header + size:
                    break
            _, ended = self._jail.wait(_FAILURE_POLL_S)
            more = self._jail.read_answer(MAX_FAILURE_BYTES) or b""
            answer += more
            if ended and not more:
                break
        try:
            failure = decode_failure(answer[1:])
        except MalformedFailureError as error:
            raise JailFailure(Status.PROTOCOL_ERROR, str(error)) from error
        status, reason = _failure_status(failure), _failure_reason(failure)
        if self._jail.monitor.remarkable:
            status, reason = Status.POLICY_VIOLATION, f"{reason}; it {self._asked_for()}"
        elif status is Status.POLICY_VIOLATION and self._jail.monitor.names:
            reason += f"; refused: {describe_calls(self._jail.monitor.names)}"
        elif status is Status.OOM:
            reason += (
                f"; a jail may add {self._limits.memory_bytes >> 20} MiB to what it starts with"
            )
        raise JailFailure(status, reason, failure.line)

    def _diagnose_end(self) -> JailFailure:
        """Say how a jail ended that ended, or hung up, without an answer."""
        deadline = time.monotonic() + _FAILURE_READ_S
        while not self._jail.has_ended and time.monotonic() < deadline:
            self._jail.wait(_FAILURE_POLL_S)
        if not self._jail.has_ended:
            return JailFailure(Status.PROTOCOL_ERROR, "closed the pipe it answers over")
        if not self._is_confined:
            self._jail.drain_output(self._limits.output_keep_bytes)
            words = " ".join(self.output_tail.split())[-_LAST_WORDS:]
            raise SandboxFailure(f"a jail could not be confined: {words or self._jail.kill()}")
        report = self._jail.kill()
        if self._jail.monitor.remarkable:
            return JailFailure(Status.POLICY_VIOLATION, f"{self._asked_for()} and ended")
        if report.signal == signal.SIGKILL and report.cpu_s >= self._limits.cpu_s:
            # The first process of a process table gets no SIGXCPU; the hard limit kills it.
            return JailFailure(*_SIGNAL_STATUS[signal.SIGXCPU])
        if (
            report.signal == signal.SIGKILL
            and report.peak_memory_bytes < self._limits.memory_bytes // 2
        ):
            raise SandboxFailure(
                f"a jail was killed from outside, at {report.peak_memory_bytes >> 20} MiB: by "
                "somebody, or because other programs have used up the machine's memory"
            )
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
    # In a file tree of its own a jail finds nothing, elsewhere it is not let in.
    if failure.kind in ("PermissionError", "FileNotFoundError"):
        return Status.POLICY_VIOLATION
    return Status.CRASH


def _failure_reason(failure: Failure) -> str:
    function = f" in {failure.where}" if failure.where else ""
    place = f"line {failure.line}{function}: " if failure.line is not None else ""
    message = " ".join(failure.message.split())[:500]
    return f"{place}{failure.kind}: {message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ParameterLayout:
    """Where a jail's parameters lie in the two flat maps.

    `params` has name, role, layer, shape and offset (in elements) of each; `elements` is the
    length of the maps.
    """

    params: Sequence[Mapping[str, Any]]
    elements: int


def jail_order(
    *,
    source: str,
    source_name: str,
    layout: ParameterLayout,
    horizon: Mapping[str, int],
    limits: Limits,
    seed: int = 0,
) -> dict[str, Any]:
    """Describe a training jail: the candidate's text and where its parameters lie.

    Args:
        source: the candidate's file.
        source_name: what the file is called in tracebacks.
        layout: its parameters.
        horizon: fields of `nanochat.contract.Horizon`.
        limits: what the jail may use.
        seed: of the jail's own random numbers, so that a candidate that draws some can repeat.
    """
    return {
        "kind": "candidate",
        "source": source,
        "source_name": source_name,
        "params": list(layout.params),
        "elements": layout.elements,
        "seed": seed,
        "horizon": dict(horizon),
        "limits": {
            "cpu_s": limits.cpu_s,
            "memory_bytes": limits.memory_bytes,
            "descriptors": limits.descriptors,
        },
    }
