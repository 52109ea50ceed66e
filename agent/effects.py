"""State a mean paired difference with its interval, from pairs or from a stored verdict.

The intervals made here are Student's, for a number of pairs fixed in advance: those of tests that
may stop at any time are in `agent.statistics.paired_test`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from scipy.special import stdtrit

from agent.statistics.paired_test import Effect
from db.records import Verdict

__all__ = ["Effect", "effect_of", "paired_effect", "single_pair"]

LEAST_PAIRS = 2  # one difference has no spread


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
    pairs = len(differences)
    if pairs < LEAST_PAIRS:
        raise ValueError(f"a paired interval needs two pairs or more, found {pairs}")
    mean, error = fmean(differences), stdev(differences) / math.sqrt(pairs)
    half = float(stdtrit(pairs - 1, 0.5 + confidence / 2.0)) * error
    return Effect(mean=mean, low=mean - half, high=mean + half, pairs=pairs)


def single_pair(difference: float) -> Effect:
    """Return the effect seen on one pair, which says nothing about its own spread."""
    return Effect(mean=difference, low=-math.inf, high=math.inf, pairs=1)


def effect_of(verdict: Verdict) -> Effect | None:
    """Return a verdict's effect with its interval; None where it compares with nothing.

    A single pair has an effect and no interval, and counts as none.
    """
    if verdict.effect_bpb is None or verdict.interval_low is None or verdict.interval_high is None:
        return None
    return Effect(
        mean=verdict.effect_bpb,
        low=verdict.interval_low,
        high=verdict.interval_high,
        pairs=verdict.pairs,
    )
