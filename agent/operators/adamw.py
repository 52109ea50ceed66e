"""Operators on how AdamW's constants move over training; live only where `adamw` is in scope."""

from __future__ import annotations

import random

from agent.operators.operator import Changes, Operator
from agent.operators.tables import Tables

__all__ = ["OPERATORS"]

EARLY_EPS = 1e-6  # a log-linear ramp down from it was among the predecessor's best finds
WARMUP_STEPS = 100
EARLY_OFFSETS = {"ADAMW.beta1_start_offset": -0.2, "ADAMW.beta2_start_offset": -0.1}


def _toggle_eps_ramp(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    start, end = "ADAMW.eps_start", "ADAMW.eps_end"
    is_ramp = tables.value(start) != tables.value(end)
    return [{start: tables.number(end) if is_ramp else EARLY_EPS}]


def _toggle_beta_warmup(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    steps = "ADAMW.beta_warmup_steps"
    options: list[Changes] = []
    for offset, early in EARLY_OFFSETS.items():
        is_warm = tables.number(offset) != 0.0 and tables.number(steps) > 0
        length = int(tables.number(steps)) or WARMUP_STEPS
        options.append({offset: 0.0} if is_warm else {offset: early, steps: length})
    return options


OPERATORS = (
    Operator(name="toggle_adamw_eps_ramp", options=_toggle_eps_ramp, is_switch=True),
    Operator(name="toggle_adamw_beta_warmup", options=_toggle_beta_warmup, is_switch=True),
)
