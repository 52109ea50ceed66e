"""Say what a confirmation came to: as JSON values, and from those in words.

A finished confirmation is kept as these values, so that what is printed today is what was printed
when it ended.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from agent.confirmation.findings import Findings, RatePoint, Rates, Standing, Tested
from agent.confirmation.levels import CLAIM_ALPHA, claim_of, levels_of, reached
from agent.confirmation.measures import Speed, costs_of, speed_of, stability_of
from agent.confirmation.plan import Part
from agent.guardrails import Guardrails
from agent.statistics.paired_test import Effect
from agent.statistics.shrinkage import Shrunken
from agent.words import counted
from sandbox.protocol import clean_text

__all__ = ["Subject", "as_fields", "print_report"]

SHOWN_ID = 12
MARKS = {
    Standing.HELD: ("held", "bold green"),
    Standing.FAILED: ("failed", "bold red"),
    Standing.NOT_TESTED: ("not tested", "yellow"),
    Standing.NOT_APPLICABLE: ("not applicable", "dim"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was confirmed, and what was known of it before.

    `number` counts the run's confirmations. `search` is the effect that the search reported,
    `shrunken` the confirmed one shrunk by what the run's candidates usually amount to. `facts` are
    the workers'.
    """

    run_id: str
    program_id: str
    number: int
    search: Effect | None
    shrunken: Shrunken | None
    facts: Mapping[str, Any]


def as_fields(
    subject: Subject,
    findings: Findings,
    guardrails: Guardrails,
    seeds: Mapping[Part, Sequence[int]],
) -> dict[str, Any]:
    """Write what was found as JSON values; `docs/confirm.md` says what they mean."""
    levels = levels_of(findings, subject.number, guardrails)
    claimed, sealed = claim_of(findings, subject.number), findings.sealed
    return {
        "run": subject.run_id,
        "program": subject.program_id,
        "confirmation": subject.number,
        "quick": findings.plan.is_quick,
        "complete": len(findings.tested) == len(findings.plan.conditions),
        "claim": None if claimed is None else {**asdict(claimed), "alpha": CLAIM_ALPHA},
        "level": reached(levels),
        "levels": [asdict(level) for level in levels],
        "effect_bpb": {
            "confirmed": _optional(None if sealed is None else sealed.effect),
            "shrunken": _optional(subject.shrunken),
            "search": _optional(subject.search),
        },
        "conditions": [
            _condition(tested)
            for tested in (*findings.tested, findings.at_own_rates)
            if tested is not None
        ],
        "rates": None if findings.rates is None else _rates(findings.rates),
        **_measures(findings, sealed),
        "guardrails": asdict(guardrails),
        "unsafe": any(_is_unsafe(tested) for tested in findings.tested),
        "seeds": {part.value: list(values) for part, values in seeds.items()},
        "settings": dict(subject.facts),
    }


def print_report(console: Console, fields: Mapping[str, Any]) -> None:
    """Print a report, with colours where the console has them."""
    program = str(fields["program"])[:SHOWN_ID]
    console.print(
        Text(
            f"Confirmation {fields['confirmation']} of program {program}, run {fields['run']}",
            style="bold",
        )
    )
    console.print(Text(_verdict(fields), style=_style(fields)))
    if fields["unsafe"]:
        console.print(Text("UNSAFE: below the required sandbox level", style="bold red"))
    for line in _effects(fields["effect_bpb"]):
        console.print(Text(line), soft_wrap=True)
    console.print()
    for level in fields["levels"]:
        word, style = MARKS[Standing(level["standing"])]
        console.print(
            Text.assemble(
                Text(f"{level['number']}. {level['title']}: ", style="bold"),
                Text(word, style=style),
            ),
            soft_wrap=True,
        )
        for line in level["evidence"]:
            console.print(Text(f"   {clean_text(line)}"), soft_wrap=True)
    rates = fields["rates"]
    if rates is not None and len(rates["program"]) > 1:
        console.print("\nMean bpb at multiples of the learning rates", style="bold")
        console.print(_sweep(rates))
    speed = fields["time_to_target"]
    if speed is not None:
        console.print(Text(_speed(speed)), soft_wrap=True)


