"""The two rules of the public fixed-data optimizer benchmark, computed exactly.

A submission of n runs reaches the target if (3.28 - mean)·√n ≥ 0.004, all losses taken at one
step common to its runs. That is a one-sided z-test at p < .001 with a standard deviation of
0.0013 nats assumed over seeds. A submission is better than another if

    (Δloss + 0.0045·Δsteps/100) / √(1/n1 + 1/n2) ≥ 0.004,

where differences are the other's loss and steps minus its own: 100 steps fewer are worth 0.0045
nats. Logs print five decimals and means often sit on the threshold (3.278 over 4 runs passes), so
losses are taken as the decimals they were printed as, and the comparison is between fractions.

Source: the benchmark's rules, modded-nanogpt, records/track_3_optimization/README.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from scipy.special import chdtrc

__all__ = [
    "SIGMA_NATS",
    "TARGET_NATS",
    "THRESHOLD",
    "Result",
    "Significance",
    "better",
    "on_target",
    "p_spread",
]

TARGET_NATS = Fraction("3.28")
THRESHOLD = Fraction("0.004")
SIGMA_NATS = 0.0013
NATS_PER_STEP = Fraction("0.0045") / 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Significance:
    """The left side of a rule and whether it reaches the threshold."""

    statistic: float
    passes: bool

    @property
    def margin(self) -> float:
        """Return how far the statistic is above the threshold; negative is short of it."""
        return self.statistic - float(THRESHOLD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The losses of a submission's runs at one step, all finite."""

    step: int
    losses: tuple[float, ...]

    @property
    def n(self) -> int:
        """Return the number of runs."""
        return len(self.losses)

    @property
    def mean(self) -> Fraction:
        """Return the exact mean of the printed losses."""
        return sum((Fraction(str(loss)) for loss in self.losses), Fraction(0)) / self.n

    @property
    def sd(self) -> float | None:
        """Return the sample standard deviation over runs, or None for a single run."""
        return _sd(self.losses) if self.n > 1 else None


def on_target(result: Result) -> Significance:
    """Test whether a submission's mean is below the target."""
    return _significance(TARGET_NATS - result.mean, Fraction(1, result.n))


def better(result: Result, other: Result) -> Significance:
    """Test whether a submission is better than another one, loss and steps taken together."""
    gain = other.mean - result.mean + NATS_PER_STEP * (other.step - result.step)
    return _significance(gain, Fraction(1, result.n) + Fraction(1, other.n))


def p_spread(result: Result) -> float:
    """Return how likely runs of the assumed standard deviation spread as much as these.

    The chi-square test of a variance; 1 for a single run. A small value says that the rule's
    z-test does not hold for this submission, most often because it mixes several settings.
    """
    if result.sd is None:
        return 1.0
    return float(chdtrc(result.n - 1, (result.n - 1) * (result.sd / SIGMA_NATS) ** 2))


def _significance(gain: Fraction, spread: Fraction) -> Significance:
    """Compare gain / √spread with the threshold without taking a root."""
    return Significance(
        statistic=float(gain) / math.sqrt(spread),
        passes=gain > 0 and gain**2 >= THRESHOLD**2 * spread,
    )


def _sd(losses: Sequence[float]) -> float:
    mean = math.fsum(losses) / len(losses)
    return math.sqrt(math.fsum((loss - mean) ** 2 for loss in losses) / (len(losses) - 1))
