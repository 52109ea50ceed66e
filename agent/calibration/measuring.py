"""Measure a pool: the tuned program and small changes of its knobs, on many common seeds."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from agent.calibration.lone_errors import lone_errors
from agent.calibration.pool import Comparison, Pool
from agent.evaluations import EvaluatorPool, SandboxError
from sandbox.jobs import Job, Limits, Outcome, Status
from sandbox.knobs import Value, read_knobs, set_knobs

__all__ = ["CHANGES", "Change", "MeasuringError", "changed_programs", "measure_pool"]

# A digit more than a validation text of a few kilobytes can tell.
DECIMALS = 6
LIMITS = Limits(cpu_s=3600.0, wall_s=36_000.0)


class MeasuringError(Exception):
    """A program failed on a seed, so the pool would have a hole."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A small change of knobs: some take a factor, some a value, some their other value."""

    name: str
    factors: Mapping[str, float] = field(default_factory=dict)
    values: Mapping[str, Value] = field(default_factory=dict)
    flipped: tuple[str, ...] = ()


# What a search tries all the time, in both directions and from harmless to harmful.
CHANGES = (
    Change(name="lr x1.2", factors={"MUON.lr": 1.2}),
    Change(name="lr x0.8", factors={"MUON.lr": 0.8}),
    Change(name="lr x1.05", factors={"MUON.lr": 1.05}),
    Change(name="beta2 .95", values={"POLICY.beta2": 0.95}),
    Change(name="norm snap flipped", flipped=("POLICY.norm_snap",)),
    Change(name="row equilibration flipped", flipped=("POLICY.row_equilibration",)),
    Change(name="weight decay x2", factors={"MUON.weight_decay": 2.0}),
    Change(name="embedding lr x1.3", factors={"ADAMW.embedding_lr": 1.3}),
    Change(name="warmdown .7", values={"SCHEDULE.warmdown_fraction": 0.7}),
    Change(name="unembedding lr x0.8", factors={"ADAMW.unembedding_lr": 0.8}),
    Change(
        name="momentum .80",
        values={"SCHEDULE.momentum_peak": 0.80, "SCHEDULE.momentum_end": 0.80},
    ),
)


def changed_programs(tuned: str) -> dict[str, str]:
    """Return the changed programs by name, without those that a change leaves as they were."""
    knobs = read_knobs(tuned)
    programs = {}
    for change in CHANGES:
        values: dict[str, Value] = dict(change.values)
        values |= {name: float(knobs[name].value) * by for name, by in change.factors.items()}
        values |= {name: not knobs[name].value for name in change.flipped}
        source = set_knobs(tuned, values)
        if source != tuned:
            programs[change.name] = source
    return programs


async def measure_pool(
    pool: EvaluatorPool,
    tuned: str,
    seeds: Sequence[int],
    *,
    slots: int,
    watch: Callable[[int, int], None] = lambda _done, _all: None,
) -> Pool:
    """Train the tuned program and every changed one on every seed.

    Args:
        pool: the workers.
        tuned: the program that the changes are made to, and that they are compared with.
        seeds: of the runs, all programs on all of them.
        slots: how many runs may be under way at the same time.
        watch: told how many runs are finished, of how many.

    Raises:
        MeasuringError: a program failed.
        agent.calibration.pool.PoolError: too few seeds, or a change that changes nothing.
        SandboxError: the sandbox failed.
        sandbox.executor.PoolError: no worker can be had any more.
    """
    programs = {"tuned": tuned, **changed_programs(tuned)}
    free, finished = asyncio.Semaphore(slots), 0

    async def trained(name: str, seed: int) -> Outcome:
        nonlocal finished
        async with free:
            job = Job(source=programs[name], seed=seed, steps=pool.ready.steps, limits=LIMITS)
            outcome = await pool.run(job)
        if outcome.status is Status.SANDBOX_ERROR:
            raise SandboxError(outcome.reason)
        if outcome.bpb is None:
            raise MeasuringError(f"{name} failed on seed {seed}, {outcome.status}")
        finished += 1
        watch(finished, len(programs) * len(seeds))
        return outcome

    with lone_errors():
        async with asyncio.TaskGroup() as group:
            tasks = {
                name: [group.create_task(trained(name, seed)) for seed in seeds]
                for name in programs
            }
    outcomes = {name: [task.result() for task in runs] for name, runs in tasks.items()}
    costs = [run.train_cpu_s + run.jail_cpu_s for runs in outcomes.values() for run in runs]
    scores = {name: _scores(runs) for name, runs in outcomes.items()}
    return Pool(
        origin=(
            f"profile {pool.ready.profile}, knob changes against the tuned program, "
            f"{len(seeds)} seeds from {seeds[0]} on"
        ),
        simulated=False,
        cpu_s_per_run=round(math.fsum(costs) / len(costs), 3),
        comparisons=tuple(
            Comparison(
                name=f"{name} against tuned",
                seeds=tuple(seeds),
                candidate=scores[name],
                reference=scores["tuned"],
            )
            for name in programs
            if name != "tuned"
        ),
    )


def _scores(runs: Sequence[Outcome]) -> tuple[float, ...]:
    return tuple(round(run.bpb, DECIMALS) for run in runs if run.bpb is not None)
