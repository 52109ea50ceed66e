"""Operators that switch a factor of the matrix rule on, off, or to another kind."""

from __future__ import annotations

import math
import random

from agent.operators.operator import Changes, Operator
from agent.operators.tables import Tables, poles
from sandbox.knobs import Choice, Value

__all__ = ["OPERATORS"]

# In units of an orthogonal update, whose rows have the mean RMS 1: a limit from 1 up need not meet
# any row, nor the norm of all updates where the norm snap fixes it. The predecessor's 1.0 and 2.5
# were in other units.
UPDATE_RMS_THRESHOLD = 0.9
GLOBAL_NORM_THRESHOLD = 0.8


def _flip(name: str, knob: str) -> Operator:
    """Return the operator that gives `knob` any other of its values."""

    def options(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
        bounds = tables.knobs[knob].bounds if knob in tables.knobs else None
        return [{knob: value} for value in bounds.values] if isinstance(bounds, Choice) else []

    return Operator(name=name, options=options)


def _toggle_trust_ratio(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    if tables.is_on("POLICY.trust_ratio"):
        return [{"POLICY.trust_ratio": "none"}]
    return [
        {
            "POLICY.trust_ratio": "layerwise",
            "POLICY.trust_clamp_min": 0.5,
            "POLICY.trust_clamp_max": 1.5,
        }
    ]


def _toggle_clip_policy(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    """Go none -> update_rms -> global_norm -> none, leaving out a limit that could not act."""
    mode = tables.value("POLICY.clip")
    if mode == "none":
        acts = _acting_threshold(tables, UPDATE_RMS_THRESHOLD) < 1.0
        return [_clip("update_rms", UPDATE_RMS_THRESHOLD)] if acts else []
    if mode == "update_rms" and _global_norm_can_act(tables):
        return [_clip("global_norm", GLOBAL_NORM_THRESHOLD)]
    return [{"POLICY.clip": "none"}]


def _clip(mode: Value, threshold: float) -> Changes:
    return {"POLICY.clip": mode, "POLICY.clip_threshold": threshold}


def _acting_threshold(tables: Tables, own: float) -> float:
    """Return the threshold that would count, in units of the update.

    Under control that is what a half-open gate gives. An update that nothing scales has the
    gradient's size, which no threshold for orthogonal updates meets.
    """
    if not (tables.is_on("POLICY.orthogonalization") or tables.is_on("POLICY.norm_snap")):
        return math.inf
    if not tables.is_on("POLICY.control"):
        return own
    return sum(tables.number(name) for name in poles("clip_threshold")) / 2


def _global_norm_can_act(tables: Tables) -> bool:
    threshold = _acting_threshold(tables, GLOBAL_NORM_THRESHOLD)
    return threshold < 1.0 or (tables.is_on("POLICY.trust_ratio") and threshold < math.inf)


def _toggle_decay_mode(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    following = {"cautious": "decoupled", "decoupled": "none", "none": "cautious"}
    mode = tables.value("POLICY.decay")
    return (
        [{"POLICY.decay": following[mode]}] if isinstance(mode, str) and mode in following else []
    )


def _switch_route(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
    return [
        {name: value}
        for name, knob in tables.knobs.items()
        if name.startswith("ROUTES.") and isinstance(knob.bounds, Choice)
        for value in knob.bounds.values
    ]


OPERATORS = (
    _flip("toggle_momentum_placement", "POLICY.momentum_placement"),
    Operator(name="toggle_trust_ratio", options=_toggle_trust_ratio),
    Operator(name="toggle_clip_policy", options=_toggle_clip_policy),
    Operator(name="toggle_decay_mode", options=_toggle_decay_mode),
    _flip("toggle_nesterov", "POLICY.nesterov"),
    _flip("toggle_orthogonalization", "POLICY.orthogonalization"),
    _flip("toggle_row_equilibration", "POLICY.row_equilibration"),
    _flip("toggle_norm_snap", "POLICY.norm_snap"),
    _flip("toggle_second_moment", "POLICY.second_moment"),
    _flip("toggle_lr_aspect_scale", "POLICY.lr_aspect_scale"),
    Operator(name="switch_route", options=_switch_route),
)
