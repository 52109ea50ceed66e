"""Print what stands behind a run's results: evidence over all candidates, worth of all stages.

Everything is worked out from the database; nothing here is estimated for display alone.
"""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.foresight import STEPS, THRESHOLD, Foresight, Step, foresight_of
from agent.guardrails import Guardrails
from agent.savings import Savings, savings_of
from agent.stage import Stage, Stopped
from agent.standings import Standing, Standings, standings
from agent.statistics.paired_test import Design
from agent.words import counted
from db.records import Verdict
from db.store import Store

__all__ = ["describe_looks", "describe_standings", "print_evidence", "print_stages", "titled_table"]

SHOWN = 10


def titled_table(title: str) -> Table:
    """Return an empty table in the style of all of them."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # 80 columns hold a replication with its interval
        pad_edge=False,
    )


def describe_standings(found: Standings) -> list[str]:
    """Say what is left of a run's result once all its candidates are considered, in sentences."""
    if not found.promoted:
        return []
    lines = []
    raced = counted(len(found.raced), "raced candidate")
    if found.best is not None:
        best = found.best
        lines.append(
            f"Shrunken effect {best.mean:+.4f} bits per byte [{best.low:+.4f}, {best.high:+.4f}]: "
            f"what to expect, given what the {raced} of this run amount to."
        )
    after = sum(standing.holds_after for standing in found.promoted)
    then = sum(standing.held_then for standing in found.promoted)
    lines.append(
        f"Of {counted(len(found.promoted), 'promotion')}, {after} would stand as a discovery among "
        f"all {counted(found.candidates, 'candidate')} (e-BH, 5 % false discoveries), {then} at "
        "the time (e-LOND); a claim needs a confirmation."
    )
    return lines


def describe_looks(looks: Mapping[str, int]) -> str:
    """Say how often each split was read."""
    found = ", ".join(f"{split} {count}" for split, count in sorted(looks.items()))
    return f"Looks at validation text: {found or 'none'}."


def print_evidence(console: Console, store: Store) -> None:
    """Print raw and shrunken effects, evidence, prices and the ledger of looks."""
    found = standings(store)
    if not found.raced:
        console.print(f"No candidate was raced yet, of {found.candidates}.")
    else:
        console.print(_evidence_table(found))
        console.print(_front_table(found))
    for line in (*describe_standings(found), describe_looks(store.looks_by_split())):
        console.print(Text(line))


def print_stages(console: Console, store: Store) -> None:
    """Print how well stages foretell each other, what they saved, and what guardrails refused."""
    run, verdicts = store.run(), store.verdicts()
    foresight = foresight_of(verdicts)
    table = titled_table("\nWhat stages foretell (rank correlation, 90 % interval)")
    for column in ("stage", "next", "programs", "correlation", "rejects for a score"):
        table.add_column(column)
    for step in STEPS:
        table.add_row(*_step_row(step, foresight))
    console.print(table)
    max_pairs = int(run.settings.get("max_pairs", Design().max_pairs))
    for line in _describe_savings(savings_of(verdicts, max_pairs=max_pairs)):
        console.print(Text(line))
    limits = Guardrails(
        max_cpu_ratio=float(run.settings.get("max_cpu_ratio", Guardrails().max_cpu_ratio)),
        max_memory_ratio=float(run.settings.get("max_memory_ratio", Guardrails().max_memory_ratio)),
        max_setback_bpb=float(run.settings.get("max_setback", Guardrails().max_setback_bpb)),
    )
    console.print(Text(_describe_guardrails(limits, verdicts)))


def _evidence_table(found: Standings) -> Table:
    """List the champions, then those with the best estimates, each against its own champion."""
    table = titled_table("\nEvidence (bpb against the champion of the time)")
    for column in ("number", "raw, n", "shrunken, 95 %", "log e", "stands", "CPU"):
        table.add_column(column, no_wrap=True)
    others = [s for s in found.raced if not (s.is_promoted or s.is_refused)]
    others = sorted(others, key=_estimate)[:SHOWN]
    for standing in (*found.promoted, *others):
        table.add_row(*_evidence_row(standing), style="bold green" if standing.is_promoted else "")
    return table


