"""Estimate the error of every candidate's effect, lending few pairs the spread of the others.

Most candidates are given up after two or three pairs, whose own spread says little: two nearly
equal differences would look like certainty. The spreads of all candidates of a run say how large a
spread usually is and how much it varies; each candidate's variance is pulled towards that, as far
as its own pairs are too few to speak.

Source: Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
expression in microarray experiments", Stat. Appl. Genet. Mol. Biol. 3(1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import betaln, ndtri, stdtrit

from agent.statistics.shrinkage import Measured

__all__ = ["Spread", "measure", "usual_spread"]

Array = NDArray[np.float64]

# What a normal error stands for: the ends of a 90 % interval.
UPPER_PART = 0.95
# What the others' spread may be worth: from next to nothing, for a candidate alone, to far more
# pairs than anyone has, if all spreads look the same.
LEAST_FREEDOM, MOST_FREEDOM = 1e-3, 1e4
FAR = 20.0  # the usual variance lies within this factor, as a logarithm, of the median one


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """The usual variance of a paired difference, and how many pairs that knowledge is worth."""

    variance: float
    freedom: float


def measure(comparisons: Sequence[Sequence[float]]) -> tuple[Measured, ...]:
    """Return every candidate's effect with a standard error to be taken as normal.

    The error is widened so that its 90 % interval is that of Student's t with the degrees of
    freedom that were behind it.

    Args:
        comparisons: each candidate's differences, two or more, all in the same unit.

    Raises:
        ValueError: a candidate with fewer than two differences, one that is not finite, or no
            spread anywhere.
    """
    arrays = [np.asarray(differences, dtype=np.float64) for differences in comparisons]
    spread = usual_spread(comparisons)
    found = []
    for differences in arrays:
        freedom = len(differences) - 1
        total = freedom + spread.freedom
        own = float(differences.var(ddof=1))
        variance = (freedom * own + spread.freedom * spread.variance) / total
        widened = float(stdtrit(total, UPPER_PART) / ndtri(UPPER_PART))
        error = widened * math.sqrt(variance / len(differences))
        found.append(Measured(mean=float(differences.mean()), error=error))
    return tuple(found)


def usual_spread(comparisons: Sequence[Sequence[float]]) -> Spread:
    """Fit a scaled inverse chi-squared distribution to the true variances of all candidates.

    A variance with d degrees of freedom is then distributed as s0^2 F(d, d0), whose likelihood is
    maximised. The moments of log variances, as the source has it, let one candidate whose two
    differences nearly agree halve d0. Candidates whose differences are all the same are left out.

    Raises:
        ValueError: as for `measure`.
    """
    arrays = [np.asarray(differences, dtype=np.float64) for differences in comparisons]
    if not all(len(found) > 1 and np.isfinite(found).all() for found in arrays):
        raise ValueError("every candidate needs two or more differences, all of them finite")
    variances = np.array([found.var(ddof=1) for found in arrays])
    freedoms = np.array([len(found) - 1.0 for found in arrays])[variances > 0.0]
    variances = variances[variances > 0.0]
    if len(variances) == 0:
        raise ValueError("no candidate's differences vary, so no error can be estimated")
    if len(variances) == 1:
        return Spread(variance=float(variances[0]), freedom=LEAST_FREEDOM)

    def cost(point: Array) -> float:
        return -_log_likelihood(np.log(variances) - point[0], freedoms, math.exp(point[1]))

    middle = float(np.log(np.median(variances)))
    limits = (math.log(LEAST_FREEDOM), math.log(MOST_FREEDOM))
    found = minimize(
        cost,
        x0=np.array([middle, math.log(4.0)]),
        method="Nelder-Mead",
        bounds=[(middle - FAR, middle + FAR), limits],
    )
    return Spread(variance=math.exp(float(found.x[0])), freedom=math.exp(float(found.x[1])))


def _log_likelihood(logs: Array, freedoms: Array, freedom: float) -> float:
    """Return the log likelihood of log variance ratios under the logarithm of F(d, d0)."""
    shapes = betaln(freedoms / 2.0, freedom / 2.0)
    ratios = logs + np.log(freedoms / freedom)
    terms = freedoms / 2.0 * ratios - (freedoms + freedom) / 2.0 * np.logaddexp(0.0, ratios)
    return float((terms - shapes).sum())
