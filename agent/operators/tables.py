"""The knobs of one program as an operator sees them: values, bounds, what may change, what acts.

Most knobs matter only while others have certain values: a clip threshold does nothing when
nothing is clipped. `is_used` knows these conditions for the shipped file, so that no training run
is spent on a change without an effect. A knob it does not know, such as one a model added, counts
as used.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from sandbox.knobs import Bounds, Knob, Value, read_knobs

__all__ = ["ACTUATORS", "SENSORS", "Tables"]

SENSORS = ("loss", "improvement", "grad_norm", "update_ratio", "alignment", "step_fraction")
ACTUATORS = ("update_multiplier", "trust_ratio_mix", "orthogonal_mix", "clip_threshold", "beta2")
_MATRIX_TABLES = frozenset({"POLICY", "MUON", "SCHEDULE"})
SIGNIFICANT_DIGITS = 4  # of a value written by an operator; more would not survive seed noise


@dataclass(frozen=True, slots=True)
class Tables:
    """The knobs of a program and the regions that may change."""

    knobs: Mapping[str, Knob]
    scopes: frozenset[str]
    has_matrix_rule: bool = True  # whether any parameter follows the rule for matrices

    @classmethod
    def read(cls, source: str, scopes: frozenset[str]) -> Tables:
        """Read the tables of `source`.

        Raises:
            SourceError, RegionError, KnobError: they cannot be read.
        """
        knobs = read_knobs(source)
        routes = [knob.value for name, knob in knobs.items() if name.startswith("ROUTES.")]
        return cls(knobs, scopes, not routes or "muon" in routes)

    def value(self, name: str) -> Value | None:
        """Return what a knob is set to; None where the program has no such knob."""
        knob = self.knobs.get(name)
        return None if knob is None else knob.value

    def number(self, name: str) -> float:
        """Return a numeric knob's value; 0 where the program has no such knob."""
        value = self.value(name)
        return 0.0 if value is None or isinstance(value, str) else float(value)

    def may_change(self, name: str) -> bool:
        """Return whether the knob exists, has bounds, and lies in a region that may change."""
        knob = self.knobs.get(name)
        return knob is not None and knob.bounds is not None and knob.region in self.scopes

    def within(self, name: str, number: float) -> Value:
        """Return the value closest to `number` that the knob may have, rounded to be readable."""
        bounds = self.knobs[name].bounds
        if not isinstance(bounds, Bounds):
            raise TypeError(f"{name} is not a number: {bounds}")
        held = max(bounds.low, min(bounds.high, number))
        if bounds.scale == "integer":
            return round(held)
        return float(f"{held:.{SIGNIFICANT_DIGITS}g}") if math.isfinite(held) else bounds.high

    def is_used(self, name: str) -> bool:
        """Return whether changing this knob alone can change what the program does."""
        table, _, key = name.partition(".")
        if not self.has_rule(name):
            return False
        if table == "ADAMW":
            return self._is_adamw_used(key)
        condition = _CONDITIONS.get(name)
        if condition is not None:
            return condition(self)
        actuator = next((a for a in ACTUATORS if name in poles(a)), None)
        return actuator is None or (self.is_on("POLICY.control") and self._can_turn(actuator))

    def has_rule(self, name: str) -> bool:
        """Return whether any parameter follows the rule that reads the knob."""
        return self.has_matrix_rule or name.partition(".")[0] not in _MATRIX_TABLES

    def is_on(self, name: str) -> bool:
        """Return whether a switch is set: not False and not "none"."""
        return self.value(name) not in {False, "none", None}

    def has_acting_gate(self) -> bool:
        """Return whether the gate is on and some actuator in use differs between its poles."""
        return self.is_on("POLICY.control") and any(
            self._can_turn(a) and self.number(poles(a)[0]) != self.number(poles(a)[1])
            for a in ACTUATORS
        )

    def has_weight(self, sensors: tuple[str, ...] = SENSORS) -> bool:
        """Return whether the gate listens to any of `sensors`."""
        return any(self.number(f"POLICY.gate_{sensor}") != 0.0 for sensor in sensors)

    def _can_turn(self, actuator: str) -> bool:
        """Return whether the factor that an actuator acts on is part of the rule."""
        factor = _FACTOR_OF.get(actuator)
        return factor is None or self.is_on(factor)

    def _is_adamw_used(self, key: str) -> bool:
        conditions = {
            "beta_warmup_steps": self.number("ADAMW.beta1_start_offset") != 0.0
            or self.number("ADAMW.beta2_start_offset") != 0.0,
            "beta1_start_offset": self.number("ADAMW.beta_warmup_steps") > 0,
            "beta2_start_offset": self.number("ADAMW.beta_warmup_steps") > 0,
            "final_lr_fraction": self.number("ADAMW.warmdown_fraction") > 0,
        }
        if key in conditions:
            return conditions[key]
        roles = [name.partition(".")[2] for name in self.knobs if name.startswith("ROUTES.")]
        role = max((r for r in roles if key.startswith(f"{r}_")), key=len, default=None)
        return role is None or self.value(f"ROUTES.{role}") == "adamw"


def poles(actuator: str) -> tuple[str, str]:
    """Return the full names of an actuator's aggressive and conservative knob."""
    return f"POLICY.{actuator}_aggressive", f"POLICY.{actuator}_conservative"


