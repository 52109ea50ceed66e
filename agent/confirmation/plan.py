"""What a confirmation trains: fixed in advance, from the number of pairs alone.

Every condition compares the program with the run's baseline on fresh seeds of its own. The first,
`sealed`, is the one a claim rests on. The others ask whether the win is one of the text, of the
length of training, of the learning rate, or of the size of the model; each is judged by a test of
its own, and a level of the win hierarchy needs all of its conditions, so no correction for their
number is due (an intersection-union test).

Source: Berger 1982, "Multiparameter hypothesis testing and acceptance sampling", Technometrics
24(4), for the intersection-union test.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from agent.seeds import pair_seeds
from sandbox.jobs import Split

__all__ = [
    "DEFAULT_PAIRS",
    "LEAST_PAIRS",
    "QUICK_PAIRS",
    "Condition",
    "Part",
    "Plan",
    "fresh_seeds",
    "make_plan",
]

DEFAULT_PAIRS = 20
QUICK_PAIRS = 8
LEAST_PAIRS = 5  # with fewer, a t-test at the level of a claim has next to no power

# At each other condition a gain of one paired standard deviation is shown at .05 by 8 pairs in
# 83 of 100 cases.
SIDE_SHARE = 0.4
LEAST_SIDE_PAIRS = 4

RATE_FACTORS = (0.5, 0.71, 1.0, 1.41, 2.0)
QUICK_RATE_FACTORS = (0.71, 1.0, 1.41)
RATE_SEEDS = 4
QUICK_RATE_SEEDS = 3
CONTROL_SEEDS = 4


class Part(StrEnum):
    """A part of a confirmation, by the name its seeds are recorded under."""

    YARDSTICK = "yardstick"
    CONTROL = "control"
    RATES = "rates"
    SEALED = "sealed"
    OTHER_TEXT = "ood"
    HALF = "half"
    DOUBLE = "double"
    QUADRUPLE = "quadruple"
    GATE = "gate"
    LARGER = "larger"
    SMALLER = "smaller"


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """One way to compare the program with its baseline.

    `length` is in units of the run's own number of steps, `size` in doublings of the model.
    """

    part: Part
    title: str
    pairs: int
    split: Split = Split.SEALED
    length: float = 1.0
    size: int = 0

    def steps(self, usual: int) -> int:
        """Return how many steps are trained."""
        return max(1, round(usual * self.length))


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All there is to train. `conditions` are in the order they are taken, `sealed` first."""

    pairs: int
    is_quick: bool
    factors: tuple[float, ...]
    rate_seeds: int
    conditions: tuple[Condition, ...]

    def seeds_needed(self) -> dict[Part, int]:
        """Return how many seeds every part spends."""
        needed = {condition.part: condition.pairs for condition in self.conditions}
        gate_pairs = _side_pairs(self.pairs)
        return {
            Part.YARDSTICK: 1,
            Part.CONTROL: CONTROL_SEEDS,
            Part.RATES: self.rate_seeds,
            **needed,
            Part.GATE: gate_pairs,
        }

    def as_record(self) -> dict[str, Any]:
        """Return what identifies the plan, for the database."""
        return {"pairs": self.pairs, "quick": self.is_quick}


def make_plan(pairs: int, *, is_quick: bool) -> Plan:
    """Plan a confirmation of so many pairs on sealed text.

    A quick one leaves out the longest runs and the other sizes, so it ends at the third level.
    """
    side = _side_pairs(pairs)
    sealed = Condition(part=Part.SEALED, title="sealed text", pairs=pairs)
    other = Condition(
        part=Part.OTHER_TEXT,
        title="text of another kind",
        pairs=side,
        split=Split.OUT_OF_DISTRIBUTION,
    )
    half = Condition(part=Part.HALF, title="half the steps", pairs=side, length=0.5)
    further = (
        Condition(part=Part.DOUBLE, title="twice the steps", pairs=side, length=2.0),
        Condition(part=Part.QUADRUPLE, title="four times the steps", pairs=side, length=4.0),
        Condition(part=Part.SMALLER, title="half the depth and width", pairs=side, size=-1),
        Condition(part=Part.LARGER, title="twice the depth and width", pairs=side, size=1),
    )
    return Plan(
        pairs=pairs,
        is_quick=is_quick,
        factors=QUICK_RATE_FACTORS if is_quick else RATE_FACTORS,
        rate_seeds=QUICK_RATE_SEEDS if is_quick else RATE_SEEDS,
        conditions=(sealed, other, half) if is_quick else (sealed, other, half, *further),
    )


def fresh_seeds(plan: Plan, seed: int, number: int) -> Mapping[Part, tuple[int, ...]]:
    """Draw the seeds of every part; they follow from the seed and the confirmation's number."""
    upcoming = pair_seeds(seed, f"confirm {number}")
    return {
        part: tuple(itertools.islice(upcoming, count))
        for part, count in plan.seeds_needed().items()
    }


def _side_pairs(pairs: int) -> int:
    return max(LEAST_SIDE_PAIRS, math.ceil(SIDE_SHARE * pairs))
