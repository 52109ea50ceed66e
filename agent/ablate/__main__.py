"""The command `python -m agent.ablate RUN`: which parts of the winner do anything?

Every training run is kept in `--out`; the same command begun again goes on where it was. Exit
codes: 0 it ended, whatever it found, also when it was stopped with Ctrl-C; 1 the winner fails to
train; 2 the request was refused; 3 the sandbox failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from agent.ablate.ablation import Ablation, Refusal, Setup, WinnerFailsError, ablate
from agent.ablate.equivalence import Equivalence
from agent.ablate.offspring import AlreadyThereError, Offspring, add_child
from agent.ablate.parts import take_apart
from agent.ablate.report import (
    as_json,
    conclusion,
    describe_attempt,
    describe_finding,
    print_ablation,
)
from agent.compare_request import UsageError, common_setting, worker_spec
from agent.duel import Course
from agent.evaluations import EvaluatorPool
from agent.output import say
from agent.programs import find_program
from agent.run_folder import find_run
from agent.statistics.paired_test import Design, DesignError
from agent.summary import findings
from agent.tune.command import (
    CPUS,
    EXIT_NEGATIVE,
    EXIT_SANDBOX,
    JsonOption,
    Note,
    SandboxOption,
    Sitting,
    UnsafeOption,
    WorkersOption,
    carried_out,
    drawn,
    print_out,
    sit,
)
from agent.tune.recorded_runs import MixedSettingsError, RecordedRuns, keep
from agent.yardstick import limits_for
from db.records import Program
from db.store import Store
from sandbox.examination import Request
from sandbox.executor import LocalPool
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.jobs import WorkerReady, WorkerSpec
from sandbox.patches import make_patch
from sandbox.source_form import digest

__all__ = ["app"]

SHOWN_ID = 12
RUNS_FILE, RESULT_FILE, MINIMAL_FILE = "runs.jsonl", "ablation.json", "minimal.py"
# The facts of a run without which its winner is no winner.
DECISIVE = ("profile", "steps", "corpus_digest", "validation_bytes")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    run: Annotated[str, typer.Argument(help="A run: its folder, its id, or latest.")],
    program: Annotated[
        str, typer.Option(help="What to take apart: best, the beginning of an id, or #12.")
    ] = "best",
    margin: Annotated[
        float,
        typer.Option(help="The smallest effect of interest, in bits per byte: less is nothing."),
    ] = 0.002,
    pairs: Annotated[
        int, typer.Option(min=1, max=1000, help="Pairs after which a part stays unclear.")
    ] = 20,
    alpha: Annotated[
        float, typer.Option(help="How often a part that matters may be called idle.")
    ] = 0.05,
    add: Annotated[
        bool,
        typer.Option(
            "--add",
            help="Add the minimal program to the run's lineage, as a child of the winner; the run "
            "judges it like any other when it is resumed.",
        ),
    ] = False,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the records; one in the run's folder.")
    ] = None,
    workers: WorkersOption = CPUS,
    json_output: JsonOption = False,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: SandboxOption = "S2",
    unsafe_sandbox: UnsafeOption = False,
) -> None:
    """Leave out every part of a winner in turn, then all that do nothing, and compare."""

    def command() -> int:
        folder = find_run(run, runs_dir)
        subject = _subject(folder, program, runs_dir)
        setting = common_setting(dict.fromkeys(("profile",)), (subject.name,), runs_dir)
        request = _Request(
            subject=subject,
            ablation=Ablation(anatomy=take_apart(subject.seed.source, subject.program.source)),
            test=_test(margin, pairs, alpha),
            spec=worker_spec(setting, required_sandbox, is_unsafe=unsafe_sandbox),
            workers=workers,
            folder=out or folder / "ablation" / subject.program.id[:SHOWN_ID],
        )
        return _run(request, is_json=json_output, is_added=add)

    carried_out(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Subject:
    """The program to take apart, with what the run knows; `gain_bpb` is its measured one."""

    name: str
    run_folder: Path
    run_seed: int
    facts: Mapping[str, Any]
    scopes: frozenset[str]
    seed: Program
    program: Program
    gain_bpb: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A checked request."""

    subject: _Subject
    ablation: Ablation
    test: Equivalence
    spec: WorkerSpec
    workers: int
    folder: Path


class _Work:
    """The ablation under way, and what is known of it."""

    def __init__(self, request: _Request) -> None:
        self.ablation = request.ablation
        self.failure = ""
        self._request = request

    async def __call__(self, pool: EvaluatorPool, note: Note) -> None:
        request, subject = self._request, self._request.subject
        _require_same(subject.facts, pool.ready)
        runs = RecordedRuns(pool, request.folder / RUNS_FILE)
        steps = pool.ready.steps
        limits = await limits_for(pool, steps=steps, seed=subject.run_seed)

        def watch(now: Ablation) -> None:
            if len(now.findings) > len(self.ablation.findings):
                note(describe_finding(now.findings[-1]))
            self.ablation = now

        async with GuardedPreflight() as preflight:
            setup = self.setup(_refusal(preflight, subject), Course(steps=steps, limits=limits))
            try:
                await ablate(runs, self.ablation, setup, watch)
            except WinnerFailsError as error:
                self.failure = str(error)

    def setup(self, refusal: Refusal, course: Course) -> Setup:
        """Say how parts are judged."""
        subject = self._request.subject
        return Setup(
            test=self._request.test,
            course=course,
            seed=subject.run_seed,
            purpose=f"ablate {subject.program.id}",
            refusal=refusal,
            slots=self._request.workers,
        )


