"""A pool that trains nothing twice: what a confirmation has trained is read back.

It stands between the comparisons and the workers. Every finished run is in the database before
anyone sees its score, so a confirmation that was interrupted goes on where it was.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from agent.evaluations import EvaluatorPool
from db.confirmations import ConfirmationRun, Confirmations
from sandbox.executor import Running
from sandbox.jobs import Job, Outcome, Status, Vitals, WorkerReady

__all__ = ["RememberedRuns", "RememberingPool"]

_Key = tuple[str, int, str, int, int, int]


class RememberedRuns:
    """The training runs of one confirmation.

    Args:
        confirmations: where they are kept.
        number: of the confirmation.
        program_id: the program it is about; its looks are counted as that one's.
        clock: tells when a run is finished.

    Attributes:
        trained: how many runs were trained by this process.
    """

    def __init__(
        self,
        confirmations: Confirmations,
        number: int,
        program_id: str,
        clock: Callable[[], datetime],
    ) -> None:
        self.trained = 0
        self._confirmations = confirmations
        self._number = number
        self._program_id = program_id
        self._clock = clock
        self._known = {_key_of(run): _outcome(run) for run in confirmations.runs(number)}

    @property
    def count(self) -> int:
        """How many runs there are, those of earlier sittings included."""
        return len(self._known)

    def find(self, job: Job, size: int) -> Outcome | None:
        """Return what a job came to, if it was trained."""
        return self._known.get(_key(job, size))

    def add(self, job: Job, size: int, outcome: Outcome) -> None:
        """Keep what a job came to."""
        run = _run(self._number, job, size, outcome, self._clock())
        self._confirmations.add_run(run, self._program_id)
        self._known[_key(job, size)] = outcome
        self.trained += 1


class RememberingPool:
    """An `EvaluatorPool` in front of another one, for models of one size."""

    def __init__(self, pool: EvaluatorPool, runs: RememberedRuns, size: int) -> None:
        self._pool = pool
        self._runs = runs
        self._size = size
        # A program and its baseline at scaled rates can be the same text.
        self._turns: defaultdict[_Key, asyncio.Lock] = defaultdict(asyncio.Lock)

    @property
    def ready(self) -> WorkerReady:
        """What the workers reported when they started."""
        return self._pool.ready

    def running(self) -> Sequence[Running]:
        """What is being trained now."""
        return self._pool.running()

    async def run(self, job: Job) -> Outcome:
        """Train a program, with its vitals taken, unless it is known what it comes to."""
        async with self._turns[_key(job, self._size)]:
            known = self._runs.find(job, self._size)
            if known is not None:
                return known
            outcome = await self._pool.run(replace(job, vitals=True))
            if outcome.status is not Status.SANDBOX_ERROR:
                self._runs.add(job, self._size, outcome)
            return outcome


def _key(job: Job, size: int) -> _Key:
    source = hashlib.sha256(job.source.encode()).hexdigest()
    return source, size, job.split, job.steps, job.total_steps, job.seed


def _key_of(run: ConfirmationRun) -> _Key:
    return run.source, run.size, run.split, run.steps, run.horizon, run.seed


def _run(
    number: int, job: Job, size: int, outcome: Outcome, finished_at: datetime
) -> ConfirmationRun:
    source, *_ = _key(job, size)
    vitals = outcome.vitals or Vitals(gradient_norms=(), resident_bytes=None)
    return ConfirmationRun(
        number=number,
        source=source,
        size=size,
        split=job.split,
        steps=job.steps,
        horizon=job.total_steps,
        seed=job.seed,
        status=outcome.status,
        reason=outcome.reason,
        line=outcome.line,
        bpb=outcome.bpb,
        curve=outcome.curve,
        gradient_norms=vitals.gradient_norms,
        resident_bytes=vitals.resident_bytes,
        fingerprint=outcome.fingerprint,
        jail_cpu_s=outcome.jail_cpu_s,
        train_cpu_s=outcome.train_cpu_s,
        wall_s=outcome.wall_s,
        peak_memory_bytes=outcome.peak_memory_bytes,
        sandbox_level=outcome.sandbox_level,
        unsafe=outcome.unsafe,
        finished_at=finished_at,
    )


def _outcome(run: ConfirmationRun) -> Outcome:
    return Outcome(
        status=Status(run.status),
        reason=run.reason,
        line=run.line,
        bpb=run.bpb,
        curve=run.curve,
        fingerprint=run.fingerprint,
        jail_cpu_s=run.jail_cpu_s,
        train_cpu_s=run.train_cpu_s,
        wall_s=run.wall_s,
        peak_memory_bytes=run.peak_memory_bytes,
        sandbox_level=run.sandbox_level,
        unsafe=run.unsafe,
        vitals=Vitals(gradient_norms=run.gradient_norms, resident_bytes=run.resident_bytes),
    )
