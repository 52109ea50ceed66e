"""Weigh differences of unknown variance against "no better", after as many as one likes.

The e-value of n differences is how much more likely they are if the candidate is better than if
its mean difference is zero, whatever their variance: the likelihood ratio of the t-statistics,
averaged over standardised gains (mean over sd) with a half-normal prior on the side of the gain.
Under normal differences of mean zero these ratios are a non-negative martingale that starts at 1,
so the chance that they *ever* reach 1/alpha is at most alpha (Ville's inequality). Moving the mean
to the bad side raises every t-statistic of a sequence alike, hence the same bound holds for every
candidate that is worse. One may look after every pair, stop for any reason and go on later.

Skewed differences break the promise at small n as they break any t-test: see the operating
characteristics that `agent.calibration` measures on real pools.

With S the sum, Q the sum of squares, y = S / sqrt(n Q) in [-1, 1] stands for the t-statistic:
t = y sqrt((n - 1) / (1 - y^2)).

Sources: Lai 1976, "On confidence sequences", Annals of Statistics 4(2), for mixtures of the
likelihood ratios of t-statistics; Wang and Ramdas, "Anytime-valid t-tests and confidence
sequences for Gaussian means with unknown variance", arXiv:2310.03722; Perez-Ortiz et al.,
"E-statistics, group invariance and anytime-valid testing", arXiv:2208.07610.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import stdtr

__all__ = ["critical_t", "log_e_values", "self_normalised"]

Array = NDArray[np.float64]

# Below it a tail probability is taken for this one, whose logarithm exists.
SMALLEST = np.finfo(np.float64).tiny


def self_normalised(differences: Array) -> Array:
    """Return y = S / sqrt(n Q) of the first n differences, for every n along the last axis.

    Differences that are all zero give 0: they speak for neither side.
    """
    counts = np.arange(1, differences.shape[-1] + 1)
    sums = np.cumsum(differences, axis=-1)
    scale = np.sqrt(counts * np.cumsum(differences**2, axis=-1))
    ratio: Array = np.divide(sums, scale, out=np.zeros_like(sums), where=scale > 0.0)
    return np.clip(ratio, -1.0, 1.0)


def log_e_values(y: Array, counts: Array, *, prior_sd: float) -> Array:
    """Return the logarithms of the e-values against "the mean difference is not negative".

    Args:
        y: self-normalised sums, from `self_normalised`.
        counts: how many differences each is made of; any shape that broadcasts with `y`.
        prior_sd: scale of the half-normal prior over the gain in paired standard deviations.

    The variance integrates out by Haar's prior and the gain in closed form: with g = prior_sd^2,
    k = n g / (1 + n g) and F_n the distribution function of Student's t with n degrees of freedom,
    E = 2 (1 + n g)^(-1/2) (1 - k y^2)^(-n/2) F_n(-y sqrt(n k / (1 - k y^2))).
    """
    spread = counts * prior_sd**2
    shrink = spread / (1.0 + spread)
    rest = 1.0 - shrink * y**2
    tail = stdtr(counts, -y * np.sqrt(counts * shrink / rest))
    logs: Array = (
        math.log(2.0)
        - 0.5 * np.log1p(spread)
        - 0.5 * counts * np.log(rest)
        + np.log(np.maximum(tail, SMALLEST))
    )
    return logs


def critical_t(pairs: int, alpha: float, *, prior_sd: float) -> float:
    """Return the b for which a t-statistic of -b has the e-value 1/alpha.

    mean +- b sd / sqrt(n), for n = 2, 3, ..., is a confidence sequence: each of its ends is on the
    wrong side of the truth at any time whatever with probability at most alpha.

    Returns:
        Infinity where that many pairs cannot reach 1/alpha, however clear they are.
    """
    wanted = -math.log(alpha)

    def excess(y: float) -> float:
        return _log_e_value(-y, pairs, prior_sd) - wanted

    if pairs < 2 or excess(1.0) <= 0.0:  # noqa: PLR2004 - one difference has no spread
        return math.inf
    y = float(brentq(excess, 0.0, 1.0, xtol=1e-14))
    return y * math.sqrt((pairs - 1) / (1.0 - y * y))


def _log_e_value(y: float, pairs: int, prior_sd: float) -> float:
    return float(log_e_values(np.array(y), np.array(float(pairs)), prior_sd=prior_sd))
