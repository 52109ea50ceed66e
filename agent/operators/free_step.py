"""The operator that moves any one knob by a random amount."""

from __future__ import annotations

import math
import random

from agent.operators.operator import Changes, Operator
from agent.operators.tables import Tables
from sandbox.knobs import Bounds

__all__ = ["OPERATORS"]

RANGE_SHARE = 0.05  # standard deviation where there is no logarithm, as a share of the range
SPREAD = 0.3  # standard deviation of the logarithm: two of three steps stay within a factor 1.35


def _step_any_knob(tables: Tables, rng: random.Random) -> list[Changes]:
    """Propose a step for every number in scope; the draw among them makes them equally likely."""
    return [
        {name: tables.within(name, _stepped(tables.number(name), knob.bounds, rng))}
        for name, knob in tables.knobs.items()
        if isinstance(knob.bounds, Bounds) and tables.may_change(name)
    ]


def _stepped(now: float, bounds: Bounds, rng: random.Random) -> float:
    """Return `now` after a log-normal step, measured from the end of the range that matters.

    For decay rates such as beta2 that is their distance from 1; numbers that may be negative, or
    are 0, have no logarithm and move by a share of their range instead.
    """
    draw = rng.gauss(0.0, SPREAD)
    if bounds.scale == "integer":
        step = round(now * math.expm1(draw))
        return now + (step or math.copysign(1, draw))
    if now == bounds.low:  # the only way from an end is inward
        draw = abs(draw)
    if bounds.low < 0.0 or now == 0.0:
        return now + RANGE_SHARE * (bounds.high - bounds.low) * draw / SPREAD
    if now > 0.5 and bounds.high <= 1.0:  # noqa: PLR2004 (the middle of rates and fractions)
        return 1.0 - (1.0 - now) * math.exp(draw)
    return now * math.exp(draw)


OPERATORS = (Operator(name="step_any_knob", options=_step_any_knob),)
