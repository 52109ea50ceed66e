"""Compare how two runs moved their weights, parameter by parameter."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from sandbox.jobs import Evidence

__all__ = ["distances", "sizes"]


def distances(one: Evidence, other: Evidence) -> Mapping[str, float]:
    """Return by parameter how far two movements are apart, relative to the longer of them.

    0 is the same movement, 1 that one of them did not move, 1.4 two unrelated movements of equal
    length, 2 opposite ones. Parameters that moved in neither run are left out.
    """
    found = {}
    for (name, a), (_, b) in zip(one.movement, other.movement, strict=True):
        longest = max(_length(a), _length(b))
        if longest > 0.0:
            found[name] = _length([x - y for x, y in zip(a, b, strict=True)]) / longest
    return found


def sizes(evidence: Evidence) -> Mapping[str, int]:
    """Return by parameter a lower bound on its number of elements: those seen in its sketch."""
    return {name: sum(x != 0.0 for x in numbers) for name, numbers in evidence.movement}


def _length(vector: Sequence[float]) -> float:
    return math.hypot(*vector)
