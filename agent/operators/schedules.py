"""Operators on what changes over training: learning rate, momentum, decay, averages."""

from __future__ import annotations

import random
from collections.abc import Callable

from agent.operators.operator import Changes, Operator, moved
from agent.operators.tables import Tables
from sandbox.knobs import Choice

__all__ = ["OPERATORS"]

STEP_FACTORS = (0.5, 0.75, 1.5, 2.0)
# Off to on. Warm-ups of constants are the pattern that most often helped elsewhere; a hundred
# steps fit the short horizon that candidates are trained for.
WARMUP_STEPS = 100
MOMENTUM_RISE = 0.1
TAIL_HORIZONS = (10, 20, 40)  # steps; of 400, 20 were best and 40 a third as good
TAIL_MIX = 0.6  # as in the readout of the Track 3 record


def _any_of(
    *parts: Callable[[Tables, random.Random], list[Changes]],
) -> Callable[[Tables, random.Random], list[Changes]]:
    def options(tables: Tables, rng: random.Random) -> list[Changes]:
        return [change for part in parts for change in part(tables, rng)]

    return options


def _toggle_momentum_warmup(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    start, peak = "SCHEDULE.momentum_start", "SCHEDULE.momentum_peak"
    steps = "SCHEDULE.momentum_warmup_steps"
    if not tables.may_change(start):
        return []
    if tables.is_used(start) and tables.is_used(steps):
        return [{start: tables.within(start, tables.number(peak))}]
    warm: dict[str, float | int] = {
        start: max(0.0, round(tables.number(peak) - MOMENTUM_RISE, 4)),
        steps: int(tables.number(steps)) or WARMUP_STEPS,
    }
    # The aspect comes first: what has to change for the warm-up to be there.
    return [warm if tables.value(start) != warm[start] else dict(reversed(warm.items()))]


def _toggle_nesterov_blend(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    is_scheduled = tables.value("SCHEDULE.nesterov_blend") == "scheduled"
    return [{"SCHEDULE.nesterov_blend": "momentum" if is_scheduled else "scheduled"}]


def _toggle_beta2_warmup(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    if not tables.is_on("POLICY.second_moment"):
        return []
    if tables.is_on("SCHEDULE.beta2_warmup"):
        return [{"SCHEDULE.beta2_warmup": False}]
    steps = "SCHEDULE.beta2_warmup_steps"
    return [{"SCHEDULE.beta2_warmup": True, steps: int(tables.number(steps)) or WARMUP_STEPS}]


def _change_weight_decay_shape(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    name = "SCHEDULE.weight_decay_shape"
    bounds = tables.knobs[name].bounds if name in tables.knobs else None
    return [{name: shape} for shape in bounds.values] if isinstance(bounds, Choice) else []


def _toggle_tail_ema(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    horizon, mix = "POLICY.tail_ema_horizon", "POLICY.tail_ema_mix"
    if tables.number(horizon) > 0:
        return [{horizon: 0}]
    share = tables.number(mix) or TAIL_MIX
    return [{horizon: steps, mix: share} for steps in TAIL_HORIZONS]


OPERATORS = (
    Operator(
        name="adjust_lr_warmup_steps",
        options=_any_of(
            moved("SCHEDULE.warmup_steps", factors=STEP_FACTORS),
            moved("SCHEDULE.warmup_steps", steps=(-5, 5)),
        ),
    ),
    Operator(
        name="adjust_warmdown",
        options=_any_of(
            moved("SCHEDULE.warmdown_fraction", steps=(-0.15, -0.05, 0.05, 0.15)),
            moved("SCHEDULE.final_lr_fraction", steps=(-0.05, 0.05), high=0.5),
        ),
    ),
    Operator(name="toggle_momentum_warmup", options=_toggle_momentum_warmup, is_switch=True),
    Operator(
        name="adjust_momentum_warmup",
        options=_any_of(
            moved("SCHEDULE.momentum_start", steps=(-0.05, 0.05)),
            moved("SCHEDULE.momentum_warmup_steps", factors=STEP_FACTORS),
        ),
    ),
    Operator(
        name="adjust_momentum",
        options=_any_of(
            moved("SCHEDULE.momentum_peak", steps=(-0.03, -0.01, 0.01, 0.03), high=0.995),
            moved("SCHEDULE.momentum_end", steps=(-0.05, -0.02, 0.02, 0.05), high=0.995),
        ),
    ),
    Operator(name="toggle_nesterov_blend", options=_toggle_nesterov_blend),
    Operator(
        name="adjust_nesterov_blend",
        options=_any_of(
            moved("SCHEDULE.nesterov_blend_start", steps=(-0.1, 0.1)),
            moved("SCHEDULE.nesterov_blend_end", steps=(-0.05, 0.05)),
            moved("SCHEDULE.nesterov_blend_steps", factors=STEP_FACTORS),
        ),
    ),
    Operator(name="toggle_beta2_warmup", options=_toggle_beta2_warmup, is_switch=True),
    Operator(
        name="adjust_beta2_warmup",
        options=_any_of(
            moved("SCHEDULE.beta2_start", steps=(-0.1, 0.1), low=0.3, high=0.99),
            moved("SCHEDULE.beta2_warmup_steps", factors=STEP_FACTORS),
        ),
    ),
    Operator(name="change_weight_decay_shape", options=_change_weight_decay_shape),
    Operator(name="toggle_tail_ema", options=_toggle_tail_ema, is_switch=True),
    Operator(
        name="adjust_tail_ema",
        options=_any_of(
            moved("POLICY.tail_ema_horizon", factors=STEP_FACTORS),
            moved("POLICY.tail_ema_mix", steps=(-0.1, 0.1)),
        ),
    ),
)
