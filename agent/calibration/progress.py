"""Show how far a long calibration is: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from agent.output import say

__all__ = ["counting"]

Told = Callable[[int, int, str], None]

LINES = 25  # that a long calibration leaves in a log


@contextmanager
def counting(noun: str) -> Iterator[Told]:
    """Give what is to be told how many of how many are done, and what was done last."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield _in_lines(noun)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[last]}", markup=False),
    )
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task(noun, total=None, last="")

        def tell(done: int, total: int, last: str) -> None:
            bar.update(task, completed=done, total=total, last=last)

        yield tell


def _in_lines(noun: str) -> Told:
    def tell(done: int, total: int, last: str) -> None:
        if done == total or done % math.ceil(total / LINES) == 0:
            say(f"{done} of {total} {noun}{': ' if last else ''}{last}")

    return tell
