"""What an operator is: a name and the changes of knobs it would make."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.operators.tables import Tables
from sandbox.knobs import Value, set_knobs

__all__ = ["Changes", "Operator", "moved"]

Changes = Mapping[str, Value]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """A bounded mutation of one aspect of a program.

    `options` lists the changes the operator could make to the given tables. The first knob of a
    change is its aspect, further ones are set along with it. A change counts only if it may be
    made, alters its first knob, and that knob acts in the program. An operator that turns on what
    its knob needs in order to act is a `switch`: for it, it is enough that the rule which reads
    the knob is in use.
    """

    name: str
    options: Callable[[Tables, random.Random], Sequence[Changes]]
    is_switch: bool = False

    def is_live(self, tables: Tables) -> bool:
        """Return whether the operator would change what the program does."""
        # Which options there are never depends on the draw, only how far the continuous ones go.
        return bool(self._effective(tables, random.Random(0)))  # noqa: S311 (no secret)

    def changes(self, tables: Tables, rng: random.Random) -> list[Changes]:
        """Return the changes in random order; none where the operator is not live."""
        effective = self._effective(tables, rng)
        rng.shuffle(effective)
        return effective

    def apply(self, source: str, scopes: frozenset[str], rng: random.Random) -> str | None:
        """Return the program with one of the changes; None where the operator is not live."""
        changes = self.changes(Tables.read(source, scopes), rng)
        return set_knobs(source, changes[0]) if changes else None

    def _effective(self, tables: Tables, rng: random.Random) -> list[Changes]:
        return [
            changes
            for changes in self.options(tables, rng)
            if all(tables.may_change(name) for name in changes)
            and tables.value(aspect := next(iter(changes))) != changes[aspect]
            and (tables.has_rule(aspect) if self.is_switch else tables.is_used(aspect))
        ]


def moved(
    name: str,
    *,
    steps: Sequence[float] = (),
    factors: Sequence[float] = (),
    low: float = float("-inf"),
    high: float = float("inf"),
) -> Callable[[Tables, random.Random], list[Changes]]:
    """Return options that add each of `steps` to a knob, or multiply it by each of `factors`.

    `low` and `high` narrow the knob's own bounds. A value that is already outside them may come
    back but goes no further.
    """

    def options(tables: Tables, rng: random.Random) -> list[Changes]:  # noqa: ARG001 (nothing to draw)
        if not tables.may_change(name):
            return []
        now = tables.number(name)
        targets = [*(now + step for step in steps), *(now * factor for factor in factors)]
        held = [max(min(low, now), min(max(high, now), target)) for target in targets]
        return [{name: tables.within(name, target)} for target in held]

    return options
