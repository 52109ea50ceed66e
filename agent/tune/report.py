"""Say what a tuning found and what that is worth: for people, and as JSON for machines."""

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
from agent.duel import Duel
from agent.statistics.paired_test import Design
from agent.tune.search import Trial
from agent.tune.tuning import OWN, Budget, Tuning
from agent.words import counted
from sandbox.jobs import WorkerReady
from sandbox.knobs import is_same
from sandbox.protocol import clean_text

__all__ = ["as_fields", "describe_trial", "finding", "print_tuning", "trial_line"]

SIDES = 2


def describe_trial(trial: Trial, own: Trial) -> str:
    """Write a trial in one line."""
    if trial.number == OWN:
        return f"trial 0, the program's own values: {trial.loss:.4f} bpb"
    if trial.reason:
        return f"trial {trial.number}: failed, {trial.reason}"
    return f"trial {trial.number}: {trial.loss:.4f} bpb, {trial.loss - own.loss:+.4f}"


def trial_line(trial: Trial) -> str:
    """Write a trial as a line of JSON."""
    return json.dumps(asdict(trial)) + "\n"


def finding(tuning: Tuning) -> str:
    """Name what a tuning came to."""
    if not tuning.is_finished:
        duel = tuning.duel
        return "failed" if duel is not None and duel.failures else "unfinished"
    if tuning.duel is None:
        return "own_values_kept"
    if tuning.duel.failures:
        return "failed"
    effect = tuning.duel.effect
    if effect is None or effect.low <= 0.0 <= effect.high:
        return "not_shown_better"
    return "better" if effect.high < 0.0 else "worse"


def print_tuning(
    console: Console, tuning: Tuning, budget: Budget, ready: WorkerReady | None
) -> None:
    """Print what is known of a tuning that has at least one trial."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, words in _facts(tuning, budget, ready):
        table.add_row(name, Text(clean_text(words)))
    console.print(table)
    changed = [
        (name, value, own)
        for name, own in tuning.space.own_values().items()
        if not is_same(value := tuning.values[name], own)
    ]
    if changed:
        console.print(_knobs(changed))


def as_fields(tuning: Tuning, budget: Budget, ready: WorkerReady | None) -> dict[str, Any]:
    """Return what is known as JSON values; `docs/tune.md` says what they mean."""
    duel = tuning.duel
    effect = None if duel is None else duel.effect
    return {
        "program": tuning.name,
        "finding": finding(tuning),
        "method": budget.method,
        "trials": len(tuning.trials),
        "failed_trials": sum(1 for trial in tuning.trials if trial.reason),
        "search_seeds": budget.search_seeds,
        "best_trial": tuning.best.number,
        "search_gain_bpb": _finite(tuning.search_gain_bpb),
        "chosen_trial": None if tuning.chosen is None else tuning.chosen.number,
        "difference_bpb": None if effect is None else effect.mean,
        "interval_bpb": None if effect is None else [_finite(effect.low), _finite(effect.high)],
        "pairs": 0 if duel is None else len(duel.differences),
        "optimism_bpb": _optimism(tuning),
        "knobs": dict(tuning.values),
        "own_knobs": dict(tuning.space.own_values()),
        "runs": [] if duel is None else _runs(duel),
        "settings": {} if ready is None else asdict(ready),
    }


def _facts(tuning: Tuning, budget: Budget, ready: WorkerReady | None) -> list[tuple[str, str]]:
    dimensions = counted(len(tuning.space.dimensions), "knob")
    failed = sum(1 for trial in tuning.trials if trial.reason)
    trials = f"{counted(len(tuning.trials), 'trial')} of {budget.trials}"
    best = tuning.best
    lead = (
        f"the best, trial {best.number}, was {tuning.search_gain_bpb:.4f} bpb ahead of the "
        "program's own values, which is the luckiest of many"
        if best.number != OWN
        else "none was ahead of the program's own values"
    )
    search = f"{trials} on {counted(budget.search_seeds, 'seed')} each, {failed} failed; {lead}"
    rows = [
        ("program", f"{tuning.name}, {dimensions} tuned by {budget.method}"),
        ("search", search),
        ("verdict", _verdict(tuning)),
    ]
    if tuning.duel is not None and tuning.duel.effect is not None:
        rows.append(("fresh seeds", _fresh(tuning.duel, budget.design)))
    optimism = _optimism(tuning)
    if optimism is not None:
        rows.append(("optimism", f"the search overstated the gain by {optimism:+.4f} bpb"))
    if ready is not None:
        corpus = f"{ready.corpus} ({ready.corpus_digest[:12]})"
        setting = f"profile {ready.profile}, {corpus}, {ready.device}, sandbox"
        rows.append(("setting", f"{setting} S{ready.sandbox_level}"))
    return rows


def _verdict(tuning: Tuning) -> str:
    if tuning.duel is not None and tuning.duel.failures:
        return f"none: {tuning.duel.reason}"
    return {
        "unfinished": "none yet",
        "own_values_kept": "the program's own values are kept: none did better on fresh seeds",
        "better": "the tuned values are better than the program's own",
        "worse": "the tuned values are worse than the program's own",
        "not_shown_better": "the tuned values are not shown to be better than the program's own",
    }[finding(tuning)]


def _fresh(duel: Duel, design: Design) -> str:
    share = 1.0 - SIDES * design.alpha
    words = "" if duel.effect is None else describe_effect(duel.effect)
    pairs = counted(len(duel.differences), "pair")
    return f"tuned - own {words} over {pairs} that chose nothing; {share:.0%} interval"


def _optimism(tuning: Tuning) -> float | None:
    """How much the best score of the search promised beyond what fresh seeds show."""
    if not tuning.is_finished or not math.isfinite(tuning.search_gain_bpb):
        return None
    if tuning.duel is None:
        return tuning.search_gain_bpb
    effect = tuning.duel.effect
    return None if effect is None else tuning.search_gain_bpb + effect.mean


def _knobs(changed: list[tuple[str, Any, Any]]) -> Table:
    table = Table(
        title="\nKnobs",
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("knob", no_wrap=True)
    table.add_column("own", justify="right", no_wrap=True)
    table.add_column("tuned", justify="right", no_wrap=True)
    for name, value, own in changed:
        table.add_row(Text(name), str(own), str(value))
    return table


def _runs(duel: Duel) -> list[dict[str, Any]]:
    return [
        {"seed": pair.seed, "tuned_bpb": pair.candidate.bpb, "own_bpb": pair.incumbent.bpb}
        for pair in duel.pairs
    ]


def _finite(number: float) -> float | None:
    return number if math.isfinite(number) else None
