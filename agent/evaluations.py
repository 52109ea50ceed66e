"""Have programs trained, each at most once per split, steps, horizon, gradients and seed.

Two candidates that need the same run of their incumbent share it, also while it is still under
way. Every finished run is stored before anyone sees its score.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from agent.budget import Clock, Meter
from agent.guardrails import Spent
from agent.stage import Stage
from db.records import Evaluation, Program
from sandbox.allowance import FIRST_LIMITS, limits_relative_to
from sandbox.executor import Running as PoolRunning
from sandbox.jobs import (
    Evidence,
    Gradients,
    Job,
    Limits,
    Outcome,
    Split,
    Status,
    WorkerReady,
)
from sandbox.wire import decode_evidence, encode_evidence

__all__ = [
    "EvaluationSink",
    "Evaluator",
    "EvaluatorPool",
    "Measured",
    "Running",
    "SandboxError",
    "Training",
]

_Key = tuple[str, int, int, str, int]


class EvaluatorPool(Protocol):
    """Workers that train programs.

    `run` returns exactly one outcome per job, waits for a free worker if there is none, and stops
    the training when it is cancelled. Jobs that differ in limits and names only give equal scores,
    and asking for evidence changes none. A score that was asked for its evidence comes with it.
    """

    @property
    def ready(self) -> WorkerReady:
        """What the workers reported when they started."""

    async def run(self, job: Job) -> Outcome:
        """Train and validate one program."""

    def running(self) -> Sequence[PoolRunning]:
        """What is being trained now, and how far it is."""


class EvaluationSink(Protocol):
    """Where finished training runs are kept; returns once they are safe."""

    def add_evaluation(self, evaluation: Evaluation) -> None:
        """Store one finished training run."""


class SandboxError(Exception):
    """The sandbox failed again and again; no program is to blame, the run must pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """One training run to be had: the first `steps` steps of a run of `horizon` steps.

    Without a horizon the run is scheduled for its own steps. With `evidence` it shows more than
    its score. That is no part of what makes two runs the same: a program's runs on one seed are
    asked for it all or none.
    """

    program: Program
    stage: Stage
    steps: int
    seed: int
    horizon: int | None = None
    gradients: Gradients = Gradients.TRUE
    evidence: bool = False

    @property
    def total_steps(self) -> int:
        """The number of steps that schedules are laid out for."""
        return self.horizon or self.steps

    @property
    def key(self) -> _Key:
        """What makes it the same run as another one; the search validates on one split only."""
        return self.program.id, self.steps, self.total_steps, self.gradients, self.seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What decisions need of an evaluation; the rest stays in the store."""

    status: Status
    reason: str
    bpb: float | None
    fingerprint: str | None
    spent: Spent
    evidence: Evidence | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A training run under way, for display; `step` counts from 0 as far as it is known."""

    training: Training
    since: datetime
    step: int


