"""Draw comparisons with an effect of known size and the noise of real ones.

A smooth bootstrap: seeds are drawn with replacement from a comparison's centred scores, and a
little normal noise is added so that no two draws are equal (equal differences look certain to any
t-test, and are an artefact of resampling). The spread is then scaled back to the unbiased estimate
of the comparison's own. Reference score and difference of a seed stay together, so what they owe
to each other is kept; skewness is kept too, which is what threatens a one-sided test.

Source: Efron and Tibshirani 1993, "An Introduction to the Bootstrap", section 16.5, for the
smoothed draw with its variance restored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.calibration.pool import Pool

__all__ = ["Draws", "Noise", "draw", "noises_of"]

Array = NDArray[np.float64]

# Width of the added noise in sds of the comparison. A quarter leaves a skewness 1.1 times smaller
# than it was: (1 + h^2)^(3/2).
BANDWIDTH = 0.25


@dataclass(frozen=True, slots=True, kw_only=True)
class Noise:
    """The noise of one comparison, centred: one row per seed.

    Attributes:
        name: the comparison it comes from.
        reference: the reference's scores about their mean.
        difference: candidate minus reference about their mean.
    """

    name: str
    reference: Array
    difference: Array

    @property
    def paired_sd(self) -> float:
        """Return the sd of a paired difference."""
        return float(self.difference.std(ddof=1))

    @property
    def unpaired_sd(self) -> float:
        """Return the sd of the difference of two runs on seeds of their own."""
        candidate = self.reference + self.difference
        return math.hypot(float(candidate.std(ddof=1)), float(self.reference.std(ddof=1)))

    def at_sd(self, paired_sd: float) -> Noise:
        """Return the same noise with its differences scaled to a stated sd.

        The reference keeps its own spread: how well pairing works changes with it.
        """
        scale = paired_sd / self.paired_sd
        return Noise(name=self.name, reference=self.reference, difference=self.difference * scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Draws:
    """Many trials of a comparison: (trials, pairs) scores about the reference's true level.

    Column j of `candidate` and `reference` share a seed.
    """

    candidate: Array
    reference: Array

    @property
    def differences(self) -> Array:
        """Return candidate minus reference, seed by seed."""
        return self.candidate - self.reference


def noises_of(pool: Pool) -> tuple[Noise, ...]:
    """Centre every comparison of a pool."""
    found = []
    for comparison in pool.comparisons:
        reference = np.array(comparison.reference)
        difference = np.array(comparison.candidate) - reference
        found.append(
            Noise(
                name=comparison.name,
                reference=reference - reference.mean(),
                difference=difference - difference.mean(),
            )
        )
    return tuple(found)


def draw(
    noises: Sequence[Noise],
    effects: Array,
    pairs: int,
    rng: np.random.Generator,
) -> Draws:
    """Draw one trial per effect, each with the noise of a comparison chosen at random.

    Args:
        noises: what to draw from; each is as likely as any other.
        effects: (trials,) true candidate minus reference; negative is a gain.
        pairs: how many seeds each trial has.
        rng: where all choices come from.
    """
    trials = len(effects)
    owner = rng.integers(len(noises), size=trials)
    reference = np.empty((trials, pairs))
    difference = np.empty((trials, pairs))
    for index, noise in enumerate(noises):
        mine = np.flatnonzero(owner == index)
        rows = rng.integers(len(noise.difference), size=(len(mine), pairs))
        reference[mine] = _smoothed(noise.reference, rows, rng)
        difference[mine] = _smoothed(noise.difference, rows, rng)
    return Draws(candidate=reference + difference + effects[:, None], reference=reference)


def _smoothed(values: Array, rows: NDArray[np.int64], rng: np.random.Generator) -> Array:
    """Draw rows, add the kernel's noise, and restore the unbiased spread."""
    count = len(values)
    unbiased = math.sqrt(count / (count - 1))
    jitter = BANDWIDTH * float(values.std()) * rng.standard_normal(rows.shape)
    smoothed: Array = (values[rows] + jitter) * (unbiased / math.sqrt(1.0 + BANDWIDTH**2))
    return smoothed
