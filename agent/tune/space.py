"""Map the numeric knobs of a program to the unit cube and back.

A search for good values moves in a cube whose sides are equally long: one step there is a factor
for a learning rate, and a factor in what is forgotten per step for a decay rate. Knobs that are no
numbers stay as they are: with another switch it would be another optimizer.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase

from sandbox.knobs import Bounds, Knob, Value, read_knobs, set_knobs

__all__ = ["Dimension", "Space", "SpaceError", "space_of"]

# A decay rate has bounds like (0, 0.999); a mere fraction may be 1.
LEAST_DECAY_HIGH = 0.9
# An integer with more values than this, say a number of steps, is turned by factors.
MANY_VALUES = 20
DIGITS = 4  # beyond them a knob is noise


class SpaceError(ValueError):
    """A program has nothing to tune; the message says what it would need."""


class Axis(StrEnum):
    """How a knob's value is laid out along a side of the cube."""

    LINEAR = "linear"
    LOG = "log"
    DECAY = "decay"
    COUNT = "count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dimension:
    """One knob to tune."""

    name: str
    bounds: Bounds

    @property
    def axis(self) -> Axis:
        """How its values are laid out."""
        low, high = self.bounds.low, self.bounds.high
        if self.bounds.scale == "log":
            return Axis.LOG
        if self.bounds.scale == "integer":
            return Axis.COUNT if high - low > MANY_VALUES else Axis.LINEAR
        return Axis.DECAY if low >= 0.0 and LEAST_DECAY_HIGH <= high < 1.0 else Axis.LINEAR

    def position(self, value: float) -> float:
        """Return where a value lies between 0 and 1; beyond the bounds means at them."""
        ends = self._stretched(self.bounds.low), self._stretched(self.bounds.high)
        inside = min(max(value, self.bounds.low), self.bounds.high)
        return (self._stretched(inside) - ends[0]) / (ends[1] - ends[0])

    def value(self, position: float) -> Value:
        """Return the value at a position, with as many digits as matter."""
        low, high = self._stretched(self.bounds.low), self._stretched(self.bounds.high)
        plain = self._unstretched(low + min(max(position, 0.0), 1.0) * (high - low))
        if self.bounds.scale == "integer":
            return min(max(round(plain), math.ceil(self.bounds.low)), math.floor(self.bounds.high))
        return min(max(self._rounded(plain), self.bounds.low), self.bounds.high)

    def _stretched(self, value: float) -> float:
        match self.axis:
            case Axis.LOG:
                return math.log(value)
            case Axis.DECAY:
                return -math.log1p(-value)
            case Axis.COUNT:
                return math.log1p(value - self.bounds.low)
        return value

    def _unstretched(self, stretched: float) -> float:
        match self.axis:
            case Axis.LOG:
                return math.exp(stretched)
            case Axis.DECAY:
                return -math.expm1(-stretched)
            case Axis.COUNT:
                return self.bounds.low + math.expm1(stretched)
        return stretched

    def _rounded(self, value: float) -> float:
        if self.axis is Axis.DECAY:  # digits of what is forgotten, not of what is kept
            forgotten = _significant(1.0 - value)
            return round(1.0 - forgotten, 12)
        return _significant(value)


@dataclass(frozen=True, slots=True, kw_only=True)
class Space:
    """The knobs of a program that are tuned, and the program."""

    source: str
    dimensions: tuple[Dimension, ...]

    @property
    def start(self) -> tuple[float, ...]:
        """Where the program's own values lie in the cube."""
        knobs = read_knobs(self.source)
        return tuple(d.position(_number(knobs[d.name])) for d in self.dimensions)

    def values(self, point: Sequence[float]) -> dict[str, Value]:
        """Return the knobs at a point of the cube."""
        return {d.name: d.value(x) for d, x in zip(self.dimensions, point, strict=True)}

    def own_values(self) -> dict[str, Value]:
        """Return the knobs as the program has them."""
        knobs = read_knobs(self.source)
        return {d.name: knobs[d.name].value for d in self.dimensions}

    def program(self, values: Mapping[str, Value]) -> str:
        """Return the program with other values in its tables."""
        return set_knobs(self.source, values)


def space_of(source: str, patterns: Sequence[str] = ("*",)) -> Space:
    """Find what can be tuned in a program, without executing it.

    Args:
        source: the program.
        patterns: a knob is tuned if its full name matches one of them, as in `MUON.*`.

    Raises:
        LineError: its tables cannot be read from the syntax tree.
        SpaceError: no knob is a number with bounds and a name that matches.
    """
    dimensions = [
        Dimension(name=knob.name, bounds=knob.bounds)
        for knob in read_knobs(source).values()
        if isinstance(knob.bounds, Bounds)
        and knob.bounds.low < knob.bounds.high
        and isinstance(knob.value, int | float)
        and not isinstance(knob.value, bool)
        and any(fnmatchcase(knob.name, pattern) for pattern in patterns)
    ]
    if not dimensions:
        raise SpaceError(
            "there is no knob to tune: knobs stand in tables like `ADAMW = Knobs(lr=0.01)`, and "
            'their ranges in `BOUNDS = {"ADAMW.lr": Bounds(1e-4, 1.0, "log")}`; '
            f"names have to match {' or '.join(patterns)}"
        )
    return Space(source=source, dimensions=tuple(dimensions))


def _number(knob: Knob) -> float:
    if isinstance(knob.value, str):
        raise TypeError(f"{knob.name} is no number: {knob.value!r}")
    return float(knob.value)


def _significant(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
