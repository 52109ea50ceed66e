"""Try points of a program's space, every one on the same seeds.

Trial 0 is the program with its own values. What is tried follows from the seed and from the
scores alone, whatever the number of workers; a batch is drawn when the one before is finished.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean

from agent.duel import Contender, Course
from agent.evaluations import EvaluatorPool, SandboxError
from agent.tune.samplers import Method, make_sampler
from agent.tune.space import Space
from sandbox.jobs import Outcome, Status
from sandbox.knobs import Value

__all__ = ["Plan", "Trial", "run_search", "scores_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a search may spend, and on what.

    Every trial is trained on all of `seeds`; `slots` runs may be under way at the same time.
    """

    method: Method
    trials: int
    seed: int
    seeds: tuple[int, ...]
    course: Course
    slots: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point and how it did; `bpb` has a score per seed, None where the run failed."""

    number: int
    batch: int
    values: Mapping[str, Value]
    bpb: tuple[float | None, ...]
    reason: str = ""

    @property
    def loss(self) -> float:
        """Mean bits per byte; infinite where a run failed."""
        found = [score for score in self.bpb if score is not None]
        return fmean(found) if len(found) == len(self.bpb) else math.inf


async def run_search(
    pool: EvaluatorPool,
    space: Space,
    plan: Plan,
    watch: Callable[[Trial], None] = lambda _: None,
) -> tuple[Trial, ...]:
    """Spend a plan's trials.

    Args:
        pool: the workers.
        space: what is tuned, and of which program.
        plan: how.
        watch: told of every trial when its batch is finished.

    Raises:
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """
    sampler = make_sampler(plan.method, space.start, plan.seed)
    trials = await _batch(pool, space, plan, [space.own_values()], [])
    watch(trials[0])
    while len(trials) < plan.trials:
        points = sampler.ask()
        left = plan.trials - len(trials)
        batch = await _batch(pool, space, plan, [space.values(p) for p in points[:left]], trials)
        for trial in batch:
            watch(trial)
        trials += batch
        if left >= len(points):
            sampler.tell(points, [trial.loss for trial in batch])
    return tuple(trials)


async def scores_of(
    pool: EvaluatorPool, contender: Contender, course: Course, seeds: Sequence[int], slots: int
) -> list[Outcome]:
    """Train one program on several seeds.

    Raises:
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """
    limit = asyncio.Semaphore(slots)

    async def one(seed: int) -> Outcome:
        async with limit:
            return await _trained(pool, contender, course, seed)

    return await _all([one(seed) for seed in seeds])


async def _batch(
    pool: EvaluatorPool,
    space: Space,
    plan: Plan,
    values: Sequence[Mapping[str, Value]],
    earlier: Sequence[Trial],
) -> list[Trial]:
    first = len(earlier)
    batch = earlier[-1].batch + 1 if earlier else 0
    limit = asyncio.Semaphore(plan.slots)

    async def one(number: int, source: str, seed: int) -> Outcome:
        async with limit:
            contender = Contender(name=f"trial {number}", source=source)
            return await _trained(pool, contender, plan.course, seed)

    runs = [
        one(first + index, space.program(knobs), seed)
        for index, knobs in enumerate(values)
        for seed in plan.seeds
    ]
    outcomes = await _all(runs)
    count = len(plan.seeds)
    return [
        _trial(first + index, batch, knobs, outcomes[index * count : (index + 1) * count])
        for index, knobs in enumerate(values)
    ]


def _trial(
    number: int, batch: int, values: Mapping[str, Value], outcomes: Sequence[Outcome]
) -> Trial:
    failed = [outcome for outcome in outcomes if outcome.bpb is None]
    return Trial(
        number=number,
        batch=batch,
        values=values,
        bpb=tuple(outcome.bpb for outcome in outcomes),
        reason=f"{failed[0].status}: {failed[0].reason}" if failed else "",
    )


async def _trained(pool: EvaluatorPool, contender: Contender, course: Course, seed: int) -> Outcome:
    outcome = await pool.run(course.job(contender, seed))
    if outcome.status is Status.SANDBOX_ERROR:
        raise SandboxError(outcome.reason)
    return outcome


async def _all(runs: Sequence[Coroutine[None, None, Outcome]]) -> list[Outcome]:
    """Wait for all runs; the first error ends the others."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(run) for run in runs]
    except BaseExceptionGroup as errors:
        error: BaseException = errors
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from errors
    return [task.result() for task in tasks]
