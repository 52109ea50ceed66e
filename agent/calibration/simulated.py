"""Put the judge and the rules of other systems through the same resampled noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from agent.calibration.claims import false_claims
from agent.calibration.noise import Noise, noises_of
from agent.calibration.operating import Point, Rate, characteristics, unpaired_runs_needed
from agent.calibration.pool import Pool
from agent.calibration.rules import (
    Rule,
    best_ever,
    fixed_seeds,
    sequential,
    single_run,
    unpaired_fixed,
)
from agent.calibration.searches import Searches, World, search
from agent.statistics.paired_test import Design

__all__ = ["CONFIRMATIONS", "Calibration", "Compute", "Plan", "Replayed", "calibrate"]

# What candidates amount to: the effects of all 143 candidates that one search of 40-step runs
# raced with random mutations, shrunken (`agent.statistics.shrinkage`), sorted, and averaged in 40
# groups. One in forty is a gain worth having; nearly half do nothing.
EFFECTS_BPB = (
    *(-0.0048, -0.0005, -0.0001, -0.0001, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0001),
    *(0.0001, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.0006, 0.0008, 0.0011, 0.0013),
    *(0.0017, 0.0025, 0.0028, 0.003, 0.003, 0.0032, 0.0035, 0.0039, 0.0042, 0.0047),
    *(0.0051, 0.0055, 0.0059, 0.0065, 0.0071, 0.0088, 0.01, 0.0104, 0.011, 0.0154),
)

# Powers to compare tests at: the usual one, and what stands for certainty, which no number of
# runs reaches.
USUAL_POWER, HIGHEST_POWER = 0.9, 0.999

# Looks at sealed text of a run that finds nothing and goes on trying.
CONFIRMATIONS = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What to measure.

    Attributes:
        design: the judge's test.
        gains_bpb: planted gains; 0, the A/A comparison, is always measured too.
        paired_sd_bpb: scale every comparison's noise to this sd; None leaves each its own.
        threshold_bpb: the margin of the single-run threshold rule.
        trials: comparisons per rule and gain.
        searches: simulated searches per rule.
        budget_runs: training runs per search.
        effects_bpb: true effects of the candidates that searches meet.

    Raises:
        ValueError: no gain is planted, or one that is not positive.
    """

    design: Design = field(default_factory=Design)
    gains_bpb: tuple[float, ...] = (0.001, 0.002, 0.005, 0.01)
    paired_sd_bpb: float | None = None
    threshold_bpb: float = 0.005
    trials: int = 10_000
    searches: int = 10_000
    budget_runs: int = 400
    effects_bpb: tuple[float, ...] = EFFECTS_BPB

    def __post_init__(self) -> None:
        if not self.gains_bpb or min(self.gains_bpb) <= 0.0:
            raise ValueError(f"plant one positive gain or more, found {self.gains_bpb}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Replayed:
    """One rule: its points, the first of them A/A, and what searches under it came to.

    In the searches `of_nothing` no candidate has any effect: every promotion and claim is false.
    """

    rule: str
    points: tuple[Point, ...]
    searches: Searches
    of_nothing: Searches


@dataclass(frozen=True, slots=True, kw_only=True)
class Compute:
    """The judge's cost at one gain beside that of an unpaired fixed-sample test of equal power.

    Attributes:
        gain_bpb: the planted gain.
        power: what both reach.
        judge_runs: training runs of the judge, averaged over the gain and A/A.
        unpaired_runs: training runs of the unpaired test, whatever the candidate.
        unpaired: that test's own points on the same noise, A/A first: it does what it should.
    """

    gain_bpb: float
    power: float
    judge_runs: float
    unpaired_runs: int
    unpaired: tuple[Point, ...]

    @property
    def ratio(self) -> float:
        """Return the judge's compute in units of the unpaired test's."""
        return self.judge_runs / self.unpaired_runs


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Everything measured on one pool; `simulated` if the pool's noise was made up.

    The two error rates of the judge, kept apart: how many candidates without a gain are promoted
    is its first point. What runs with nothing to find claim is in its searches `of_nothing`, for
    one confirmation; `false_claims` counts those that confirm `CONFIRMATIONS` programs. All rest
    on the tails of the noise, of which comparisons on a handful of seeds know little: `seeds` has
    the fewest and the most of any.
    """

    origin: str
    simulated: bool
    alpha: float
    comparisons: int
    seeds: tuple[int, int]
    trials: int
    replayed: tuple[Replayed, ...]
    compute: Compute
    false_claims: Rate


def calibrate(pool: Pool, plan: Plan, *, seed: int) -> Calibration:
    """Measure the judge's rule and the others on one pool.

    Each rule gets a generator of its own, so leaving one out changes no other.

    Raises:
        ValueError: an unpaired test of the judge's power is out of reach.
    """
    noises = noises_of(pool)
    if plan.paired_sd_bpb is not None:
        noises = tuple(noise.at_sd(plan.paired_sd_bpb) for noise in noises)
    world = World(
        noises=noises,
        effects_bpb=plan.effects_bpb,
        budget_runs=plan.budget_runs,
        cpu_s_per_run=pool.cpu_s_per_run,
    )
    replayed = tuple(
        _replay(rule, world, plan, np.random.default_rng([seed, number]))
        for number, rule in enumerate(_rules(plan))
    )
    sizes = [len(noise.difference) for noise in noises]
    return Calibration(
        origin=pool.origin,
        simulated=pool.simulated,
        alpha=plan.design.alpha,
        comparisons=len(noises),
        seeds=(min(sizes), max(sizes)),
        trials=plan.trials,
        replayed=replayed,
        compute=_compute(
            noises, replayed[0].points, plan, np.random.default_rng([seed, len(replayed)])
        ),
        false_claims=false_claims(
            noises,
            confirmations=CONFIRMATIONS,
            runs=plan.trials,
            rng=np.random.default_rng([seed, len(replayed) + 1]),
        ),
    )


def _rules(plan: Plan) -> tuple[Rule, ...]:
    """List the judge's rule, then those of other systems."""
    return (
        sequential(plan.design),
        best_ever(),
        single_run(plan.threshold_bpb),
        fixed_seeds(seeds=3, wins=2),
    )


def _replay(rule: Rule, world: World, plan: Plan, rng: np.random.Generator) -> Replayed:
    gains = (0.0, *plan.gains_bpb)
    points = characteristics(rule, world.noises, gains, trials=plan.trials, rng=rng)
    nothing = replace(world, effects_bpb=(0.0,))
    return Replayed(
        rule=rule.name,
        points=points,
        searches=search(rule, world, searches=plan.searches, rng=rng),
        of_nothing=search(rule, nothing, searches=plan.searches, rng=rng),
    )


def _compute(
    noises: Sequence[Noise], judge: Sequence[Point], plan: Plan, rng: np.random.Generator
) -> Compute:
    """Compare at the planted gain that the judge's power is nearest to nine in ten at."""
    nothing, *gains = judge
    point = min(gains, key=lambda point: abs(point.accepted.share - USUAL_POWER))
    gain, power = point.gain_bpb, min(point.accepted.share, HIGHEST_POWER)
    each = unpaired_runs_needed(noises, gain_bpb=gain, power=power, alpha=plan.design.alpha)
    # A tenth of the trials: this test is textbook, and one trial is hundreds of runs.
    trials = max(1, plan.trials // 10)
    rule = unpaired_fixed(each, plan.design.alpha)
    return Compute(
        gain_bpb=gain,
        power=power,
        judge_runs=(nothing.mean_runs + point.mean_runs) / 2.0,
        unpaired_runs=2 * each,
        unpaired=characteristics(rule, noises, (0.0, gain), trials=trials, rng=rng),
    )
