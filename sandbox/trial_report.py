"""Tell what came of a trial: in words for people, as JSON for machines (`docs/trial.md`).

Whatever a candidate wrote, be it its name, a message or a line it printed, is stripped of control
characters, bounded and quoted before it is shown, and never read as markup.
"""

from __future__ import annotations

import json
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from sandbox.jobs import Status
from sandbox.protocol import clean_text
from sandbox.trial_run import Measurement, Report

__all__ = ["as_json", "print_report"]

SHOWN_LINES = 12  # of what the candidate printed, the last ones
SHOWN_CHARACTERS = 160  # of each of them
MEBIBYTE = 1 << 20
# Differences over one seed have standard deviations of up to .013; most gains are below .01.
TELLING_BPB = 0.05
CONTRACT_HINT = (
    "An optimizer file provides build_optimizer(params, horizon), and what that returns has "
    "observe(state) and step(): see docs/trial.md."
)
PREFLIGHT_HINT = (
    "Preflight expects an edit of the shipped optim.py, within its regions. Any other optimizer "
    "file can be tried in the jail alone, with --no-preflight."
)
ONE_SEED_HINT = (
    "One seed says little: two runs of one program differ by about as much as most edits gain."
)


def print_report(console: Console, report: Report) -> None:
    """Print a report, with colours where the console has them."""
    style = "bold green" if report.status is Status.OK else "bold red"
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    table.add_row("candidate", Text(report.name))
    table.add_row("verdict", Text(report.status, style=style))
    for name, words in _facts(report):
        table.add_row(name, Text(words))
    console.print(table)
    _print_output(console, report)
    hint = _hint(report)
    if hint:
        console.print(Text(f"\n{hint}"))


def as_json(report: Report) -> str:
    """Write a report as one JSON object; `docs/trial.md` says what its fields mean."""
    measured, ready = report.measured, report.ready
    fields = {
        "name": report.name,
        "status": report.status,
        "reason": report.reason,
        "line": report.line,
        "text": report.quote or None,
        "tuned_knobs": report.tuned_knobs,
        "violations": None
        if report.violations is None
        else [
            {"rule": v.rule, "line": v.line, "text": v.text, "message": v.message}
            for v in report.violations
        ],
        "profile": ready.profile if ready else None,
        "seed": report.seed,
        "steps": report.steps,
        "steps_trained": len(measured.outcome.curve) if measured else 0,
        "bpb": measured.outcome.bpb if measured else None,
        "difference_bpb": report.difference_bpb,
        "same_behaviour": report.is_same_behaviour,
        "cost": _cost(measured),
        "baseline": None
        if report.baseline is None
        else {"bpb": report.baseline.outcome.bpb, "cost": _cost(report.baseline)},
        "output_tail": measured.outcome.output_tail if measured else "",
        "sandbox_level": measured.outcome.sandbox_level if measured else None,
        "unsafe": measured.outcome.unsafe if measured else False,
    }
    return json.dumps(fields, indent=2)


def _cost(measured: Measurement | None) -> dict[str, Any] | None:
    if measured is None:
        return None
    outcome, limits = measured.outcome, measured.limits
    return {
        "jail_cpu_s": round(outcome.jail_cpu_s, 4),
        "allowed_cpu_s": round(limits.cpu_s, 4),
        "wall_s": round(outcome.wall_s, 4),
        "allowed_wall_s": round(limits.wall_s, 4),
        "peak_memory_bytes": outcome.peak_memory_bytes,
        "allowed_memory_bytes": limits.memory_bytes,
    }


