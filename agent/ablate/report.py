"""Say what every part of a winner does: for people, and as JSON for machines."""

from __future__ import annotations

import json
import math
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.ablate.ablation import Ablation, Attempt, Finding, Setup
from agent.ablate.equivalence import Use
from agent.compare_report import describe_effect
from agent.duel import Duel
from agent.words import counted
from sandbox.patches import unified_diff
from sandbox.protocol import clean_text

__all__ = ["as_json", "conclusion", "describe_attempt", "describe_finding", "print_ablation"]

STYLES = {Use.GOOD: "green", Use.NEEDED: "green", Use.HARM: "red", Use.UNCLEAR: "yellow"}


def describe_finding(finding: Finding) -> str:
    """Write what one part does in one line."""
    effect = None if finding.duel is None else finding.duel.effect
    numbers = "" if effect is None else f", without it {describe_effect(effect)}"
    return f"{finding.part.description}: {finding.use}{numbers} ({finding.reason})"


def describe_attempt(attempt: Attempt) -> str:
    """Write what came of a smaller program in one line."""
    words = "as good as the winner" if attempt.is_as_good else "not shown to be as good"
    effect = None if attempt.duel is None else attempt.duel.effect
    numbers = "" if effect is None else f", {describe_effect(effect)}"
    parts = counted(len(attempt.dropped), "part")
    return f"Without {parts}, on fresh seeds: {words}{numbers} ({attempt.reason})"


def conclusion(ablation: Ablation) -> str:
    """Say what is known of the program as a whole, in one sentence without its full stop."""
    parts, dropped = len(ablation.anatomy.parts), len(ablation.dropped)
    if not ablation.is_finished:
        done = len(ablation.findings)
        return f"{done} of {counted(parts, 'part')} judged so far"
    if dropped:
        return f"{dropped} of {counted(parts, 'part')} can go together"
    if ablation.attempts:
        return "no smaller program was shown to be as good as the winner: all parts stay"
    return "no part was shown to do nothing: all stay"


def print_ablation(console: Console, ablation: Ablation, setup: Setup) -> None:
    """Print the parts, the attempts at a smaller program and what is left of the winner."""
    console.print(Text(clean_text(conclusion(ablation)), style="bold"))
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for column in ("use", "part", "without it", "why"):
        table.add_column(column, overflow="fold", no_wrap=column == "use")
    for finding in ablation.findings:
        effect = None if finding.duel is None else finding.duel.effect
        table.add_row(
            Text(str(finding.use), style=STYLES.get(finding.use, "")),
            Text(clean_text(finding.part.description)),
            "" if effect is None else Text(describe_effect(effect)),
            Text(clean_text(finding.reason)),
        )
    console.print(table)
    for attempt in ablation.attempts:
        console.print(Text(clean_text(describe_attempt(attempt))), soft_wrap=True)
    test = setup.test
    console.print(
        f"Positive: the winner is worse without. Margin {test.margin_bpb:g} bpb; what can go "
        f"truly costs that or more in at most {test.design.alpha:.0%} of cases.",
        soft_wrap=True,
    )
    if ablation.dropped:
        console.print(Text("\nWhat goes", style="bold"))
        diff = unified_diff(ablation.anatomy.program, ablation.minimal)
        console.print(Text(clean_text(diff)), soft_wrap=True)


def as_json(ablation: Ablation, setup: Setup) -> str:
    """Write an ablation as one JSON object; `docs/ablate.md` says what its fields mean."""
    fields = {
        "conclusion": conclusion(ablation),
        "is_finished": ablation.is_finished,
        "margin_bpb": setup.test.margin_bpb,
        "alpha": setup.test.design.alpha,
        "max_pairs": setup.test.design.max_pairs,
        "parts": [
            {
                "number": f.part.number,
                "kind": f.part.kind,
                "part": f.part.description,
                "use": f.use,
                "reason": f.reason,
                **_numbers(f.duel),
            }
            for f in ablation.findings
        ],
        "attempts": [
            {
                "dropped": sorted(a.dropped),
                "is_as_good": a.is_as_good,
                "reason": a.reason,
                **_numbers(a.duel),
            }
            for a in ablation.attempts
        ],
        "dropped": sorted(ablation.dropped),
        "minimal": ablation.minimal if ablation.dropped else None,
    }
    return json.dumps(fields, indent=2) + "\n"


def _numbers(duel: Duel | None) -> dict[str, Any]:
    effect = None if duel is None else duel.effect
    if duel is None or effect is None:
        return {"difference_bpb": None, "interval_bpb": None, "pairs": 0, "cpu_ratio": None}
    ends = [end if math.isfinite(end) else None for end in (effect.low, effect.high)]
    return {
        "difference_bpb": effect.mean,
        "interval_bpb": ends,
        "pairs": effect.pairs,
        "cpu_ratio": duel.cpu_ratio,
    }
