"""The dials a sweep turns: a few numbers that set many knobs of the optimizer together.

One dial may stand for several knobs: all warm-ups, or the betas of every AdamW role. A point is
a value for each dial. Pure functions; the random generator comes in as an argument.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from numpy.random import Generator

from nanochat.contract import Role

__all__ = [
    "DIALS",
    "Dial",
    "Point",
    "Step",
    "Value",
    "knobs_of",
    "mutate",
    "scaled_warmups",
    "start_point",
]

Value = bool | int | float | str
Point = dict[str, Value]

MATRIX_MOMENTA = ("momentum_start", "momentum_peak", "momentum_end")
ADAMW_ROLES = tuple(role.value for role in Role if role is not Role.MATRIX)
SCALAR_ROLES = (Role.RESID_SCALE.value, Role.X0_SCALE.value, Role.MIXING.value)


class Step(StrEnum):
    """How a dial moves."""

    LOG = "log"  # times e^(size · normal)
    LOG_FROM_ONE = "log from one"  # the same for 1 - value: momenta and betas
    INTEGER = "integer"  # plus or minus 1, 2, ...
    LINEAR = "linear"  # plus size · normal
    CHOICE = "choice"  # another of the values


@dataclass(frozen=True, slots=True, kw_only=True)
class Dial:
    """Something to turn: where it starts, how it moves, how far, and the knobs it sets."""

    start: Value
    step: Step
    knobs: tuple[str, ...]
    size: float = 0.0
    low: float = -math.inf
    high: float = math.inf
    values: tuple[Value, ...] = ()


def _adamw(key: str, roles: tuple[str, ...] = ADAMW_ROLES) -> tuple[str, ...]:
    return tuple(f"ADAMW.{role}_{key}" for role in roles)


def _both(key: str) -> tuple[str, ...]:
    return f"SCHEDULE.{key}", f"ADAMW.{key}"


# The starts are the best of 140 short runs of a similar model (2 layers x 64, 400 steps of 1024
# bytes). The learning rates of tables are per width: x (width / 768)^-0.5, 3.46 at width 64.
# Warm-ups stay so short that a run of 8 steps can be made with the same knobs.
DIALS: dict[str, Dial] = {
    "muon_lr": Dial(start=0.035, step=Step.LOG, size=0.2, knobs=("MUON.lr",), low=1e-3, high=0.5),
    "muon_weight_decay": Dial(
        start=0.0, step=Step.LINEAR, size=0.1, knobs=("MUON.weight_decay",), low=0.0, high=2.0
    ),
    "momentum": Dial(
        start=0.884,
        step=Step.LOG_FROM_ONE,
        size=0.25,
        knobs=tuple(f"SCHEDULE.{key}" for key in MATRIX_MOMENTA),
        low=0.5,
        high=0.99,
    ),
    "beta2": Dial(
        start=0.95,
        step=Step.LOG_FROM_ONE,
        size=0.4,
        knobs=("POLICY.beta2",),
        low=0.5,
        high=0.999,
    ),
    "row_equilibration": Dial(
        start=False, step=Step.CHOICE, knobs=("POLICY.row_equilibration",), values=(False, True)
    ),
    "norm_snap": Dial(
        start=True, step=Step.CHOICE, knobs=("POLICY.norm_snap",), values=(False, True)
    ),
    "decay": Dial(
        start="cautious",
        step=Step.CHOICE,
        knobs=("POLICY.decay",),
        values=("decoupled", "cautious"),
    ),
    "warmup_steps": Dial(
        start=5, step=Step.INTEGER, size=1.5, knobs=_both("warmup_steps"), low=1, high=6
    ),
    "warmdown_fraction": Dial(
        start=0.65,
        step=Step.LINEAR,
        size=0.1,
        knobs=_both("warmdown_fraction"),
        low=0.2,
        high=1.0,
    ),
    "final_lr_fraction": Dial(
        start=0.05, step=Step.LOG, size=0.4, knobs=_both("final_lr_fraction"), low=0.01, high=0.3
    ),
    "embedding_lr": Dial(
        start=0.05, step=Step.LOG, size=0.3, knobs=("ADAMW.embedding_lr",), low=1e-3, high=3.0
    ),
    "value_embedding_lr": Dial(
        start=0.05,
        step=Step.LOG,
        size=0.4,
        knobs=("ADAMW.value_embedding_lr",),
        low=1e-3,
        high=3.0,
    ),
    "unembedding_lr": Dial(
        start=0.0033, step=Step.LOG, size=0.3, knobs=("ADAMW.unembedding_lr",), low=1e-4, high=0.3
    ),
    "scalar_lr": Dial(
        start=0.0115, step=Step.LOG, size=0.5, knobs=_adamw("lr", SCALAR_ROLES), low=1e-4, high=1.0
    ),
    "adamw_beta1": Dial(
        start=0.823, step=Step.LOG_FROM_ONE, size=0.3, knobs=_adamw("beta1"), low=0.5, high=0.99
    ),
    "adamw_beta2": Dial(
        start=0.9906, step=Step.LOG_FROM_ONE, size=0.5, knobs=_adamw("beta2"), low=0.9, high=0.9999
    ),
    "adamw_weight_decay": Dial(
        start=0.0, step=Step.LINEAR, size=0.02, knobs=_adamw("weight_decay"), low=0.0, high=0.5
    ),
    "adamw_eps": Dial(
        start=1e-10,
        step=Step.LOG,
        size=2.0,
        knobs=("ADAMW.eps_start", "ADAMW.eps_end"),
        low=1e-12,
        high=1e-5,
    ),
}


def start_point() -> Point:
    """Set every dial to where a sweep starts."""
    return {name: dial.start for name, dial in DIALS.items()}


def knobs_of(point: Mapping[str, Value]) -> dict[str, Value]:
    """Name the value of every knob that the dials of a point set."""
    return {knob: value for name, value in point.items() for knob in DIALS[name].knobs}


def scaled_warmups(total_steps: int) -> dict[str, Value]:
    """Name the lengths of warm-ups that no dial turns on, in proportion to the horizon.

    At every point of a sweep they are without effect: momentum, blend and beta2 are constant. The
    shipped 400 to 500 steps are meant for long runs; whoever turns a warm-up on at a short horizon
    should find it ending before the run does. The shares are those that helped a similar model
    (150 and 200 of 400 steps).
    """
    return {
        "SCHEDULE.momentum_warmup_steps": total_steps * 3 // 8,
        "SCHEDULE.nesterov_blend_steps": total_steps // 2,
        "SCHEDULE.beta2_warmup_steps": total_steps // 2,
    }


def mutate(point: Point, rng: Generator) -> Point:
    """Turn one to three dials of a point at random; at least one of them changes."""
    changed = dict(point)
    while changed == point:
        names = rng.choice(sorted(DIALS), size=rng.integers(1, 4), replace=False)
        for name in map(str, names):
            changed[name] = _turn(DIALS[name], changed[name], rng)
    return changed


def _turn(dial: Dial, value: Value, rng: Generator) -> Value:
    if dial.step is Step.CHOICE:
        others = [other for other in dial.values if other != value]
        return others[int(rng.integers(len(others)))]
    number = float(value)
    move = dial.size * float(rng.standard_normal())
    if dial.step is Step.LOG:
        number *= math.exp(move)
    elif dial.step is Step.LOG_FROM_ONE:
        number = 1.0 - (1.0 - number) * math.exp(move)
    else:
        number += move
    number = min(max(number, dial.low), dial.high)
    # Four digits are all that can matter, and keep the records readable.
    return round(number) if dial.step is Step.INTEGER else float(f"{number:.4g}")
