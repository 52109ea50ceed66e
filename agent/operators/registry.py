"""All operators, by name, in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping

from agent.operators import adamw, amounts, free_step, gating, schedules, switches
from agent.operators.operator import Operator

__all__ = ["OPERATORS", "PRIOR_WEIGHTS"]

OPERATORS: Mapping[str, Operator] = {
    operator.name: operator
    for family in (switches, amounts, gating, schedules, adamw, free_step)
    for operator in family.OPERATORS
}

# How often an operator is drawn, where it is not 1: what earlier searches found to help is tried
# sooner, what they found to hurt at every size is tried rarely (`prompts/notes/prior_results.md`).
# A prior decides what is tried, never what is kept.
PRIOR_WEIGHTS: Mapping[str, float] = {
    "toggle_tail_ema": 4.0,
    "adjust_tail_ema": 2.0,
    "toggle_momentum_warmup": 2.0,
    "toggle_nesterov_blend": 2.0,
    "toggle_beta2_warmup": 2.0,
    "toggle_orthogonalization": 0.25,
    "toggle_momentum_placement": 0.25,
    "toggle_second_moment": 0.25,
    "toggle_trust_ratio": 0.5,
}
