"""Variants of a program by its declared constants: learning rates scaled, the gate held still.

Programs are text and stay text: the tables of constants are read from the syntax tree.
"""

from __future__ import annotations

from sandbox.knobs import Bounds, Knob, read_knobs, set_knobs
from sandbox.line_error import LineError

__all__ = ["Gate", "gate_of", "learning_rates", "neutral_edit", "with_gate_held", "with_rates"]

CONTROL = "POLICY.control"
SENSORS = (
    "POLICY.gate_loss",
    "POLICY.gate_improvement",
    "POLICY.gate_grad_norm",
    "POLICY.gate_update_ratio",
    "POLICY.gate_alignment",
    "POLICY.gate_step_fraction",
)

Gate = dict[str, float]
"""The weights of the sensors that a gate listens to, by the names of their knobs."""


def learning_rates(source: str) -> tuple[str, ...]:
    """Name the knobs that are learning rates; none where the tables cannot be read."""
    return tuple(name for name, knob in _knobs(source).items() if _is_rate(name, knob))


def with_rates(source: str, factor: float) -> str:
    """Multiply every learning rate of a program, within the bounds of each."""
    knobs = _knobs(source)
    scaled = {
        name: _within(float(knobs[name].value) * factor, knobs[name])
        for name in learning_rates(source)
    }
    return source if factor == 1.0 else set_knobs(source, scaled)


def gate_of(source: str) -> Gate | None:
    """Return what a program's gate listens to; None where it has none, or it is switched off."""
    knobs = _knobs(source)
    control = knobs.get(CONTROL)
    if control is None or control.value is not True:
        return None
    weights = {name: float(knobs[name].value) for name in SENSORS if name in knobs}
    return {name: weight for name, weight in weights.items() if weight != 0.0}


def with_gate_held(source: str) -> str:
    """Make a program's gate deaf: it stays at the value its bias gives it."""
    return set_knobs(source, dict.fromkeys(gate_of(source) or {}, 0.0))


def neutral_edit(source: str) -> str:
    """Change a program's text and nothing of what it does."""
    return source.rstrip("\n") + "\n\n# nothing else\n"


def _knobs(source: str) -> dict[str, Knob]:
    try:
        return dict(read_knobs(source))
    except LineError:
        return {}


def _is_rate(name: str, knob: Knob) -> bool:
    is_number = isinstance(knob.value, float | int) and not isinstance(knob.value, bool)
    return is_number and (name.endswith((".lr", "_lr")))


def _within(value: float, knob: Knob) -> float:
    if isinstance(knob.bounds, Bounds):
        value = min(max(value, knob.bounds.low), knob.bounds.high)
    return float(f"{value:.6g}")  # as a person would write it
