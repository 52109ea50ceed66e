"""Show a leaderboard: for people, and as JSON for machines."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.compare_report import describe_effect
from agent.leaderboard.record import ANCHOR, Leaderboard
from agent.leaderboard.standings import Standing, standings
from sandbox.protocol import clean_text

__all__ = ["as_json", "print_board"]


def print_board(console: Console, board: Leaderboard) -> None:
    """Print the standings, what they rest on and the command that made them."""
    settings, budget = board.settings, board.budget
    console.print(
        Text(
            clean_text(
                f"Profile {settings['profile']}, {settings['steps']} steps, search text of "
                f"{settings['corpus']}, {settings['device']}: {len(board.seeds)} seeds that "
                "chose nothing, the same for all"
            ),
            style="bold",
        ),
        soft_wrap=True,
    )
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column, justify in _COLUMNS:
        table.add_column(column, justify=justify, no_wrap=True)
    for standing in standings(board.entries, ANCHOR):
        table.add_row(*map(clean_text, _row(standing)))
    console.print(table)
    console.print(
        f"Each but {ANCHOR} was tuned by {budget['method']}: {budget['trials']} trials on "
        f"{budget['search_seeds']} seeds, the best 3 on {budget['choice_seeds']} others. {ANCHOR} "
        "is what runs start from, with a sweep of its own. The intervals hold with 95 % all "
        "together, and so do the ranks.",
        soft_wrap=True,
    )
    console.print(Text(f"Measured {board.date} by: {clean_text(board.command)}"), soft_wrap=True)


def as_json(board: Leaderboard) -> str:
    """Write the standings with everything they rest on as one JSON object."""
    rows = [_fields(standing) for standing in standings(board.entries, ANCHOR)]
    head = {name: value for name, value in asdict(board).items() if name != "entries"}
    return json.dumps({**head, "anchor": ANCHOR, "standings": rows}, indent=2) + "\n"


_COLUMNS: tuple[tuple[str, Any], ...] = (
    ("rank", "left"),
    ("optimizer", "left"),
    ("bpb", "right"),
    (f"minus {ANCHOR}", "left"),
    ("untuned", "right"),
    ("CPU", "right"),
    ("tuning", "left"),
)


def _row(standing: Standing) -> tuple[str, ...]:
    entry = standing.entry
    first, last = standing.best_rank, standing.worst_rank
    own = entry.own_mean_bpb
    return (
        str(first) if first == last else f"{first}-{last}",
        entry.name,
        _score(entry.mean_bpb),
        "" if standing.effect is None else describe_effect(standing.effect),
        "" if own is None else _score(own),
        f"{standing.cpu_ratio:.2f}",
        entry.tuning,
    )


def _score(bpb: float) -> str:
    return f"{bpb:.4f}" if math.isfinite(bpb) else "failed"


def _fields(standing: Standing) -> dict[str, Any]:
    entry, effect = standing.entry, standing.effect
    own = entry.own_mean_bpb
    return {
        **asdict(entry),
        "mean_bpb": entry.mean_bpb if math.isfinite(entry.mean_bpb) else None,
        "own_mean_bpb": own if own is not None and math.isfinite(own) else None,
        "ranks": [standing.best_rank, standing.worst_rank],
        "difference_bpb": None if effect is None else effect.mean,
        "interval_bpb": None if effect is None else [effect.low, effect.high],
        "cpu_ratio": standing.cpu_ratio if math.isfinite(standing.cpu_ratio) else None,
    }
