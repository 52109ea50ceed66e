"""Calibrate on published training runs of real optimizers, whose noise nobody here made.

Two questions. Would a short stage have ranked these optimizers as a longer one does? And what do
acceptance rules make of the seed noise of such runs? Runs of two submissions share no seeds, and
neither do those of one, so the noise is that of unpaired runs: each run of a submission against
its next one. Losses are nats per token.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

import numpy as np

from agent.calibration.noise import noises_of
from agent.calibration.operating import Point, characteristics
from agent.calibration.pool import LEAST_PAIRS, Comparison, Pool, PoolError
from agent.calibration.rules import best_ever, fixed_seeds, sequential, single_run
from agent.statistics.paired_test import Design
from agent.statistics.rank_correlation import (
    LEAST_PROGRAMS,
    RankCorrelation,
    may_prune,
    rank_correlation,
)
from agent.track3.pool import Pool as Published
from agent.track3.pool import Pooled, load_pool

__all__ = ["OnPublished", "StageStep", "calibrate_on", "seed_noise", "stage_steps"]

# Lengths of stages that might be tried: most records were validated at all of them.
STEPS = (125, 250, 500, 1000, 1500, 2000, 2500, 2750)

# Real differences between these optimizers' last losses are of this size, and so is their noise.
GAINS_NATS = (0.001, 0.002, 0.005)
THRESHOLD_NATS = 0.001


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStep:
    """How well the loss after some steps ranks optimizers.

    Attributes:
        steps: the length of the stage.
        next_steps: that of the next longer one; None for the longest.
        to_next: rank correlation with the loss there.
        to_need: with the steps that a submission needed to reach the target: the true ranking.
        may_prune: whether `to_need` is surely high enough for this stage to reject anything.
    """

    steps: int
    next_steps: int | None
    to_next: RankCorrelation | None
    to_need: RankCorrelation
    may_prune: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class OnPublished:
    """What published runs say: stages, and every rule's points by its name, A/A first."""

    submissions: int
    runs: int
    left_out: int
    stages: tuple[StageStep, ...]
    comparisons: int
    trials: int
    rules: tuple[tuple[str, tuple[Point, ...]], ...]


def calibrate_on(paths: Iterable[Path], design: Design, *, trials: int, seed: int) -> OnPublished:
    """Measure stages and rules on published runs.

    Args:
        paths: logs, folders of logs or tables of curves, as `agent.track3` takes them.
        design: of the judge's test.
        trials: comparisons per rule and gain.
        seed: of the resampling.

    Raises:
        agent.track3 LogsError: a path cannot be read, or nothing in it is a log.
        PoolError: there are too few runs to learn anything from.
    """
    published = load_pool(paths)
    noises = noises_of(seed_noise(published))
    rules = (
        sequential(design),
        best_ever(),
        single_run(THRESHOLD_NATS),
        fixed_seeds(seeds=3, wins=2),
    )
    points = []
    for number, rule in enumerate(rules):
        rng = np.random.default_rng([seed, number])
        gains = (0.0, *GAINS_NATS)
        points.append((rule.name, characteristics(rule, noises, gains, trials=trials, rng=rng)))
    return OnPublished(
        submissions=len(published.submissions),
        runs=sum(len(one.final_nats) for one in published.submissions.values()),
        left_out=len(published.left_out),
        stages=stage_steps(tuple(published.submissions.values())),
        comparisons=len(noises),
        trials=trials,
        rules=tuple(points),
    )


def stage_steps(submissions: Sequence[Pooled]) -> tuple[StageStep, ...]:
    """Correlate the ranking after some steps with the next one and with the true one.

    A submission's loss at a step is the mean over its runs, so seed noise is mostly gone: a single
    run per program, which a search has, ranks less well. Steps at which fewer submissions were
    validated than a correlation needs are left out.
    """
    usable = [steps for steps in STEPS if len(_losses(submissions, steps)) >= LEAST_PROGRAMS]
    found = []
    for place, steps in enumerate(usable):
        following = usable[place + 1] if place + 1 < len(usable) else None
        losses = _losses(submissions, steps)
        needs = {one.name: float(one.planned_steps) for one in submissions}
        to_need = _correlated(losses, needs)
        if to_need is None:
            continue
        to_next = (
            None if following is None else _correlated(losses, _losses(submissions, following))
        )
        found.append(
            StageStep(
                steps=steps,
                next_steps=following,
                to_next=to_next,
                to_need=to_need,
                may_prune=may_prune(to_need),
            )
        )
    return tuple(found)


def seed_noise(published: Published) -> Pool:
    """Make a pool of unpaired comparisons: every run of a submission against its next one.

    Raises:
        PoolError: no submission has enough runs.
    """
    found = []
    for one in published.submissions.values():
        losses = list(one.final_nats.values())
        if len(losses) < LEAST_PAIRS:
            continue
        found.append(
            Comparison(
                name=f"{one.name} against itself",
                seeds=tuple(range(len(losses))),
                candidate=tuple(losses[1:] + losses[:1]),
                reference=tuple(losses),
            )
        )
    if not found:
        raise PoolError(f"no submission among the published runs has {LEAST_PAIRS} runs or more")
    # What a run costs is not in the logs, and nothing here depends on it.
    return Pool(
        origin="published runs", simulated=False, cpu_s_per_run=1.0, comparisons=tuple(found)
    )


def _losses(submissions: Sequence[Pooled], steps: int) -> dict[str, float]:
    return {one.name: fmean(found.values()) for one in submissions if (found := one.at(steps))}


def _correlated(cheap: dict[str, float], dear: dict[str, float]) -> RankCorrelation | None:
    names = [name for name in cheap if name in dear]
    if len(names) < LEAST_PROGRAMS:
        return None
    return rank_correlation([cheap[name] for name in names], [dear[name] for name in names])
