"""Take knobs of a second program over into the first."""

from __future__ import annotations

import random

from agent.operators.operator import Changes
from agent.operators.tables import Tables

__all__ = ["cross"]


def cross(first: Tables, second: Tables, rng: random.Random) -> Changes | None:
    """Return what the first program would take over from the second.

    One time in two that is a whole table, otherwise each differing knob with probability 1/2.

    Returns:
        The changes to the first program; None where the two have nothing to exchange.
    """
    differing = {
        name: theirs.value
        for name, theirs in second.knobs.items()
        if first.may_change(name) and theirs.value != first.value(name)
    }
    if not differing:
        return None
    tables = sorted({name.partition(".")[0] for name in differing})
    if rng.random() < 0.5:  # noqa: PLR2004 (a fair coin)
        table = rng.choice(tables)
        return {n: value for n, value in differing.items() if n.startswith(f"{table}.")}
    taken = {name: value for name, value in differing.items() if rng.random() < 0.5}  # noqa: PLR2004 (likewise)
    if taken:
        return taken
    name = rng.choice(list(differing))
    return {name: differing[name]}
