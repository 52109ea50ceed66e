"""Train programs on the seeds of a part, within limits found out before."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace

from agent.confirmation.findings import RatePoint
from agent.confirmation.variants import with_rates
from agent.duel import Contender, Course
from agent.evaluations import EvaluatorPool, SandboxError
from sandbox.jobs import Limits, Outcome, Split, Status

__all__ = ["Bench", "sweep"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """Workers for models of one size, and how long runs are there.

    `limits` hold for a run of `steps` steps; longer ones may use more in proportion. `slots` is how
    many runs may be under way at the same time.
    """

    pool: EvaluatorPool
    steps: int
    limits: Limits
    slots: int

    def course(
        self, *, split: Split = Split.SEALED, steps: int | None = None, length: float = 1.0
    ) -> Course:
        """Say how runs are trained: `length` is that of `steps` in units of the usual number."""
        share = max(1.0, length)
        limits = replace(
            self.limits, cpu_s=self.limits.cpu_s * share, wall_s=self.limits.wall_s * share
        )
        return Course(steps=self.steps if steps is None else steps, split=split, limits=limits)


async def sweep(
    bench: Bench, source: str, factors: Sequence[float], seeds: Sequence[int]
) -> tuple[RatePoint, ...]:
    """Train a program at multiples of its learning rates, judged by the text of the search.

    Raises:
        SandboxError: the sandbox failed, and no program is to blame.
        PoolError: no worker can be had any more.
    """
    course = bench.course(split=Split.SEARCH)
    slots = asyncio.Semaphore(bench.slots)

    async def trained(variant: Contender, seed: int) -> Outcome:
        async with slots:
            outcome = await bench.pool.run(course.job(variant, seed))
        if outcome.status is Status.SANDBOX_ERROR:
            raise SandboxError(outcome.reason)
        return outcome

    variants = [
        Contender(name=f"rates_x{factor:g}.py", source=with_rates(source, factor))
        for factor in factors
    ]
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                [group.create_task(trained(variant, seed)) for seed in seeds]
                for variant in variants
            ]
    except ExceptionGroup as errors:  # what one run met, the others will meet
        raise errors.exceptions[0] from errors
    return tuple(
        RatePoint(factor=factor, source=variant.source, runs=tuple(t.result() for t in column))
        for factor, variant, column in zip(factors, variants, tasks, strict=True)
    )