def _evidence_row(standing: Standing) -> tuple[str, ...]:
    shrunken = standing.shrunken
    stands = [
        name
        for name, holds in (("e-BH", standing.holds_after), ("e-LOND", standing.held_then))
        if holds
    ]
    return (
        f"#{standing.race.ordinal}",
        f"{standing.raw_bpb:+.4f}, {len(standing.differences)}",
        "unknown"
        if shrunken is None
        else f"{shrunken.mean:+.4f} [{shrunken.low:+.4f}, {shrunken.high:+.4f}]",
        f"{standing.log_e:.1f}",
        ", ".join(stands) or "no",
        "?" if standing.cpu_ratio is None else f"x{standing.cpu_ratio:.2f}",
    )


def _estimate(standing: Standing) -> float:
    return standing.raw_bpb if standing.shrunken is None else standing.shrunken.mean


def _front_table(found: Standings) -> Table:
    """List what nothing is better than at less CPU time."""
    table = titled_table("\nBest for their CPU time (estimated bpb against the seed program)")
    for column in ("number", "program", "CPU", "bpb"):
        table.add_column(column, no_wrap=True)
    table.add_row("#0", "seed program", "x1.00", "0")
    for standing in found.front:
        table.add_row(
            f"#{standing.race.ordinal}",
            standing.race.program_id[:12],
            f"x{standing.cpu_ratio:.2f}",
            f"{standing.level_bpb:+.4f}",
        )
    return table


def _step_row(step: Step, foresight: Foresight) -> tuple[str, ...]:
    correlation = foresight.correlation(step)
    value = "too few to say"
    if correlation is not None:
        value = f"{correlation.value:+.2f} [{correlation.low:+.2f}, {correlation.high:+.2f}]"
    earned = f"needs {THRESHOLD:g} or more"
    if step.cheap is Stage.SMOKE:
        earned = "never"
    elif foresight.may_prune(step.cheap):
        earned = "yes"
    return step.cheap, step.dear, str(foresight.programs(step)), value, earned


def _describe_savings(found: Savings) -> list[str]:
    screened = (
        f"The screen compared {counted(found.screened, 'program')} and rejected {found.pruned} as "
        f"far behind, which saved about {counted(round(found.runs_saved_by_screen), 'full run')} "
        f"({found.pairs_each:.1f} each)."
    )
    lines = [screened]
    lost = found.wins_lost_by_screen
    if found.won is None or lost is None:
        lines.append("Nothing as far behind was raced, so what that may have lost is not known.")
    else:
        lines.append(
            f"Of {found.spared} as far behind that were raced all the same, {found.won.count} won: "
            f"rejecting lost about {lost[0]:.1f} wins of races (95 %: {lost[1]:.1f} to "
            f"{lost[2]:.1f})."
        )
    lines.append(
        f"{counted(found.races, 'race')} took {counted(found.pairs, 'pair')} instead of the "
        f"{found.pairs_fixed} of a test that never stops early; {found.futile} were given up for "
        "want of a chance, which is planned to cost 4 of 100 wins at a gain of one paired sd."
    )
    return lines


def _describe_guardrails(limits: Guardrails, verdicts: tuple[Verdict, ...]) -> str:
    refused = sum(verdict.stopped == Stopped.GUARDRAIL for verdict in verdicts)
    return (
        f"Guardrails: CPU time at most x{limits.max_cpu_ratio:g} and memory at most "
        f"x{limits.max_memory_ratio:g} of the seed program's, at most "
        f"{limits.max_setback_bpb:+g} bpb behind on any seed; "
        f"{counted(refused, 'program')} refused."
    )