def _verdict(fields: Mapping[str, Any]) -> str:
    claim = fields["claim"]
    if claim is None:
        done = "the pairs on sealed text are not complete"
        return f"Not claimed: {done}"
    if not claim["holds"]:
        return (
            f"Not confirmed: p {claim['p']:.2g} is above {claim['level']:.2g}, the level of this "
            "look"
        )
    return f"Confirmed: the win holds at level {fields['level']} of 5 (p {claim['p']:.2g})"


def _style(fields: Mapping[str, Any]) -> str:
    claim = fields["claim"]
    if claim is None:
        return "bold yellow"
    return "bold green" if claim["holds"] else "bold red"


def _effects(effects: Mapping[str, Any]) -> list[str]:
    lines = []
    confirmed, shrunken, search = effects["confirmed"], effects["shrunken"], effects["search"]
    if confirmed is not None:
        lines.append(
            f"confirmed effect {_interval(confirmed)} over "
            f"{counted(confirmed['pairs'], 'fresh pair')}, sealed text (negative is better)"
        )
    if shrunken is not None:
        lines.append(f"shrunken by what the run's candidates usually do: {_interval(shrunken)}")
    if search is not None:
        lines.append(
            f"the search had said {_interval(search)} over {counted(search['pairs'], 'pair')}"
        )
    return lines


def _interval(effect: Mapping[str, Any]) -> str:
    return f"{effect['mean']:+.4f} bpb [{effect['low']:+.4f}, {effect['high']:+.4f}]"


def _sweep(rates: Mapping[str, Any]) -> Table:
    table = Table(box=None)
    table.add_column("")
    for point in rates["program"]:
        table.add_column(f"x {point['factor']:g}", justify="right")
    for side in ("program", "baseline"):
        cells = ["failed" if p["bpb"] is None else f"{p['bpb']:.4f}" for p in rates[side]]
        table.add_row(side, *cells)
    return table


def _speed(speed: Mapping[str, Any]) -> str:
    ratio = speed["step_ratio"]
    words = f"in {ratio:.2f} times the steps (median)" if ratio is not None else "mostly not at all"
    return (
        f"time to target: it gets to the baseline's last training loss {words}; "
        f"{speed['reached']} of {speed['pairs']} runs got there"
    )


def _is_unsafe(tested: Tested) -> bool:
    pairs = () if tested.duel is None else tested.duel.pairs
    return any(run.unsafe for pair in pairs for run in (pair.candidate, pair.incumbent))


def _condition(tested: Tested) -> dict[str, Any]:
    condition = tested.condition
    return {
        "part": condition.part,
        "title": condition.title,
        "split": condition.split,
        "length": condition.length,
        "size": condition.size,
        "planned_pairs": condition.pairs,
        "standing": tested.standing,
        "trouble": tested.trouble or (tested.duel.reason if tested.duel else ""),
        "effect": _optional(tested.effect),
        "p": tested.p,
        "differences": list(tested.differences),
    }


def _rates(rates: Rates) -> dict[str, Any]:
    return {
        "program": [_point(point) for point in rates.ours],
        "baseline": [_point(point) for point in rates.theirs],
        "best_program": rates.best_ours.factor,
        "best_baseline": rates.best_theirs.factor,
        "differences": list(rates.differences),
        "p": rates.p,
    }


def _point(point: RatePoint) -> dict[str, Any]:
    return {"factor": point.factor, "bpb": _finite(point.bpb)}


def _measures(findings: Findings, sealed: Tested | None) -> dict[str, Any]:
    pairs = () if sealed is None or sealed.duel is None else sealed.duel.pairs
    if not pairs:
        return {"costs": None, "time_to_target": None, "stability": None}
    speed = speed_of(pairs)
    return {
        "costs": asdict(costs_of(pairs, findings.stateless)),
        "time_to_target": None if speed is None else _speed_fields(speed),
        "stability": {
            "program": asdict(stability_of([pair.candidate for pair in pairs])),
            "baseline": asdict(stability_of([pair.incumbent for pair in pairs])),
        },
    }


def _speed_fields(speed: Speed) -> dict[str, Any]:
    return {**asdict(speed), "step_ratio": _finite(speed.step_ratio)}


def _optional(record: Effect | Shrunken | None) -> dict[str, Any] | None:
    return None if record is None else asdict(record)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
