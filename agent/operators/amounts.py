"""Operators that move one constant of the matrix rule."""

from __future__ import annotations

import random

from agent.operators.operator import Changes, Operator, moved
from agent.operators.tables import Tables

__all__ = ["OPERATORS"]

TRUST_CLAMP_STEP = 0.25
TRUST_CLAMP_FLOOR = 0.1
FIRST_WEIGHT_DECAYS = (0.05, 0.15, 0.3)


def _adjust_trust_ratio_clamp(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    """Shift both ends of the clamp together; at its floor or bound an end stays."""
    low, high = "POLICY.trust_clamp_min", "POLICY.trust_clamp_max"
    if not (tables.may_change(low) and tables.may_change(high)):
        return []
    shifted = [
        {
            low: tables.within(low, max(TRUST_CLAMP_FLOOR, tables.number(low) + step)),
            high: tables.within(high, tables.number(high) + step),
        }
        for step in (-TRUST_CLAMP_STEP, TRUST_CLAMP_STEP)
    ]
    # An end that cannot move is not this change's aspect.
    return [
        changes if changes[low] != tables.value(low) else {high: changes[high], low: changes[low]}
        for changes in shifted
    ]


def _scale_weight_decay(tables: Tables, rng: random.Random) -> list[Changes]:
    """Multiply the weight decay; none at all becomes a little, the tuned one may become none."""
    name = "MUON.weight_decay"
    if tables.number(name) == 0.0:
        return moved(name, steps=FIRST_WEIGHT_DECAYS)(tables, rng)
    return moved(name, factors=(0.0, 0.5, 0.8, 1.25, 2.0))(tables, rng)


OPERATORS = (
    Operator(name="adjust_trust_ratio_clamp", options=_adjust_trust_ratio_clamp),
    Operator(
        name="scale_update_multiplier",
        options=moved("POLICY.update_multiplier", factors=(0.85, 0.95, 1.05, 1.15), low=0.1),
    ),
    Operator(name="adjust_ns_steps", options=moved("POLICY.ns_steps", steps=(-2, -1, 1, 2))),
    Operator(
        name="adjust_second_moment_beta",
        options=moved("POLICY.beta2", steps=(-0.02, 0.02), low=0.85, high=0.99),
    ),
    Operator(
        name="scale_clip_threshold",
        options=moved("POLICY.clip_threshold", factors=(0.7, 0.85, 1.15, 1.4)),
    ),
    Operator(name="scale_matrix_lr", options=moved("MUON.lr", factors=(0.7, 0.85, 1.15, 1.4))),
    Operator(name="scale_weight_decay", options=_scale_weight_decay),
)