def _facts(report: Report) -> list[tuple[str, str]]:
    if report.measured is None or report.baseline is None or report.ready is None:
        return [("reason", "preflight refused it, nothing was trained"), *_objections(report)]
    outcome, limits = report.measured.outcome, report.measured.limits
    shipped = report.baseline.outcome
    rows = [("reason", outcome.reason)]
    if report.quote:
        rows.append(("", f"line {report.line}: `{report.quote}`"))
    preflight = "skipped" if report.violations is None else "passed"
    if report.tuned_knobs:
        preflight += f"; {report.tuned_knobs} knobs left at their defaults were tuned, as runs do"
    cpu = f"{outcome.jail_cpu_s:.2f} s in its jail, {limits.cpu_s:.2f} s allowed"
    wall = f"{outcome.wall_s:.2f} s, {limits.wall_s:.0f} s allowed"
    memory = f"{_mib(outcome.peak_memory_bytes)} at its peak, torch included"
    return [
        *rows,
        ("preflight", preflight),
        ("reached", _reached(report)),
        ("score", _score(report)),
        ("CPU time", f"{cpu} (shipped {shipped.jail_cpu_s:.2f} s)"),
        ("wall time", f"{wall} (shipped {shipped.wall_s:.2f} s)"),
        ("memory", f"{memory} (shipped {_mib(shipped.peak_memory_bytes)})"),
        ("sandbox", _sandbox(report)),
    ]


def _objections(report: Report) -> list[tuple[str, str]]:
    return [(f"  {v.rule}", v.message) for v in report.violations or ()]


def _reached(report: Report) -> str:
    if report.measured is None or report.ready is None:
        return "nothing"
    begun = len(report.measured.outcome.curve)
    where = f"step {begun}" if begun else "no step, it failed before the first"
    return f"{where} of {report.steps}, profile {report.ready.profile}, seed {report.seed}"


def _score(report: Report) -> str:
    if report.measured is None or report.baseline is None:
        return "none"
    ours, theirs = report.measured.outcome.bpb, report.baseline.outcome.bpb
    if ours is None or report.difference_bpb is None:
        return f"none, only a finished run has one (shipped optimizer {theirs:.4f}, same seed)"
    score = f"{ours:.4f} bits per byte of validation text"
    if report.is_same_behaviour:
        return f"{score}: the very weights of the shipped optimizer"
    side = "better" if report.difference_bpb < 0 else "worse"
    gap = f"{abs(report.difference_bpb):.4f} {side}"
    return f"{score}, {gap} than the shipped optimizer ({theirs:.4f}, same seed)"


def _sandbox(report: Report) -> str:
    if report.measured is None:
        return "none"
    outcome = report.measured.outcome
    unsafe = ", UNSAFE: --unsafe-sandbox was given" if outcome.unsafe else ""
    return f"level S{outcome.sandbox_level}{unsafe}"


def _mib(size: int) -> str:
    return f"{size / MEBIBYTE:,.0f} MiB"


def _print_output(console: Console, report: Report) -> None:
    """Print the last lines of what the candidate printed, each behind a mark of ours."""
    printed = clean_text(report.measured.outcome.output_tail) if report.measured else ""
    lines = printed.rstrip("\n").split("\n") if printed.strip() else []
    if not lines:
        return
    left_out = (
        f", the last {SHOWN_LINES} of {len(lines):,} lines" if len(lines) > SHOWN_LINES else ""
    )
    console.print(Text(f"\nIt printed{left_out}:", style="bold"))
    for line in lines[-SHOWN_LINES:]:
        cut = line if len(line) <= SHOWN_CHARACTERS else line[: SHOWN_CHARACTERS - 1] + "…"
        console.print(Text(f"  | {cut}", style="dim"), soft_wrap=True)


def _hint(report: Report) -> str:
    """Say what to do next, where that is not plain."""
    if any(violation.rule == "scope" for violation in report.violations or ()):
        return PREFLIGHT_HINT
    if report.status is Status.CRASH and report.line is None:
        return CONTRACT_HINT
    gap = report.difference_bpb
    if gap is not None and abs(gap) < TELLING_BPB and not report.is_same_behaviour:
        return ONE_SEED_HINT
    return ""