# The switch of the factor that an actuator needs; the update multiplier needs none.
_FACTOR_OF = {
    "trust_ratio_mix": "POLICY.trust_ratio",
    "orthogonal_mix": "POLICY.orthogonalization",
    "clip_threshold": "POLICY.clip",
    "beta2": "POLICY.second_moment",
}


def _has_warm_momentum(t: Tables) -> bool:
    return t.number("SCHEDULE.momentum_start") != t.number("SCHEDULE.momentum_peak")


def _has_scheduled_blend(t: Tables) -> bool:
    return t.is_on("POLICY.nesterov") and t.value("SCHEDULE.nesterov_blend") == "scheduled"


def _has_warm_beta2(t: Tables) -> bool:
    return t.is_on("POLICY.second_moment") and t.is_on("SCHEDULE.beta2_warmup")


def _has_trust(t: Tables) -> bool:
    return t.is_on("POLICY.trust_ratio") and _trust_can_act(t)


def _trust_can_act(t: Tables) -> bool:
    mixes = [t.number(name) for name in poles("trust_ratio_mix")]
    return not t.is_on("POLICY.control") or any(mixes)


def _has_orthogonalization(t: Tables) -> bool:
    mixes = [t.number(name) for name in poles("orthogonal_mix")]
    is_mixed_in = not t.is_on("POLICY.control") or any(mixes)
    return t.is_on("POLICY.orthogonalization") and is_mixed_in


def _decays(t: Tables) -> bool:
    return t.number("MUON.weight_decay") > 0.0


def _has_gate(t: Tables) -> bool:
    return t.has_acting_gate()


def _normalizes(sensor: str) -> Callable[[Tables], bool]:
    return lambda t: t.has_acting_gate() and t.has_weight((sensor,))


# Knob -> whether it acts, beside the poles of the actuators and the table ADAMW.
_CONDITIONS: Mapping[str, Callable[[Tables], bool]] = {
    "SCHEDULE.final_lr_fraction": lambda t: t.number("SCHEDULE.warmdown_fraction") > 0,
    "SCHEDULE.momentum_start": lambda t: t.number("SCHEDULE.momentum_warmup_steps") > 0,
    "SCHEDULE.momentum_warmup_steps": _has_warm_momentum,
    "SCHEDULE.momentum_end": lambda t: t.number("SCHEDULE.warmdown_fraction") > 0,
    "SCHEDULE.nesterov_blend": lambda t: t.is_on("POLICY.nesterov"),
    "SCHEDULE.nesterov_blend_start": lambda t: (
        _has_scheduled_blend(t) and t.number("SCHEDULE.nesterov_blend_steps") > 0
    ),
    "SCHEDULE.nesterov_blend_end": _has_scheduled_blend,
    "SCHEDULE.nesterov_blend_steps": lambda t: (
        _has_scheduled_blend(t)
        and t.number("SCHEDULE.nesterov_blend_start") != t.number("SCHEDULE.nesterov_blend_end")
    ),
    "SCHEDULE.beta2_warmup": lambda t: (
        t.is_on("POLICY.second_moment") and t.number("SCHEDULE.beta2_warmup_steps") > 0
    ),
    "SCHEDULE.beta2_start": lambda t: (
        _has_warm_beta2(t) and t.number("SCHEDULE.beta2_warmup_steps") > 0
    ),
    "SCHEDULE.beta2_warmup_steps": _has_warm_beta2,
    "SCHEDULE.weight_decay_shape": lambda t: t.is_on("POLICY.decay") and _decays(t),
    "MUON.weight_decay": lambda t: t.is_on("POLICY.decay"),
    "POLICY.decay": _decays,
    # Averaging over time commutes with doing nothing.
    "POLICY.momentum_placement": lambda t: any(
        t.is_on(f"POLICY.{factor}")
        for factor in ("orthogonalization", "row_equilibration", "norm_snap")
    ),
    "POLICY.orthogonalization": lambda t: (
        not t.is_on("POLICY.control") or any(t.number(name) for name in poles("orthogonal_mix"))
    ),
    "POLICY.ns_steps": _has_orthogonalization,
    "POLICY.trust_ratio": _trust_can_act,
    "POLICY.trust_clamp_min": _has_trust,
    "POLICY.trust_clamp_max": _has_trust,
    "POLICY.trust_eps": lambda _: False,  # far below any norm: changing it changes rounding only
    "POLICY.second_moment_eps": lambda _: False,
    "POLICY.clip_threshold": lambda t: (
        t.is_on("POLICY.clip") and not t.is_on("POLICY.control")  # the actuator replaces it
    ),
    "POLICY.beta2": lambda t: (
        t.is_on("POLICY.second_moment") and not t.is_on("POLICY.control")  # likewise
    ),
    "POLICY.tail_ema_horizon": lambda t: t.number("POLICY.tail_ema_mix") > 0,
    "POLICY.tail_ema_mix": lambda t: t.number("POLICY.tail_ema_horizon") > 0,
    "POLICY.ema_beta": lambda t: t.has_acting_gate() and t.has_weight(SENSORS[:-1]),
    "POLICY.gate_bias": _has_gate,
    "POLICY.gate_sharpness": lambda t: (
        t.has_acting_gate() and (t.has_weight() or t.number("POLICY.gate_bias") != 0.0)
    ),
    **{f"POLICY.gate_{sensor}": _has_gate for sensor in SENSORS},
    **{f"POLICY.{sensor}_normalizer": _normalizes(sensor) for sensor in SENSORS[:4]},
}
