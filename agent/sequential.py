"""Decide from paired differences whether a candidate beats its incumbent, looking few times.

Looks are planned at 2, 4 and 8 pairs. Each look is a one-sided paired t-test at its own share of
the error; the shares add up to 0.05, so by the union bound a candidate that is no better is
accepted with probability at most 0.05, however the looks depend on each other. Giving up early
(futility) only ever lowers that probability, so it is not binding: it may be skipped.

Differences are candidate minus incumbent in bits per byte: negative is better.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev

from scipy.special import stdtr, stdtrit

__all__ = [
    "LOOKS",
    "Decision",
    "DecisionKind",
    "Effect",
    "Look",
    "decide",
    "paired_effect",
    "single_pair",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """One planned test: after how many pairs, and which share of the error it may spend."""

    pairs: int
    alpha: float


# The later looks get most of the error: with 2 pairs the critical value has one degree of freedom
# and is out of reach for anything but a gross difference, whatever it is given.
LOOKS = (Look(pairs=2, alpha=0.005), Look(pairs=4, alpha=0.015), Look(pairs=8, alpha=0.03))

# Futility at the second look: it ends three of four races without gain, and one of nine in which
# the true gain is one paired standard deviation (simulated, 200,000 races each).
HOPELESS_P = 0.25

LEAST_PAIRS = 2  # one difference has no spread


class DecisionKind(StrEnum):
    """What to do with the candidate after a look."""

    CONTINUE = "continue"
    ACCEPT = "accept"
    REJECT = "reject"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """A mean paired difference in bits per byte with its interval, from `pairs` pairs."""

    mean: float
    low: float
    high: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The result of one look.

    The effect's interval is the repeated confidence interval at this look's level, so a candidate
    is accepted exactly when its upper end is below zero. `p` is the one-sided p-value.
    """

    kind: DecisionKind
    effect: Effect
    p: float
    reason: str


def decide(differences: Sequence[float]) -> Decision:
    """Test the differences at the look planned for their number.

    Args:
        differences: candidate minus incumbent per seed; as many as one of `LOOKS` plans.

    Raises:
        ValueError: no look is planned at this number of pairs.

    Source: Jennison and Turnbull 1989, "Interim analyses: the repeated confidence interval
    approach", J. R. Statist. Soc. B 51(3); the union bound is Bonferroni's inequality.
    """
    planned = {look.pairs: number for number, look in enumerate(LOOKS)}
    if len(differences) not in planned:
        raise ValueError(f"no look is planned at {len(differences)} pairs, only at {[*planned]}")
    number = planned[len(differences)]
    alpha = LOOKS[number].alpha
    effect = paired_effect(differences, confidence=1.0 - 2.0 * alpha)
    p = _p_better(differences)
    kind, why = _rule(number, effect, p)
    return Decision(kind=kind, effect=effect, p=p, reason=f"{why} (p {p:.3g}, level {alpha:g})")


def paired_effect(differences: Sequence[float], *, confidence: float = 0.95) -> Effect:
    """Estimate the mean difference with its two-sided Student t interval.

    Differences that are all equal give an interval of zero width: two programs that differ by
    the same amount to the last bit on every seed leave nothing to be uncertain about.

    Args:
        differences: at least two paired differences.
        confidence: coverage of the interval under normal differences.

    Raises:
        ValueError: fewer than two differences.
    """
    mean, error = _mean_and_error(differences)
    half = float(stdtrit(len(differences) - 1, 0.5 + confidence / 2.0)) * error
    return Effect(mean=mean, low=mean - half, high=mean + half, pairs=len(differences))


def single_pair(difference: float) -> Effect:
    """Return the effect seen on one pair, which says nothing about its own spread."""
    return Effect(mean=difference, low=-math.inf, high=math.inf, pairs=1)


def _p_better(differences: Sequence[float]) -> float:
    """Return the one-sided p-value of the hypothesis that the mean difference is not negative."""
    mean, error = _mean_and_error(differences)
    if error == 0.0:
        return 0.0 if mean < 0.0 else 1.0
    return float(stdtr(len(differences) - 1, mean / error))


def _mean_and_error(differences: Sequence[float]) -> tuple[float, float]:
    if len(differences) < LEAST_PAIRS:
        raise ValueError(f"a paired interval needs two pairs or more, found {len(differences)}")
    return fmean(differences), stdev(differences) / math.sqrt(len(differences))


def _rule(number: int, effect: Effect, p: float) -> tuple[DecisionKind, str]:
    """Apply the acceptance and futility rules of look `number`, counted from 0."""
    if effect.high < 0.0:
        return DecisionKind.ACCEPT, f"better after {effect.pairs} pairs"
    if number == len(LOOKS) - 1:
        return DecisionKind.REJECT, f"not shown to be better in {effect.pairs} pairs"
    if number == 0 and effect.mean >= 0.0:
        return DecisionKind.REJECT, f"no better on average in {effect.pairs} pairs"
    if number == 1 and p > HOPELESS_P:
        return DecisionKind.REJECT, f"little hope of a gain after {effect.pairs} pairs"
    return DecisionKind.CONTINUE, f"undecided after {effect.pairs} pairs"
