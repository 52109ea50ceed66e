"""Show a comparison under way: a live table on a terminal, one line for each pair elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.compare_report import describe_effect
from agent.duel import Duel, Pair
from agent.evaluations import EvaluatorPool
from agent.words import counted
from sandbox.executor import PoolError
from sandbox.protocol import clean_text

__all__ = ["Progress", "describe_pair", "shown"]

logger = logging.getLogger(__name__)

REFRESHES_PER_S = 4
SHOWN_PAIRS = 8


class Progress:
    """What there is to see of a comparison at the moment it is drawn.

    Attributes:
        duel: what is known; None before the first pair.
    """

    def __init__(self, pool: EvaluatorPool, max_pairs: int) -> None:
        self.duel: Duel | None = None
        self._pool = pool
        self._max_pairs = max_pairs

    def __rich__(self) -> RenderableType:
        rows: list[RenderableType] = [Text(self._headline(), style="bold")]
        if self.duel is not None:
            numbered = list(enumerate(self.duel.pairs, start=1))
            rows += [Text(describe_pair(*pair)) for pair in numbered[-SHOWN_PAIRS:]]
        table = Table.grid(padding=(0, 2))
        for run in self._pool.running():
            where = f"step {run.step} of {run.job.steps}"
            table.add_row(Text(clean_text(run.job.source_name)), f"seed {run.job.seed}", where)
        return Group(*rows, table)

    def _headline(self) -> str:
        if self.duel is None or self.duel.effect is None:
            try:
                return f"comparing at sandbox level S{self._pool.ready.sandbox_level}, no pair yet"
            except PoolError:
                return "starting workers: they import torch and try out their own sandbox"
        done = counted(len(self.duel.pairs), "pair")
        return f"{done} of at most {self._max_pairs}: A - B {describe_effect(self.duel.effect)}"


def describe_pair(number: int, pair: Pair) -> str:
    """Write a pair in one line."""
    halves = (("A", pair.candidate), ("B", pair.incumbent))
    words = ", ".join(
        f"{letter} {run.status}: {run.reason}" if run.bpb is None else f"{letter} {run.bpb:.4f}"
        for letter, run in halves
    )
    difference = "" if pair.difference is None else f", A - B {pair.difference:+.4f}"
    return clean_text(f"pair {number}, seed {pair.seed}: {words}{difference}")


@contextmanager
def shown(progress: Progress) -> Iterator[Callable[[Duel], None]]:
    """Show progress on standard error while inside; give what is to be told of every pair."""
    console = Console(stderr=True)

    def note(duel: Duel) -> None:
        progress.duel = duel
        if not console.is_terminal:
            so_far = "" if duel.effect is None else f"; so far {describe_effect(duel.effect)}"
            logger.info("%s%s", describe_pair(len(duel.pairs), duel.pairs[-1]), so_far)

    if not console.is_terminal:
        yield note
        return
    with Live(progress, console=console, refresh_per_second=REFRESHES_PER_S, transient=True):
        yield note
