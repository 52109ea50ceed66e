"""Say what a comparison of two programs came to: in words for people, as JSON for machines.

Names, reasons and whatever else a program could have written are shown as plain text, stripped of
control characters, and never read as markup.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from statistics import fmean
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.duel import Duel, Ending, Pair
from agent.statistics.paired_test import DecisionKind, Design, Effect
from agent.words import counted
from sandbox.jobs import Outcome, WorkerReady
from sandbox.protocol import clean_text

__all__ = ["Comparison", "Finding", "as_json", "describe_effect", "print_report"]

MEBIBYTE = 1 << 20
SHOWN_DIGEST = 12
STYLES = {"a_better": "bold green", "b_better": "bold yellow", "failed": "bold red"}


class Finding(StrEnum):
    """What a comparison came to."""

    A_BETTER = "a_better"
    B_BETTER = "b_better"
    NO_DIFFERENCE = "no_difference"
    NOT_TOLD_APART = "not_told_apart"
    UNDECIDED = "undecided"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """A finished or stopped comparison: A is the duel's candidate, B its incumbent.

    `names` are what the user calls A and B. `design` is that of the test each way, so its alpha is
    half of the whole. `notes` are what the user should know besides.
    """

    names: tuple[str, str]
    duel: Duel
    design: Design
    ready: WorkerReady
    notes: tuple[str, ...] = ()

    @property
    def finding(self) -> Finding:
        """What came out, told from the interval and from why there are no more pairs."""
        effect, decision = self.duel.effect, self.duel.decision
        if self.duel.ending is Ending.FAILED:
            return Finding.FAILED
        if effect is None or decision is None or decision.kind is DecisionKind.CONTINUE:
            return Finding.UNDECIDED
        if decision.kind is DecisionKind.ACCEPT:
            return Finding.A_BETTER
        if effect.low > 0.0:
            return Finding.B_BETTER
        smallest = self.design.smallest_gain_bpb
        is_excluded = -smallest < effect.low and effect.high < smallest
        return Finding.NO_DIFFERENCE if is_excluded else Finding.NOT_TOLD_APART


def describe_effect(effect: Effect) -> str:
    """Write a mean difference with its interval, as far as there is one."""
    if not math.isfinite(effect.low):
        return f"{effect.mean:+.4f} bpb, no interval yet"
    return f"{effect.mean:+.4f} bpb [{effect.low:+.4f}, {effect.high:+.4f}]"


def print_report(console: Console, comparison: Comparison) -> None:
    """Print a comparison, with colours where the console has them."""
    duel = comparison.duel
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    style = STYLES.get(comparison.finding, "bold")
    table.add_row("verdict", Text(_verdict(comparison), style=style))
    for name, words in _facts(comparison):
        table.add_row(name, Text(clean_text(words)))
    console.print(table)
    if duel.pairs:
        console.print(_programs(duel))
        console.print(_pairs(duel))
    for note in comparison.notes:
        console.print(Text(f"note: {clean_text(note)}"), soft_wrap=True)


def as_json(comparison: Comparison) -> str:
    """Write a comparison as one JSON object; `docs/compare.md` says what its fields mean."""
    duel, ready, course = comparison.duel, comparison.ready, comparison.duel.matchup.course
    effect = duel.effect
    fields: dict[str, Any] = {
        "verdict": comparison.finding,
        "reason": duel.reason,
        "ending": duel.ending,
        "difference_bpb": None if effect is None else effect.mean,
        "interval_bpb": None if effect is None else [_finite(effect.low), _finite(effect.high)],
        "pairs": len(duel.differences),
        "log_e": duel.log_e,
        "same_behaviour": duel.is_same_behaviour,
        "cpu_ratio": duel.cpu_ratio,
        "a": _side(duel, comparison.names[0], lambda pair: pair.candidate),
        "b": _side(duel, comparison.names[1], lambda pair: pair.incumbent),
        "runs": [
            {
                "seed": pair.seed,
                "difference_bpb": pair.difference,
                "a": _run(pair.candidate),
                "b": _run(pair.incumbent),
            }
            for pair in duel.pairs
        ],
        "test": {**asdict(comparison.design), "alpha": 2 * comparison.design.alpha},
        "settings": {
            **asdict(ready),
            "steps": course.steps,
            "split": course.split,
            "cpu_limit_s": course.limits.cpu_s,
        },
        "notes": list(comparison.notes),
    }
    return json.dumps(fields, indent=2)


def _verdict(comparison: Comparison) -> str:
    duel, smallest = comparison.duel, comparison.design.smallest_gain_bpb
    if comparison.finding is Finding.FAILED:
        names = sorted({failure.name for failure in duel.failures})
        return f"none: {' and '.join(names)} failed"
    if duel.is_same_behaviour:
        return "no difference: A and B came to the very same weights on every seed"
    return {
        Finding.A_BETTER: "A is better than B",
        Finding.B_BETTER: "B is better than A",
        Finding.NO_DIFFERENCE: f"no difference of {smallest:g} bpb or more",
        Finding.NOT_TOLD_APART: "no difference was shown",
        Finding.UNDECIDED: "none yet",
    }[comparison.finding]


def _facts(comparison: Comparison) -> list[tuple[str, str]]:
    duel, ready, course = comparison.duel, comparison.ready, comparison.duel.matchup.course
    rows = list(zip("AB", comparison.names, strict=True))
    if duel.effect is not None:
        share = 1.0 - 2.0 * comparison.design.alpha
        words = f"{describe_effect(duel.effect)}, negative where A is better"
        rows.append(("A - B", f"{words}; {share:.0%} interval, valid at any stop"))
    most = comparison.design.max_pairs
    pairs = f"{counted(len(duel.differences), 'whole pair')} of at most {most}"
    e_value = "" if duel.decision is None else f"; e-value {_e_value(duel.log_e)}"
    rows.append(("evidence", f"{pairs}: {duel.reason}{e_value}"))
    if duel.cpu_ratio is not None:
        rows.append(("cost", f"A's optimizer takes {duel.cpu_ratio:.2f} times the CPU time of B's"))
    corpus = f"{ready.corpus} ({ready.corpus_digest[:SHOWN_DIGEST]})"
    settings = (
        f"profile {ready.profile}, {course.steps} steps, {course.split} text of {corpus}, "
        f"{ready.device}, sandbox S{ready.sandbox_level}"
    )
    is_unsafe = any(run.unsafe for pair in duel.pairs for run in (pair.candidate, pair.incumbent))
    rows.append(("setting", settings + (", UNSAFE" if is_unsafe else "")))
    return rows


def _e_value(log_e: float) -> str:
    """Write an e-value; 20 and more is evidence worth the name."""
    return f"{math.exp(log_e):.3g}" if log_e < math.log(1e6) else "above a million"


def _programs(duel: Duel) -> Table:
    table = _table("\nPrograms, means over their runs")
    for column in ("", "bpb", "optimizer CPU", "wall", "peak memory"):
        table.add_column(column, justify="left" if not column else "right", no_wrap=True)
    sides: tuple[tuple[str, Callable[[Pair], Outcome]], ...] = (
        ("A", lambda pair: pair.candidate),
        ("B", lambda pair: pair.incumbent),
    )
    for letter, side in sides:
        runs = [side(pair) for pair in duel.pairs]
        scores = [run.bpb for run in runs if run.bpb is not None]
        table.add_row(
            letter,
            f"{fmean(scores):.4f}" if scores else "none",
            f"{fmean(run.jail_cpu_s for run in runs):.2f} s",
            f"{fmean(run.wall_s for run in runs):.1f} s",
            f"{max(run.peak_memory_bytes for run in runs) / MEBIBYTE:,.0f} MiB",
        )
    return table


def _pairs(duel: Duel) -> Table:
    table = _table("\nPairs")
    for column in ("seed", "A", "B", "A - B"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in duel.pairs:
        difference = "" if pair.difference is None else f"{pair.difference:+.4f}"
        table.add_row(str(pair.seed), _score(pair.candidate), _score(pair.incumbent), difference)
    return table


def _score(run: Outcome) -> str:
    return str(run.status) if run.bpb is None else f"{run.bpb:.4f}"


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )


def _side(duel: Duel, name: str, side: Callable[[Pair], Outcome]) -> dict[str, Any]:
    runs = [side(pair) for pair in duel.pairs]
    scores = [run.bpb for run in runs if run.bpb is not None]
    return {
        "name": name,
        "mean_bpb": fmean(scores) if scores else None,
        "jail_cpu_s": fmean(run.jail_cpu_s for run in runs) if runs else None,
        "peak_memory_bytes": max((run.peak_memory_bytes for run in runs), default=None),
        "failures": sum(run.bpb is None for run in runs),
    }


def _run(run: Outcome) -> dict[str, Any]:
    return {
        "status": run.status,
        "reason": run.reason,
        "line": run.line,
        "bpb": run.bpb,
        "jail_cpu_s": run.jail_cpu_s,
        "train_cpu_s": run.train_cpu_s,
        "wall_s": run.wall_s,
        "peak_memory_bytes": run.peak_memory_bytes,
        "fingerprint": run.fingerprint,
        "sandbox_level": run.sandbox_level,
        "unsafe": run.unsafe,
    }


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
