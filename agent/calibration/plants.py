"""Programs whose worth is known, to see what the judge makes of them.

Every plant is a pair of texts: the program a run starts from, and the one candidate it is shown.

* *same*: the very same text, or one that only looks different. The second kind has new names,
  another order of independent statements, a factor of 1, or other rounding errors; nothing it
  does can help. There are few of these and they come out alike, so they test the pipeline and
  measure no rate.
* *chance*: both multiply the learning rate of the matrices at each step by a factor drawn at
  random, the one from every first number of the generator, the other from every k-th. The factors
  of both are independent with the same distribution, so the expected difference is exactly zero,
  while the difference of a pair is about as noisy as that of a real change. With another k for
  every trial this is the A/A comparison that measures how often luck is promoted.
* *gain*: the run starts from the tuned program with one knob moved off its place, the candidate
  puts it back. How much that is worth is measured, on seeds of its own.
* *bad*: optimizers that are clearly wrong.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sandbox.knobs import read_knobs, set_knobs

__all__ = ["Kind", "Plant", "PlantError", "bad", "chance", "gains", "same"]

# Lines of the optimizer file that plants edit.
LR_LINE = "        lr=MUON.lr * lr_fraction,\n"
BEFORE = "    before = power.sum(dim=(-2, -1), keepdim=True)\n"
AFTER = "    after = (power * scale.square()).sum(dim=(-2, -1), keepdim=True)\n"
FALL = "float(risen + (end - risen) * falling)"

# The learning rate's factor is uniform between .5 and 1.5: enough for differences as noisy as
# those of moving it by a fifth.
LEAST_FACTOR = 0.5

# By what the learning rate of the matrices is multiplied in the program that runs start from.
GAIN_FACTORS = (0.9, 0.8, 0.7)


class PlantError(ValueError):
    """A program does not have the text that a plant is made from."""


class Kind(StrEnum):
    """What is known of a candidate."""

    SAME = "same"
    CHANCE = "chance"
    GAIN = "gain"
    BAD = "bad"


@dataclass(frozen=True, slots=True, kw_only=True)
class Plant:
    """A program that a run starts from and the candidate it is shown."""

    name: str
    kind: Kind
    incumbent: str
    candidate: str


def chance(tuned: str, trial: int) -> Plant:
    """Return candidate number `trial`, from 0, that differs from its incumbent by luck alone.

    Raises:
        PlantError: the program has no such learning rate.
    """
    return Plant(
        name="same but for luck",
        kind=Kind.CHANCE,
        incumbent=_dithered(tuned, 1),
        candidate=_dithered(tuned, 2 + trial),
    )


def same(tuned: str) -> tuple[Plant, ...]:
    """Return candidates that do what their incumbent does.

    Raises:
        PlantError: the program lacks a line that one of them edits.
    """
    edits = {
        "identical": (),
        "renamed": (
            ("    risen = low + (peak - low)", "    climbed = low + (peak - low)"),
            (
                "float(risen + (end - risen) * falling)",
                "float(climbed + (end - climbed) * falling)",
            ),
        ),
        "reordered": ((BEFORE + AFTER, AFTER + BEFORE),),
        "times one": ((LR_LINE, "        lr=MUON.lr * lr_fraction * 1.0,\n"),),
        "rounded otherwise": (
            (
                "    y = x / (frobenius(x) * 1.01 + 1e-6)\n",
                "    y = x * (1.0 / (frobenius(x) * 1.01 + 1e-6))\n",
            ),
        ),
    }
    return tuple(
        Plant(name=name, kind=Kind.SAME, incumbent=tuned, candidate=_edited(tuned, pieces))
        for name, pieces in edits.items()
    )


def gains(tuned: str) -> tuple[Plant, ...]:
    """Return candidates that are better than their incumbent, from the smallest gain on."""
    lr = _number(tuned, "MUON.lr")
    return tuple(
        Plant(
            name=f"lr back from x{factor:g}",
            kind=Kind.GAIN,
            incumbent=set_knobs(tuned, {"MUON.lr": lr * factor}),
            candidate=tuned,
        )
        for factor in GAIN_FACTORS
    )


def bad(tuned: str) -> tuple[Plant, ...]:
    """Return candidates that no judge may let through.

    Raises:
        PlantError: the program lacks a line that one of them edits.
    """
    lr = _number(tuned, "MUON.lr")
    makers: Mapping[str, Callable[[], str]] = {
        "uphill": lambda: _edited(tuned, ((LR_LINE, "        lr=-MUON.lr * lr_fraction,\n"),)),
        "lr x5": lambda: set_knobs(tuned, {"MUON.lr": min(0.5, lr * 5.0)}),
        "lr x0.1": lambda: set_knobs(tuned, {"MUON.lr": lr * 0.1}),
        "one iteration": lambda: set_knobs(tuned, {"POLICY.ns_steps": 1}),
        "not orthogonal": lambda: set_knobs(tuned, {"POLICY.orthogonalization": "none"}),
        "matrices stand still": lambda: _edited(tuned, ((LR_LINE, "        lr=0.0,\n"),)),
    }
    return tuple(
        Plant(name=name, kind=Kind.BAD, incumbent=tuned, candidate=make())
        for name, make in makers.items()
    )


def _dithered(tuned: str, every: int) -> str:
    factor = f"({LEAST_FACTOR} + float(torch.rand({every})[-1]))"
    return _edited(tuned, ((LR_LINE, f"        lr=MUON.lr * lr_fraction * {factor},\n"),))


def _edited(source: str, pieces: tuple[tuple[str, str], ...]) -> str:
    for old, new in pieces:
        if source.count(old) != 1:
            raise PlantError(
                f"the program has {source.count(old)} times the text {old.strip()!r}, expected once"
            )
        source = source.replace(old, new)
    return source


def _number(source: str, knob: str) -> float:
    knobs = read_knobs(source)
    if knob not in knobs:
        raise PlantError(f"the program declares no knob {knob}")
    return float(knobs[knob].value)
