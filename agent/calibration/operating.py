"""Operating characteristics of a rule: how often it is fooled, what it finds, what that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import betaincinv, nctdtr, stdtrit

from agent.calibration.noise import Noise, draw
from agent.calibration.rules import Rule

__all__ = ["Point", "Rate", "characteristics", "rate_of", "unpaired_runs_needed"]

# A textbook test that needs more runs than this for each program will not be run.
MOST_RUNS = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How often something happened, with an interval that covers at least what it claims."""

    count: int
    trials: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """Return the observed share."""
        return self.count / self.trials


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What a rule did with candidates of one true gain; 0 is the A/A comparison.

    `mean_runs` counts the runs of both programs, as if none were used twice. `mean_measured_bpb` is
    the effect that accepted candidates were reported with, NaN if none was: beside `-gain_bpb` it
    shows the winner's curse.
    """

    gain_bpb: float
    accepted: Rate
    mean_runs: float
    mean_measured_bpb: float


def rate_of(count: int, trials: int, *, confidence: float = 0.95) -> Rate:
    """Return a share with its exact interval.

    Raises:
        ValueError: no trials, or a count outside of them.

    Source: Clopper and Pearson 1934, Biometrika 26(4).
    """
    if not 0 <= count <= trials or trials == 0:
        raise ValueError(f"expected a count among one trial or more, found {count} of {trials}")
    tail = (1.0 - confidence) / 2.0
    low = 0.0 if count == 0 else float(betaincinv(count, trials - count + 1, tail))
    high = 1.0 if count == trials else float(betaincinv(count + 1, trials - count, 1.0 - tail))
    return Rate(count=count, trials=trials, low=low, high=high)


def characteristics(
    rule: Rule,
    noises: Sequence[Noise],
    gains_bpb: Sequence[float],
    *,
    trials: int,
    rng: np.random.Generator,
) -> tuple[Point, ...]:
    """Put candidates of known gain through a rule; the champion's record is a run of its own."""
    points = []
    for gain in gains_bpb:
        draws = draw(noises, np.full(trials, -gain), rule.pairs, rng)
        recorded = draw(noises, np.zeros(trials), 1, rng).reference[:, 0]
        outcome = rule.decide(draws, recorded)
        accepted = outcome.accepted
        measured = outcome.measured[accepted]
        points.append(
            Point(
                gain_bpb=gain,
                accepted=rate_of(int(accepted.sum()), trials),
                mean_runs=float((outcome.candidate_runs + outcome.champion_runs).mean()),
                mean_measured_bpb=float(measured.mean()) if len(measured) else math.nan,
            )
        )
    return tuple(points)


def unpaired_runs_needed(
    noises: Sequence[Noise], *, gain_bpb: float, power: float, alpha: float = 0.05
) -> int:
    """Return how many runs of each program an unpaired t-test needs for a power.

    The power is the mean over the noises, from the noncentral t distribution.

    Raises:
        ValueError: the gain is not positive, or more than 65536 runs are needed.
    """
    if gain_bpb <= 0.0:
        raise ValueError(f"expected a positive gain, found {gain_bpb}")
    sds = np.array([noise.unpaired_sd for noise in noises])

    def power_at(runs: int) -> float:
        freedom = 2 * runs - 2
        shift = gain_bpb * math.sqrt(runs) / sds
        critical = stdtrit(freedom, 1.0 - alpha)
        return float(1.0 - nctdtr(freedom, shift, critical).mean())

    enough = 2
    while power_at(enough) < power:
        enough *= 2
        if enough > MOST_RUNS:
            raise ValueError(f"a gain of {gain_bpb:g} needs more than {MOST_RUNS} runs each")
    few = enough // 2
    while enough - few > 1:
        middle = (few + enough) // 2
        few, enough = (few, middle) if power_at(middle) >= power else (middle, enough)
    return enough
