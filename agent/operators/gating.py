"""Operators on the gate that moves the actuators with the state of training."""

from __future__ import annotations

import random

from agent.operators.operator import Changes, Operator, moved
from agent.operators.tables import ACTUATORS, SENSORS, Tables, poles

__all__ = ["OPERATORS"]

# What the gate listens to when it is first switched on: high loss, large gradients and steady
# directions ask for boldness, fast progress needs none, and the end of training is for settling.
PRESET = {
    "POLICY.gate_loss": 0.4,
    "POLICY.gate_improvement": -0.8,
    "POLICY.gate_grad_norm": 0.5,
    "POLICY.gate_update_ratio": 0.3,
    "POLICY.gate_alignment": 0.7,
    "POLICY.gate_step_fraction": -0.6,
}
WEIGHT_STEP = 0.4
POLE_STEP = 0.1


def _toggle_stateful_control(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    """Switch the gate; one that has no weights and no bias yet gets the preset along with it."""
    if tables.is_on("POLICY.control"):
        return [{"POLICY.control": False}]
    is_blank = not tables.has_weight() and tables.number("POLICY.gate_bias") == 0.0
    return [{"POLICY.control": True, **(PRESET if is_blank else {})}]


def _adjust_gate_weight(tables: Tables, rng: random.Random) -> list[Changes]:
    return [
        change
        for sensor in SENSORS
        for change in moved(f"POLICY.gate_{sensor}", steps=(-WEIGHT_STEP, WEIGHT_STEP))(tables, rng)
    ]


def _adjust_stateful_range(tables: Tables, rng: random.Random) -> list[Changes]:
    return [
        change
        for actuator in ACTUATORS
        for pole in poles(actuator)
        for change in moved(pole, steps=(-POLE_STEP, POLE_STEP))(tables, rng)
    ]


OPERATORS = (
    Operator(name="toggle_stateful_control", options=_toggle_stateful_control),
    Operator(name="adjust_gate_bias", options=moved("POLICY.gate_bias", steps=(-0.5, 0.5))),
    Operator(name="adjust_gate_weight", options=_adjust_gate_weight),
    Operator(
        name="adjust_stateful_ema_beta",
        options=moved("POLICY.ema_beta", steps=(-0.05, 0.05), low=0.5, high=0.99),
    ),
    Operator(name="adjust_stateful_range", options=_adjust_stateful_range),
    Operator(
        name="scale_gate_sharpness",
        options=moved("POLICY.gate_sharpness", factors=(0.5, 0.7, 1.4, 2)),
    ),
)
