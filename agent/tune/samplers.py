"""Choose the points of the unit cube that a tuning tries.

CMA-ES starts at the program's own values and learns where and how far to look; random search draws
evenly from the whole cube and is what others are measured against. Both draw from the seed alone,
so that a tuning can be repeated and taken up again.

Source: Hansen 2016, "The CMA Evolution Strategy: A Tutorial", arXiv:1604.00772, as in the library
cmaes.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

import numpy as np
from cmaes import CMA  # type: ignore[import-untyped]  # it ships no types

__all__ = ["Method", "Point", "Sampler", "make_sampler"]

Point = tuple[float, ...]

# In the cube: a factor of 1.8 for a learning rate with four decades of room. With .1, twelve of the
# first thirteen points around AdamW's usual values were worse than those at the micro profile.
FIRST_SPREAD = 0.06
RANDOM_BATCH = 8
LEAST_SIDES = 2  # of the library's


class Method(StrEnum):
    """How points are chosen."""

    CMA = "cma"
    RANDOM = "random"


class Sampler(Protocol):
    """Draws points, a batch at a time, and may learn from how they did."""

    def ask(self) -> tuple[Point, ...]:
        """Draw the points of the next batch."""

    def tell(self, points: Sequence[Point], losses: Sequence[float]) -> None:
        """Take note of how all points of the last batch did; only the order of losses counts."""


class _Random:
    def __init__(self, sides: int, seed: int) -> None:
        self._sides = sides
        self._rng = np.random.default_rng(seed)

    def ask(self) -> tuple[Point, ...]:
        drawn = self._rng.random((RANDOM_BATCH, self._sides))
        return tuple(tuple(map(float, point)) for point in drawn)

    def tell(self, points: Sequence[Point], losses: Sequence[float]) -> None:
        """Learn nothing."""


class _Cma:
    def __init__(self, start: Point, seed: int) -> None:
        self._sides = len(start)
        # The library wants two sides; a second one that means nothing does no harm.
        padded = [*start, *[0.5] * (LEAST_SIDES - len(start))]
        self._cma = CMA(
            mean=np.array(padded),
            sigma=FIRST_SPREAD,
            bounds=np.array([[0.0, 1.0]] * len(padded)),
            seed=seed % 2**32,
        )
        self._asked: dict[Point, np.ndarray[tuple[int], np.dtype[np.float64]]] = {}

    def ask(self) -> tuple[Point, ...]:
        drawn = [self._cma.ask() for _ in range(self._cma.population_size)]
        self._asked = {self._point(each): each for each in drawn}
        return tuple(self._point(each) for each in drawn)

    def tell(self, points: Sequence[Point], losses: Sequence[float]) -> None:
        # Ranks, so that a failed program is worse than any other and no more than that.
        order = np.argsort(np.argsort(np.array(losses), kind="stable"), kind="stable")
        found = zip(points, order, strict=True)
        self._cma.tell([(self._asked[point], float(rank)) for point, rank in found])

    def _point(self, drawn: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Point:
        return tuple(map(float, drawn[: self._sides]))


def make_sampler(method: Method, start: Point, seed: int) -> Sampler:
    """Return a sampler that begins at `start`."""
    return _Cma(start, seed) if method is Method.CMA else _Random(len(start), seed)
