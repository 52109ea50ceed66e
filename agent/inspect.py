"""The command `python -m agent.inspect`: look at a run, finished or going on.

It only reads. RUN is a run's folder, its id, or `latest`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from agent.budget import describe_seconds
from agent.effects import effect_of
from agent.judging_report import (
    describe_looks,
    describe_standings,
    print_evidence,
    print_stages,
    titled_table,
)
from agent.output import OutputLostError, PipeConsole, printing, say
from agent.run_folder import RunFolderError, find_run
from agent.stage import Decided, Stage
from agent.standings import standings
from agent.summary import Findings, describe_counts, findings, print_best, print_diff
from agent.tally import ACCEPTED
from agent.words import counted
from db.records import Evaluation, Program, Proposal, Verdict
from db.store import Store, StoreError
from sandbox.patches import from_json

__all__ = ["app"]

EXIT_OUTPUT_LOST = 1
EXIT_REFUSED = 2
BEST_ROWS = 10
STYLES = {Decided.PROMOTE: "bold green", Decided.REJECT: "dim", Decided.PASS: ""}

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class _UsageError(Exception):
    """The command was given something it does not know."""


@app.command()
def main(
    run: Annotated[str, typer.Argument(help="A run's folder, its id, or `latest`.")],
    what: Annotated[
        str,
        typer.Argument(
            help="overview (the default), best, tree, evidence (effects raw and shrunken, against "
            "all candidates, and their price), stages (what each foretells and saved), show ID, or "
            "diff A B."
        ),
    ] = "overview",
    ids: Annotated[
        list[str] | None,
        typer.Argument(
            help="Programs: the beginning of an id, a number as in '#12', `seed` or `best`."
        ),
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where ids are looked up.")] = Path("runs"),
) -> None:
    """Look at a run: what it tried, what it found, and on what evidence."""
    console = PipeConsole(highlight=False)
    try:
        with (
            Store.open(find_run(run, runs_dir), exclusive=False) as store,
            printing("nothing was changed", silent_if_closed=True),
        ):
            _view(what)(console, store, ids or [])
    except (_UsageError, RunFolderError, StoreError) as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_REFUSED) from error
    except OutputLostError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_OUTPUT_LOST) from error


def _view(what: str) -> Callable[[Console, Store, Sequence[str]], None]:
    views = {
        "overview": _overview,
        "best": _best,
        "tree": _tree,
        "evidence": _evidence,
        "stages": _stages,
        "show": _show,
        "diff": _diff,
    }
    if what not in views:
        raise _UsageError(f"unknown view {what!r}: choose one of {', '.join(views)}")
    return views[what]


def _overview(console: Console, store: Store, ids: Sequence[str]) -> None:
    _expect(ids, 0, "overview")
    run, found = store.run(), findings(store)
    console.print(f"[bold]Run {run.id}[/]")
    table = Table.grid(padding=(0, 2))
    facts = run.facts
    table.add_row("profile", f"{facts.get('profile')}, {facts.get('steps')} steps a training run")
    table.add_row("corpus", f"{facts.get('corpus')} ({str(facts.get('corpus_digest'))[:12]})")
    table.add_row("sandbox", f"level S{facts.get('sandbox_level')}")
    table.add_row("seed", str(run.seed))
    table.add_row("time spent", describe_seconds(store.elapsed_s()))
    table.add_row("tried", describe_counts(found))
    not_kept = ", ".join(f"{name} {n}" for name, n in found.failures.most_common())
    table.add_row("not kept", Text(not_kept or "nothing"))
    console.print(table)
    print_best(console, found)
    for line in describe_standings(standings(store)):
        console.print(Text(line))
    console.print(_ranking(store))
    console.print(Text(describe_looks(store.looks_by_split())))


def _best(console: Console, store: Store, ids: Sequence[str]) -> None:
    _expect(ids, 0, "best")
    found = findings(store)
    print_best(console, found)
    if found.best is not None:
        _show(console, store, [found.best.id])


def _tree(console: Console, store: Store, ids: Sequence[str]) -> None:
    """Print all programs under the parent each was patched from."""
    _expect(ids, 0, "tree")
    last = {verdict.program_id: verdict for verdict in store.verdicts()}
    nodes: dict[str, Tree] = {}
    for proposal in store.proposals():
        if proposal.status != ACCEPTED or proposal.program_id is None:
            continue
        label = _label(proposal, last.get(proposal.program_id))
        parent = nodes.get(proposal.parents[0]) if proposal.parents else None
        nodes[proposal.program_id] = parent.add(label) if parent else Tree(label)
    for node in list(nodes.values())[:1]:
        console.print(node)


def _evidence(console: Console, store: Store, ids: Sequence[str]) -> None:
    _expect(ids, 0, "evidence")
    print_evidence(console, store)


def _stages(console: Console, store: Store, ids: Sequence[str]) -> None:
    _expect(ids, 0, "stages")
    print_stages(console, store)


def _show(console: Console, store: Store, ids: Sequence[str]) -> None:
    """Print how a program came about and everything that is known about it."""
    _expect(ids, 1, "show")
    program = _program(store, ids[0])
    proposal = next(p for p in store.proposals() if p.ordinal == program.ordinal)
    console.print(f"\n[bold]Program {program.id}[/]")
    table = Table.grid(padding=(0, 2))
    table.add_row("number", str(program.ordinal))
    table.add_row("proposed by", proposal.proposer)
    table.add_row("change", Text(proposal.description))
    table.add_row("parents", ", ".join(parent[:12] for parent in proposal.parents) or "none")
    console.print(table)
    if proposal.parents:
        blocks = counted(len(from_json(proposal.patch).blocks), "block")
        console.print(f"\n[bold]Patch[/] ({blocks})")
        print_diff(console, store.program(proposal.parents[0]).source, program.source)
    console.print(_verdict_table(store.verdicts(program.id)))
    console.print(_evaluation_table(store.evaluations(program.id)))


def _diff(console: Console, store: Store, ids: Sequence[str]) -> None:
    _expect(ids, 2, "diff")
    old, new = (_program(store, name) for name in ids)
    print_diff(console, old.source, new.source)


def _expect(ids: Sequence[str], wanted: int, view: str) -> None:
    if len(ids) != wanted:
        given = f"{len(ids)} was given" if len(ids) == 1 else f"{len(ids)} were given"
        raise _UsageError(f"{view} takes {counted(wanted, 'program')}, {given}")


def _program(store: Store, name: str) -> Program:
    """Return the program called `seed`, `best`, by its number as in `#12`, or by its id."""
    if name.startswith("#"):
        return _numbered(store, name)
    if name not in {"seed", "best"}:
        return store.program(name)
    found: Findings = findings(store)
    program = found.seed if name == "seed" else found.best
    if program is None:
        raise _UsageError(f"the run has no {name} program yet: the seed program is not measured")
    return program


def _numbered(store: Store, name: str) -> Program:
    for proposal in store.proposals():
        if f"#{proposal.ordinal}" == name and proposal.program_id is not None:
            return store.program(proposal.program_id)
    raise _UsageError(f"no program {name}: see the numbers in `inspect RUN tree`")


def _label(proposal: Proposal, verdict: Verdict | None) -> Text:
    head = f"#{proposal.ordinal} {(proposal.program_id or '')[:8]}"
    if verdict is None:
        return Text(f"{head} not judged yet: {proposal.description}")
    effect = "" if verdict.effect_bpb is None else f" {verdict.effect_bpb:+.4f}"
    return Text(
        f"{head} {verdict.decision} in {verdict.stage}{effect}: {proposal.description}",
        style=STYLES.get(Decided(verdict.decision), ""),
        no_wrap=True,
        overflow="ellipsis",
    )


def _ranking(store: Store) -> Table:
    """List the programs with the largest measured gains, each against the champion of its time.

    A gain that the quarantine or the gates refused is none.
    """
    verdicts = store.verdicts()
    refused = {
        verdict.program_id
        for verdict in verdicts
        if verdict.decision == Decided.REJECT and verdict.stage in {Stage.QUARANTINE, Stage.GATES}
    }
    raced = [
        verdict
        for verdict in verdicts
        if verdict.effect_bpb is not None
        and verdict.stage in {Stage.RACE, Stage.REPLICATE}
        and verdict.program_id not in refused
    ]
    table = titled_table("\nRaced programs, largest difference to their champion first")
    for column in ("number", "program", "stage", "decision"):
        table.add_column(column, no_wrap=True)
    table.add_column("bpb", overflow="fold")  # wrapped where it does not fit, never cut
    for verdict in sorted(raced, key=lambda v: v.effect_bpb or 0.0)[:BEST_ROWS]:
        table.add_row(
            str(verdict.ordinal),
            verdict.program_id[:12],
            verdict.stage,
            verdict.decision,
            _difference(verdict),
            style=STYLES.get(Decided(verdict.decision), ""),
        )
    return table


def _verdict_table(verdicts: Sequence[Verdict]) -> Table:
    table = titled_table("\nVerdicts")
    for column in ("stage", "decision"):
        table.add_column(column, no_wrap=True)
    table.add_column("finding", overflow="fold")
    for verdict in verdicts:
        finding = Text(verdict.reason)
        if verdict.effect_bpb is not None:
            finding.append(f"\n{_difference(verdict)}, against {(verdict.reference_id or '')[:12]}")
        table.add_row(verdict.stage, verdict.decision, finding)
    return table


def _evaluation_table(evaluations: Sequence[Evaluation]) -> Table:
    table = titled_table("\nTraining runs")
    for column in ("stage", "steps", "seed", "status", "bpb", "jail CPU", "wall", "reason"):
        table.add_column(column)
    for run in evaluations:
        table.add_row(
            run.stage + ("" if run.gradients == "true" else f", {run.gradients} gradients"),
            str(run.steps) + ("" if run.horizon == run.steps else f" of {run.horizon}"),
            str(run.seed),
            run.status + (" (unsafe)" if run.unsafe else ""),
            "" if run.bpb is None else f"{run.bpb:.4f}",
            f"{run.jail_cpu_s:.2f} s",
            f"{run.wall_s:.1f} s",
            Text(run.reason if run.bpb is None else ""),
        )
    return table


def _difference(verdict: Verdict) -> str:
    """Write a verdict's effect with its interval and the number of pairs."""
    if verdict.effect_bpb is None:
        return ""
    effect = effect_of(verdict)
    interval = "" if effect is None else f" [{effect.low:+.4f}, {effect.high:+.4f}]"
    return f"{verdict.effect_bpb:+.4f}{interval}, n {verdict.pairs}"


if __name__ == "__main__":
    app()
