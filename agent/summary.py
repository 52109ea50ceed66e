"""Tell what a run found, in words a person can act on, or that it found nothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from agent.archive import BEST_FILE
from agent.effects import effect_of
from agent.judging_report import describe_looks, describe_standings
from agent.stage import Decided, Stage
from agent.standings import standings
from agent.statistics.paired_test import Effect
from agent.tally import Tally
from agent.words import counted
from db.history import REPOSITORY
from db.records import Program, Proposal, Verdict
from db.store import DATABASE, Store
from sandbox.patches import unified_diff

__all__ = [
    "Findings",
    "Sitting",
    "describe_counts",
    "findings",
    "print_best",
    "print_diff",
    "print_summary",
]

DEFAULT_PROFILE = "cpu"  # of nanochat.train
UNMEASURED_HINT = "the seed program was not measured yet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What the records of a run amount to.

    `best` is the seed program itself as long as nothing beat it; `effect` is that of the best
    program against the seed program, on seeds not used to find it. `closest` is the verdict on
    the program that came nearest to beating a champion without doing so.
    """

    seed: Program | None
    best: Program | None
    effect: Effect | None
    profile: str
    steps: str
    proposals: int
    programs: int
    evaluations: int
    failures: Counter[str]
    closest: Verdict | None

    @property
    def improved(self) -> bool:
        """Whether some program beat the seed program and held on fresh seeds."""
        return self.effect is not None


def findings(store: Store) -> Findings:
    """Read a run's findings from its database."""
    counts, proposals, verdicts = store.counts(), store.proposals(), store.verdicts()
    promoted = [verdict for verdict in verdicts if verdict.decision == Decided.PROMOTE]
    best_id = promoted[-1].program_id if promoted else None
    seed_id = proposals[0].program_id if proposals else None
    measured = [v for v in verdicts if v.program_id == best_id and v.stage == Stage.BASELINE]
    lost = [
        verdict
        for verdict in verdicts
        if verdict.decision == Decided.REJECT
        and verdict.stage in {Stage.RACE, Stage.REPLICATE}
        and verdict.effect_bpb is not None
    ]
    return Findings(
        seed=store.program(seed_id) if seed_id else None,
        best=store.program(best_id) if best_id else None,
        effect=effect_of(measured[-1]) if measured else None,
        profile=str(store.run().facts.get("profile", DEFAULT_PROFILE)),
        steps=str(store.run().facts.get("steps", "?")),
        proposals=max(0, counts["proposals"] - 1),
        programs=max(0, counts["programs"] - 1),
        evaluations=counts["evaluations"],
        failures=_failures(proposals, verdicts),
        closest=min(lost, key=lambda v: v.effect_bpb or 0.0, default=None),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """How the session ended, in words, and whether its budget is used up."""

    ending: str
    is_spent: bool


def print_summary(console: Console, store: Store, folder: Path, sitting: Sitting) -> None:
    """Print how a session ended, what the run found so far and what to type next."""
    found = findings(store)
    console.print(f"\n[bold]Run {store.run().id}[/]: {escape(sitting.ending)}.")
    console.print(f"{describe_counts(found)}.")
    if found.failures:
        kinds = ", ".join(f"{kind} {n}" for kind, n in found.failures.most_common())
        console.print(Text(f"Not kept: {kinds}"))
    print_best(console, found)
    for line in (*describe_standings(standings(store)), describe_looks(store.looks_by_split())):
        console.print(Text(line))
    console.print("\n[bold]Where it lies[/]")
    for name, what in _CONTENTS:
        console.print(f"  {folder / name}  {what}", soft_wrap=True, markup=False)
    console.print("\n[bold]What to type next[/]")
    for command in _next_commands(folder, found, sitting):
        console.print(f"  {command}", soft_wrap=True, markup=False)


def describe_counts(found: Findings) -> str:
    """Say how much was tried."""
    counts = (
        counted(found.proposals, "proposal"),
        counted(found.programs, "new program"),
        counted(found.evaluations, "training run"),
    )
    return ", ".join(counts)


def print_best(console: Console, found: Findings) -> None:
    """Print the best program's diff to the seed program and its effect, or that there is none."""
    if found.seed is None or found.best is None:
        console.print(f"\nNo result: {UNMEASURED_HINT}.")
        return
    if found.effect is None:
        console.print("\n[bold]No improvement found.[/] The seed program is still the champion.")
        if found.closest is not None:
            console.print(Text("Closest: " + _closest(found.closest)))
        return
    console.print(f"\n[bold]Best program {found.best.id[:12]}[/] against the seed program:\n")
    print_diff(console, found.seed.source, found.best.source)
    effect = found.effect
    console.print(
        f"\n[bold]Effect {effect.mean:+.4f} bits per byte[/], 95 % interval "
        f"{effect.low:+.4f} to {effect.high:+.4f}, paired over "
        f"{counted(effect.pairs, 'fresh seed')} at "
        f"{found.steps} steps (negative is better)."
    )
    if effect.high >= 0.0:
        console.print(
            "It won its race and stayed ahead on fresh seeds, but their interval alone does not "
            "exclude zero."
        )


def print_diff(console: Console, old: str, new: str) -> None:
    """Print a unified diff, in colour where the console has it; never wrapped, so it applies."""
    for line in unified_diff(old, new).splitlines():
        style = next((style for mark, style in _DIFF_STYLES if line.startswith(mark)), "")
        console.print(Text(line, style=style), soft_wrap=True)


# The longer marks first: a header line begins like a changed one.
_DIFF_STYLES = (
    ("+++", "bold"),
    ("---", "bold"),
    ("@@", "cyan"),
    ("+", "green"),
    ("-", "red"),
)

_CONTENTS = (
    (BEST_FILE, "the best program so far"),
    (DATABASE, "every proposal, training run and verdict"),
    (REPOSITORY, "every judged program as a git commit; `best` is the champion"),
    ("run.log", "what happened when"),
    ("settings.toml", "the settings, for --config"),
)


def _next_commands(folder: Path, found: Findings, sitting: Sitting) -> list[str]:
    commands = [f"python -m agent.inspect {folder} {'best' if found.improved else 'tree'}"]
    if found.improved:
        size = "" if found.profile == DEFAULT_PROFILE else f" --profile {found.profile}"
        commands.append(f"python -m nanochat.train{size} --optimizer {folder / BEST_FILE}")
    more = " --budget-hours 0.5" if sitting.is_spent else ""
    return [*commands, f"python -m agent.run --resume {folder}{more}"]


def _closest(verdict: Verdict) -> str:
    interval = ""
    if verdict.interval_low is not None and verdict.interval_high is not None:
        interval = f" [{verdict.interval_low:+.4f}, {verdict.interval_high:+.4f}]"
    return (
        f"program {verdict.program_id[:12]}, {verdict.effect_bpb:+.4f} bpb{interval} over "
        f"{counted(verdict.pairs, 'pair')} in its {verdict.stage}: {verdict.reason}"
    )


def _failures(proposals: Sequence[Proposal], verdicts: Sequence[Verdict]) -> Counter[str]:
    """Count what was not kept, by stage and category, as the tally of a running search does."""
    tally = Tally()
    for proposal in proposals:
        tally.count_proposal(proposal)
    for verdict in verdicts:
        tally.count_verdict(verdict, "")
    return tally.failures
