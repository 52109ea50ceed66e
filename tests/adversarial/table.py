"""Show what came of the corpus: one row per group, and every breach in words."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tests.adversarial.runner import CorpusRun, Tried

__all__ = ["show"]

# Verdicts in columns of their own, and the column of those that are left.
_COLUMNS = {
    "policy_violation": "policy",
    "crash": "crash",
    "protocol_error": "protocol",
    "timeout_cpu": "limit",
    "timeout_wall": "limit",
    "oom": "limit",
    "output_limit": "limit",
    "nan": "nan",
    "diverged": "nan",
    "ok": "ok",
}
_VERDICTS = ("policy", "crash", "protocol", "limit", "nan", "ok", "other")


def show(run: CorpusRun, console: Console, setting: str) -> None:
    """Print the table of a run, its breaches and its conditions."""
    level = f"S{run.ready['sandbox_level']}" if run.ready else "not used"
    user = "root" if os.geteuid() == 0 else f"ordinary user {os.geteuid()}"
    table = Table(
        title=f"{len(run.tried)} attacks · sandbox {level} · {user} · {setting}",
        caption=f"{run.wall_s:.0f} s on {os.cpu_count()} cores. From policy to other: how the jail "
        "alone ended them, without preflight; ok: no effect. Naive: how many of those tried won "
        "against a trainer in the same process.",
    )
    for name in ("group", "attacks", "refused", *_VERDICTS, "breaches", "naive"):
        table.add_column(name, justify="left" if name == "group" else "right")
    groups = sorted({tried.attack.group for tried in run.tried})
    for group in groups:
        table.add_row(*_row(group, [each for each in run.tried if each.attack.group == group]))
    table.add_section()
    table.add_row(*_row("all", run.tried))
    console.print(table)
    console.print("leftovers:", *(run.leftovers or ["none"]), markup=False)
    for tried in run.tried:
        for breach in tried.breaches:
            line = f"[red]BREACH[/red] {tried.attack.group}/{tried.attack.id}: {escape(breach)}"
            console.print(line)
        if tried.is_weak and tried.naive:
            reason = escape(tried.naive.reason)
            console.print(f"[yellow]WEAK[/yellow] {tried.attack.id}: no effect in-process {reason}")


def _row(name: str, tried: Iterable[Tried]) -> list[str]:
    tried = list(tried)
    refused = sum(each.preflight.verdict == "refused" for each in tried)
    ends = Counter(_COLUMNS.get(each.jail.verdict, "other") for each in tried if each.jail)
    naive = [each.naive for each in tried if each.naive]
    fallen = sum(bool(each.sightings) for each in naive)
    breached = sum(bool(each.breaches) for each in tried)
    return [
        name,
        str(len(tried)),
        str(refused),
        *(str(ends[column] or "") for column in _VERDICTS),
        f"[red]{breached}[/red]" if breached else "0",
        f"{fallen}/{len(naive)}" if naive else "",
    ]
