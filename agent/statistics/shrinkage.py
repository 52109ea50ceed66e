"""Shrink measured effects towards what the candidates of a run usually amount to.

The best of many noisy effects is too good on average (the winner's curse). If the effects of all
candidates come from one distribution, the posterior mean given a measurement is right on average
also among those that were selected for it, and however the measuring was stopped. So the
distribution is estimated from *all* candidates of the run, rejected ones too, and the shrunken
effect is reported beside the raw one.

The distribution is only assumed to have its peak at zero: a mixture of a point at zero and of
uniform pieces from zero to some width, on either side, its weights found by expectation
maximisation. Harm and gain may be of quite different sizes, as they are.

Sources: Stephens 2017, "False discovery rates: a new deal", Biostatistics 18(2), for the mixture
and the prior on its weights; Efron 2011, "Tweedie's formula and selection bias", J. Am. Statist.
Assoc. 106(496), for why it answers selection.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import ndtr

__all__ = ["Measured", "Prior", "Shrunken", "fit_prior", "shrink"]

Array = NDArray[np.float64]

# Widths of the uniform pieces grow by this factor: Stephens' default.
GROWTH = math.sqrt(2.0)
# Dirichlet prior on the weights: as if ten candidates without any effect had been seen, Stephens'
# default, which keeps a handful of candidates from being believed; and one of every size
# together, without which no gain at all would be thought possible where none was seen yet.
NULL_CANDIDATES, OTHER_CANDIDATES = 10.0, 1.0
ITERATIONS = 500  # the weights have settled to three digits long before

# Narrower than this many standard errors, a piece is replaced by its middle: the difference of
# two distribution functions would be rounding.
NARROW = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One candidate's measured effect.

    Raises:
        ValueError: the effect is not finite, or its standard error not positive and finite.
    """

    mean: float
    error: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.mean) and 0.0 < self.error < math.inf):
            raise ValueError(
                f"expected a finite effect with a positive standard error, found {self.mean} "
                f"with {self.error}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Prior:
    """How the true effects of a run's candidates are distributed.

    `ends[i]` is where piece i, which begins at zero, ends: negative for gains, 0.0 for the point
    at zero. `weights` add up to 1.
    """

    ends: tuple[float, ...]
    weights: tuple[float, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shrunken:
    """What to expect of a candidate: posterior mean, interval, and chance of being better."""

    mean: float
    low: float
    high: float
    chance_better: float


def fit_prior(candidates: Sequence[Measured]) -> Prior:
    """Estimate the distribution of true effects from every candidate of a run.

    Raises:
        ValueError: there is no candidate.
    """
    if not candidates:
        raise ValueError("no candidate was measured, so there is nothing to learn from")
    ends = _grid(candidates)
    means = np.array([candidate.mean for candidate in candidates])[:, None]
    errors = np.array([candidate.error for candidate in candidates])[:, None]
    log_likelihood = np.log(_piece_likelihood(means, errors, ends))
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    weights = np.full(len(ends), 1.0 / len(ends))
    extra = np.where(ends == 0.0, NULL_CANDIDATES, OTHER_CANDIDATES / len(ends))
    for _ in range(ITERATIONS):
        shares = likelihood * weights
        shares /= shares.sum(axis=1, keepdims=True)
        weights = shares.sum(axis=0) + extra
        weights /= weights.sum()
    return Prior(ends=tuple(ends.tolist()), weights=tuple(weights.tolist()))


def shrink(measured: Measured, prior: Prior, *, confidence: float = 0.95) -> Shrunken:
    """Return what a measurement says once it is known what candidates usually amount to.

    The interval takes the prior as known. With 100 candidates, a tenth of which were accepted by a
    sequential test, its 95 % cover 91 % of the accepted ones' true effects (simulated): it
    describes, it does not prove. Claims rest on a confirmation.
    """
    ends = np.array(prior.ends)
    posterior = np.array(prior.weights) * _piece_likelihood(
        np.array(measured.mean), np.array(measured.error), ends
    )
    posterior /= posterior.sum()

    def below(value: float) -> float:
        return float((posterior * _piece_below(measured, ends, value)).sum())

    outer = float(np.abs(ends).max()) + 1.0
    tail = (1.0 - confidence) / 2.0
    low, high = (
        float(brentq(lambda value, part=part: below(value) - part, -outer, outer, xtol=1e-9))
        for part in (tail, 1.0 - tail)
    )
    better = float(posterior[ends < 0.0].sum())
    mean = float((posterior * _piece_mean(measured, ends)).sum())
    return Shrunken(mean=mean, low=low, high=high, chance_better=better)


def _grid(candidates: Sequence[Measured]) -> Array:
    """Choose pieces from a tenth of the smallest error to twice the largest excess."""
    smallest = min(candidate.error for candidate in candidates) / 10.0
    excess = max(candidate.mean**2 - candidate.error**2 for candidate in candidates)
    largest = 2.0 * math.sqrt(excess) if excess > 0.0 else 8.0 * smallest
    count = max(1, math.ceil(math.log(largest / smallest, GROWTH)) + 1)
    widths = smallest * GROWTH ** np.arange(count)
    return np.concatenate([-widths[::-1], [0.0], widths])


def _piece_likelihood(mean: Array, error: Array, ends: Array) -> Array:
    """Return the density of a measurement if its true effect is uniform between 0 and an end."""
    width = np.maximum(np.abs(ends), NARROW * error)
    middle = np.sign(ends) * width / 2.0
    z = np.abs(mean - middle) / error
    half = width / (2.0 * error)
    # Both arguments on the negative side, where the difference of tails keeps its digits.
    spread = (ndtr(half - z) - ndtr(-half - z)) / width
    point = np.exp(-0.5 * (mean / error) ** 2) / (error * math.sqrt(2.0 * math.pi))
    density: Array = np.where(np.abs(ends) < NARROW * error, point, spread)
    return np.maximum(density, np.finfo(np.float64).tiny)


def _piece_mean(measured: Measured, ends: Array) -> Array:
    """Return the mean of a normal truncated to each piece."""
    low, high = _scaled(measured, ends)
    mass = ndtr(high) - ndtr(low)
    drop = (np.exp(-0.5 * low**2) - np.exp(-0.5 * high**2)) / math.sqrt(2.0 * math.pi)
    known = mass > NARROW**2
    inner = measured.mean + measured.error * np.divide(
        drop, mass, out=np.zeros_like(mass), where=known
    )
    nearest = np.clip(measured.mean, np.minimum(ends, 0.0), np.maximum(ends, 0.0))
    return np.where(known, inner, nearest)


def _piece_below(measured: Measured, ends: Array, value: float) -> Array:
    """Return the chance that the true effect lies below a value, for each piece."""
    low, high = _scaled(measured, ends)
    at = np.clip((value - measured.mean) / measured.error, low, high)
    mass = ndtr(high) - ndtr(low)
    inner = np.divide(ndtr(at) - ndtr(low), mass, out=np.zeros_like(mass), where=mass > NARROW**2)
    nearest = np.clip(measured.mean, np.minimum(ends, 0.0), np.maximum(ends, 0.0))
    share: Array = np.where(mass > NARROW**2, inner, nearest <= value)
    return share


def _scaled(measured: Measured, ends: Array) -> tuple[Array, Array]:
    """Return both ends of each piece in standard errors from the measurement."""
    at_zero = np.full_like(ends, -measured.mean / measured.error)
    at_end = (ends - measured.mean) / measured.error
    return np.minimum(at_zero, at_end), np.maximum(at_zero, at_end)