class Evaluator:
    """Measures programs in a pool, within a budget, remembering what is already known."""

    def __init__(
        self, pool: EvaluatorPool, sink: EvaluationSink, meter: Meter, *, clock: Clock
    ) -> None:
        self._pool = pool
        self._sink = sink
        self._meter = meter
        self._clock = clock
        self._known: dict[str, dict[_Key, Measured]] = {}
        self._in_flight: dict[_Key, asyncio.Future[Measured]] = {}
        self._running: dict[_Key, tuple[Training, datetime]] = {}
        self._baseline_per_step: tuple[float, float] | None = None  # CPU and wall seconds

    @property
    def running(self) -> tuple[Running, ...]:
        """What is being trained now, longest first."""
        steps = {(r.job.source_name, r.job.seed): r.step for r in self._pool.running()}
        return tuple(
            Running(
                training=training,
                since=since,
                step=steps.get((_source_name(training), training.seed), 0),
            )
            for training, since in self._running.values()
        )

    async def measure(self, training: Training) -> Measured:
        """Return what the training run gave, training only if nobody has yet.

        Raises:
            BudgetSpentError: it would have to be trained and the budget is spent.
            SandboxError: the sandbox could not run it.
        """
        known = self._known.get(training.program.id, {}).get(training.key)
        if known is not None:
            return known
        if training.key in self._in_flight:
            # Shielded: a caller that is cancelled must not take the result from the others.
            return await asyncio.shield(self._in_flight[training.key])
        return await self._train(training)

    def remember(self, evaluation: Evaluation) -> Measured:
        """Take in a finished run, from the pool or from the store."""
        measured = Measured(
            status=Status(evaluation.status),
            reason=evaluation.reason,
            bpb=evaluation.bpb,
            fingerprint=evaluation.fingerprint,
            spent=Spent(
                jail_cpu_s=evaluation.jail_cpu_s,
                peak_memory_bytes=evaluation.peak_memory_bytes,
            ),
            evidence=None if evaluation.evidence is None else decode_evidence(evaluation.evidence),
        )
        key = (
            evaluation.program_id,
            evaluation.steps,
            evaluation.horizon,
            evaluation.gradients,
            evaluation.seed,
        )
        self._known.setdefault(evaluation.program_id, {})[key] = measured
        if evaluation.stage == Stage.BASELINE and self._baseline_per_step is None:
            cpu_s, wall_s = evaluation.jail_cpu_s, evaluation.wall_s
            self._baseline_per_step = cpu_s / evaluation.steps, wall_s / evaluation.steps
        return measured

    def forget(self, program_id: str) -> None:
        """Drop what is remembered of a program that will not be measured again."""
        self._known.pop(program_id, None)

    async def _train(self, training: Training) -> Measured:
        self._meter.charge()
        shared: asyncio.Future[Measured] = asyncio.get_running_loop().create_future()
        self._in_flight[training.key] = shared
        self._running[training.key] = (training, self._clock())
        try:
            outcome = await self._outcome(training)
            evaluation = _evaluation(training, outcome, self._clock())
            self._sink.add_evaluation(evaluation)
            measured = self.remember(evaluation)
            shared.set_result(measured)
        except BaseException as error:
            _share_failure(shared, error)
            raise
        finally:
            del self._in_flight[training.key]
            del self._running[training.key]
        return measured

    async def _outcome(self, training: Training) -> Outcome:
        outcome = await self._pool.run(self._job(training))
        if outcome.status is Status.SANDBOX_ERROR:
            raise SandboxError(outcome.reason)
        return outcome

    def _job(self, training: Training) -> Job:
        return Job(
            source=training.program.source,
            seed=training.seed,
            steps=training.steps,
            horizon=training.horizon,
            split=Split.SEARCH,
            gradients=training.gradients,
            evidence=training.evidence,
            limits=self._limits(training.steps),
            source_name=_source_name(training),
        )

    def _limits(self, steps: int) -> Limits:
        if self._baseline_per_step is None:
            return FIRST_LIMITS
        cpu_s, wall_s = (per_step * steps for per_step in self._baseline_per_step)
        return limits_relative_to(cpu_s, wall_s)


def _source_name(training: Training) -> str:
    """Name a candidate's file, as its tracebacks will."""
    return f"{training.program.id[:12]}.py"


def _share_failure(shared: asyncio.Future[Measured], error: BaseException) -> None:
    """End a shared run that gave no result, for those who wait for it as well."""
    if isinstance(error, asyncio.CancelledError):
        shared.cancel()
        return
    shared.set_exception(error)
    shared.exception()  # marks it as seen: often nobody else is waiting


def _evaluation(training: Training, outcome: Outcome, now: datetime) -> Evaluation:
    return Evaluation(
        program_id=training.program.id,
        stage=training.stage,
        split=Split.SEARCH,
        steps=training.steps,
        horizon=training.total_steps,
        gradients=training.gradients,
        seed=training.seed,
        status=outcome.status,
        reason=outcome.reason,
        line=outcome.line,
        bpb=outcome.bpb,
        curve=outcome.curve,
        fingerprint=outcome.fingerprint,
        jail_cpu_s=outcome.jail_cpu_s,
        train_cpu_s=outcome.train_cpu_s,
        wall_s=outcome.wall_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        output_tail=outcome.output_tail,
        sandbox_level=outcome.sandbox_level,
        unsafe=outcome.unsafe,
        finished_at=now,
        evidence=None if outcome.evidence is None else encode_evidence(outcome.evidence),
    )
