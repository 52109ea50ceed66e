"""Claims: how often a run that confirms its champions says something false.

A promotion inside a search may be wrong once in twenty; it costs the search some time. A claim is
what the run tells the world, and all claims of a run together may be wrong once in a hundred.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from agent.calibration.noise import Noise, draw
from agent.calibration.operating import Rate, rate_of
from agent.statistics.multiplicity import claim_level

__all__ = ["CONFIRMATION_PAIRS", "false_claims", "is_claimed"]

Array = NDArray[np.float64]

CONFIRMATION_PAIRS = 20


def is_claimed(differences: Array, number: int) -> NDArray[np.bool_]:
    """Say which confirmations may be claimed: (runs, pairs) differences -> (runs,).

    It is `agent.statistics.multiplicity.claim` of confirmation `number`, for many runs at once.
    """
    pairs = differences.shape[1]
    error = differences.std(axis=1, ddof=1) / math.sqrt(pairs)
    critical = float(stdtrit(pairs - 1, 1.0 - claim_level(number)))
    claimed: NDArray[np.bool_] = differences.mean(axis=1) < -critical * error
    return claimed


def false_claims(
    noises: Sequence[Noise], *, confirmations: int, runs: int, rng: np.random.Generator
) -> Rate:
    """Count the runs that claim anything, where nothing that they confirm is any better.

    Every run confirms `confirmations` programs, each on fresh seeds; the more it tries, the less
    error each of them may spend.
    """
    wrong = np.zeros(runs, dtype=np.bool_)
    for number in range(1, confirmations + 1):
        draws = draw(noises, np.zeros(runs), CONFIRMATION_PAIRS, rng)
        wrong |= is_claimed(draws.differences, number)
    return rate_of(int(wrong.sum()), runs)
