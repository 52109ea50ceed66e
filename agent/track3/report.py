"""Show verdicts on logs as a table for people and as JSON for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.track3.rules import on_target
from agent.track3.submissions import Repeat
from agent.track3.verdicts import Comparison, Judgement, Verdict

__all__ = ["Report", "as_json", "print_report"]

MOST_SENTENCES = 5
STYLES = {Verdict.PASS: "bold green", Verdict.FAIL: "yellow", Verdict.MALFORMED: "bold red"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What the command found.

    Attributes:
        judgements: on every submission.
        comparisons: of every submission with every baseline.
        without_runs: files of the folders that hold no validation line.
        borrowed: by submission, its runs that stand in another submission too.
    """

    judgements: Sequence[Judgement]
    comparisons: Sequence[Comparison]
    without_runs: Sequence[Path]
    borrowed: Mapping[str, Sequence[Repeat]]


def print_report(console: Console, report: Report) -> None:
    """Print a line per submission, then what is to be said about each, then the count."""
    console.print(_verdicts(report.judgements))
    for judgement in report.judgements:
        _print_sentences(console, judgement, report.borrowed.get(judgement.submission.name, ()))
    if report.comparisons:
        console.print(_comparisons(report.comparisons))
    for path in report.without_runs:
        sentence = f"no validation line, so no log: {_shown(str(path))}"
        console.print(Text(sentence, style="dim"), soft_wrap=True)
    console.print(Text(_count([one.verdict for one in report.judgements], "submissions")))
    if report.comparisons:
        console.print(Text(_count([one.verdict for one in report.comparisons], "comparisons")))


def as_json(report: Report) -> str:
    """Return everything the report tells, and the losses themselves, as one JSON object."""
    content = {
        "submissions": [_judgement_fields(one) for one in report.judgements],
        "comparisons": [_comparison_fields(one) for one in report.comparisons],
        "without_runs": [str(path) for path in report.without_runs],
        "borrowed": {
            name: [[repeat.run.place, repeat.of.place] for repeat in repeats]
            for name, repeats in report.borrowed.items()
        },
    }
    return json.dumps(content, indent=2, allow_nan=False)


def _verdicts(judgements: Sequence[Judgement]) -> Table:
    table = _table("(3.28 - mean)·√n ≥ 0.004 at one common step")
    for column in ("verdict", "n", "step", "mean", "sd", "(3.28-m)√n", "margin"):
        table.add_column(column, no_wrap=True, justify="left" if column == "verdict" else "right")
    table.add_column("submission", overflow="fold")
    for one in judgements:
        table.add_row(
            Text(one.verdict, style=STYLES[one.verdict]),
            str(len(one.submission.runs)),
            *_evidence(one),
            Text(_shown(one.submission.name)),
        )
    return table


def _evidence(judgement: Judgement) -> tuple[str, ...]:
    result = judgement.result
    if result is None:
        return ("", "", "", "", "")
    target = on_target(result)
    return (
        str(result.step),
        f"{float(result.mean):.5f}",
        "" if result.sd is None else f"{result.sd:.5f}",
        f"{target.statistic:.5f}",
        f"{target.margin:+.5f}",
    )


def _print_sentences(console: Console, judgement: Judgement, borrowed: Sequence[Repeat]) -> None:
    reasons = [f"{judgement.verdict}: {reason}" for reason in judgement.reasons[:MOST_SENTENCES]]
    if (more := len(judgement.reasons) - MOST_SENTENCES) > 0:
        reasons.append(f"{judgement.verdict}: and {more} more reasons, see --json")
    sentences = [*reasons, *(f"note: {note}" for note in judgement.notes)]
    if borrowed:
        one = borrowed[0]
        pair = f"{one.run.place} is {one.of.place}"
        sentences.append(f"note: {len(borrowed)} runs stand in another submission too: {pair}")
    if sentences:
        console.print(Text(_shown(judgement.submission.name), style="bold"), soft_wrap=True)
    for sentence in sentences:
        console.print(Text(f"  {_shown(sentence)}"), soft_wrap=True)


def _comparisons(comparisons: Sequence[Comparison]) -> Table:
    table = _table("(Δloss + 0.0045·Δsteps/100)/√(1/n1 + 1/n2) ≥ 0.004")
    for column in ("verdict", "Δloss", "Δsteps", "statistic", "margin"):
        table.add_column(column, no_wrap=True, justify="left" if column == "verdict" else "right")
    table.add_column("submission", overflow="fold")
    table.add_column("baseline", overflow="fold")
    for one in comparisons:
        table.add_row(
            Text(one.verdict, style=STYLES[one.verdict]),
            *_differences(one),
            Text(_shown(one.submission.submission.name)),
            Text(_shown(one.baseline.submission.name)),
        )
    return table


def _differences(one: Comparison) -> tuple[str, ...]:
    mine, other = one.submission.result, one.baseline.result
    if mine is None or other is None or one.significance is None:
        return ("", "", "", "")
    return (
        f"{float(other.mean - mine.mean):+.5f}",
        f"{other.step - mine.step:+d}",
        f"{one.significance.statistic:.5f}",
        f"{one.significance.margin:+.5f}",
    )


def _judgement_fields(one: Judgement) -> dict[str, object]:
    fields: dict[str, object] = {
        "submission": one.submission.name,
        "verdict": one.verdict,
        "n": len(one.submission.runs),
        "repeats": len(one.submission.repeats),
        "reasons": list(one.reasons),
        "notes": list(one.notes),
        "runs": [{"place": run.place, "seed": run.seed} for run in one.submission.runs],
    }
    if one.result is not None:
        target = on_target(one.result)
        fields["evidence"] = {
            "step": one.result.step,
            "losses_nats": list(one.result.losses),
            "mean_nats": float(one.result.mean),
            "sd_nats": one.result.sd,
            "statistic": target.statistic,
            "margin": target.margin,
        }
    return fields


def _comparison_fields(one: Comparison) -> dict[str, object]:
    return {
        "submission": one.submission.submission.name,
        "baseline": one.baseline.submission.name,
        "verdict": one.verdict,
        "statistic": None if one.significance is None else one.significance.statistic,
        "margin": None if one.significance is None else one.significance.margin,
    }


def _count(verdicts: Sequence[Verdict], what: str) -> str:
    return f"{what}: {len(verdicts)}, of these " + ", ".join(
        f"{verdicts.count(verdict)} {verdict}" for verdict in Verdict
    )


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )


def _shown(text: str) -> str:
    """Return text from a file or a file's name with everything a terminal would obey escaped."""
    return "".join(_printable(text))


def _printable(text: str) -> Iterator[str]:
    for letter in text:
        yield letter if letter.isprintable() else ascii(letter)[1:-1]