def _subject(folder: Path, program: str, runs_dir: Path) -> _Subject:
    """Read the program and the run it comes from.

    Raises:
        UsageError: it is the one the run began with.
        NoSuchProgramError, StoreError: there is none.
    """
    name = f"run:{folder}/{program}"
    profile = "cpu"  # of no consequence: a run's programs have their knobs
    sources = {
        which: find_program(f"run:{folder}/{which}", profile=profile, runs_dir=runs_dir).source
        for which in (program, "seed")
    }
    with Store.open(folder, exclusive=False) as store:
        found, seed = (
            store.program(digest(sources[program])),
            store.program(digest(sources["seed"])),
        )
        run, best = store.run(), findings(store)
    is_best = best.best is not None and best.best.id == found.id
    if found.id == seed.id:
        raise UsageError(
            f"{name} is the program the run began with, so there is nothing to take apart: name "
            "another with --program"
        )
    return _Subject(
        name=name,
        run_folder=folder,
        run_seed=run.seed,
        facts=run.facts,
        scopes=frozenset(run.settings["scope"]),
        seed=seed,
        program=found,
        gain_bpb=-best.effect.mean if is_best and best.effect is not None else None,
    )


def _test(margin: float, pairs: int, alpha: float) -> Equivalence:
    """Check the test.

    Raises:
        UsageError: it cannot find anything.
    """
    if not 0.0 < margin < 1.0:
        raise UsageError(f"--margin must be a difference in bits per byte, found {margin}")
    try:
        # The last test of a smaller program has a third of the error.
        Design(alpha=alpha / 3.0, max_pairs=pairs)
        return Equivalence(margin_bpb=margin, design=Design(alpha=alpha, max_pairs=pairs))
    except DesignError as error:
        raise UsageError(f"--pairs {pairs} with --alpha {alpha:g}: {error}") from error


def _require_same(facts: Mapping[str, Any], ready: WorkerReady) -> None:
    for name in DECISIVE:
        if facts.get(name) != getattr(ready, name):
            raise MixedSettingsError(
                f"the run was measured with {name} {facts.get(name)}, here it is "
                f"{getattr(ready, name)}: its winner need not be one here, bring that back"
            )


def _refusal(preflight: GuardedPreflight, subject: _Subject) -> Refusal:
    async def refusal(source: str) -> str | None:
        patch = make_patch(subject.seed.source, source)
        request = Request(patch=patch, parent=subject.seed.source, scopes=subject.scopes)
        examination = await preflight.examine(request)
        if examination.accepted is not None:
            return None
        first = examination.violations[0]
        return f"line {first.line}, {first.rule}: {first.message}"

    return refusal


def _run(request: _Request, *, is_json: bool, is_added: bool) -> int:
    gain_bpb, margin_bpb = request.subject.gain_bpb, request.test.margin_bpb
    if gain_bpb is not None and gain_bpb <= margin_bpb:
        say(
            f"note: the winner's whole gain, {gain_bpb:.4f} bpb, is within the margin of "
            f"{margin_bpb:g}: by it, all of the winner may go; choose a smaller --margin"
        )
    work = _Work(request)
    pool = LocalPool(request.spec, request.workers)
    ended = sit(pool, f"taking apart {request.subject.name}", work)
    code = _conclude(request, work, ended, is_json=is_json)
    if work.ablation.is_finished and work.ablation.dropped:
        _offer(request, work.ablation, is_added=is_added)
    return code


def _conclude(request: _Request, work: _Work, ended: Sitting, *, is_json: bool) -> int:
    """Write and print what is known; return the exit code."""
    ablation = work.ablation
    setup = work.setup(_never_refused, Course(steps=1))
    if ablation.findings:
        keep(request.folder / RESULT_FILE, as_json(ablation, setup))
        if ablation.dropped:
            keep(request.folder / MINIMAL_FILE, ablation.minimal)
        text = (
            as_json(ablation, setup)
            if is_json
            else drawn(lambda console: print_ablation(console, ablation, setup))
        )
        print_out(text, f"the result is in {request.folder}")
    if work.failure:
        say(f"error: {work.failure}")
        return EXIT_NEGATIVE
    if ended.is_stopped:
        say(f"Stopped, {conclusion(ablation)}; the same command goes on from here.")
    if ended.trouble:
        say(f"error: {ended.trouble}; the same command goes on from here")
        return EXIT_SANDBOX
    return 0


def _offer(request: _Request, ablation: Ablation, *, is_added: bool) -> None:
    """Add the minimal program to the lineage, or say how that is done."""
    subject, folder = request.subject, request.folder
    if not is_added:
        say(f"The minimal program is {folder / MINIMAL_FILE}; --add makes it part of the run.")
        return
    numbers = sorted(ablation.dropped)
    offspring = Offspring(
        parent=subject.program,
        source=ablation.minimal,
        left_out=[ablation.anatomy.parts[number].description for number in numbers],
        evidence=describe_attempt(ablation.attempts[-1]),
    )
    with Store.open(subject.run_folder) as store:
        try:
            child = add_child(store, offspring, datetime.now(UTC))
        except AlreadyThereError as error:
            say(f"Nothing to add: {error}.")
            return
    say(
        f"Added as #{child.ordinal}, {child.id[:SHOWN_ID]}, a child of "
        f"{subject.program.id[:SHOWN_ID]}; the run judges it when it is resumed."
    )


async def _never_refused(_source: str) -> str | None:
    return None


if __name__ == "__main__":
    app()
