"""The command `python -m agent.leaderboard`: well-known optimizers, equally tuned, ranked.

Shows the recorded table of a profile, or with `--measure` makes one. Everything trained is kept in
`--out`; the same command begun again goes on where it was. Exit codes: 0 it ended, also when it was
stopped with Ctrl-C; 2 the request was refused; 3 the sandbox failed.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from agent.compare_request import UsageError, checked_design, common_setting, worker_spec
from agent.duel import Course
from agent.evaluations import EvaluatorPool
from agent.leaderboard.measure import Field, Watch, budget_fields, measure
from agent.leaderboard.record import ANCHOR, Leaderboard, read, recorded, write
from agent.leaderboard.standings import Entry
from agent.leaderboard.table import as_json, print_board
from agent.output import say
from agent.programs import find_program, reference_names
from agent.statistics.paired_test import Design
from agent.tune.command import (
    CPUS,
    EXIT_SANDBOX,
    JsonOption,
    Note,
    SandboxOption,
    SeedOption,
    UnsafeOption,
    WorkersOption,
    carried_out,
    drawn,
    print_out,
    sit,
)
from agent.tune.recorded_runs import RecordedRuns, conditions
from agent.tune.samplers import Method
from agent.tune.space import SpaceError, space_of
from agent.tune.tuning import Budget
from agent.words import counted
from agent.yardstick import limits_for
from sandbox.executor import LocalPool
from sandbox.jobs import WorkerSpec

__all__ = ["app"]

DESIGN = Design()
BOARD_FILE, RUNS_FILE = "leaderboard.json", "runs.jsonl"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    profile: Annotated[
        str, typer.Option(help="Size of the training runs: micro or cpu.")
    ] = "micro",
    file: Annotated[
        Path | None, typer.Option(help="Show the leaderboard of this file instead.")
    ] = None,
    measuring: Annotated[
        bool, typer.Option("--measure", help="Measure anew instead of showing what is recorded.")
    ] = False,
    program: Annotated[
        list[str] | None,
        typer.Option(help="With --measure, rank this program too, named as for compare."),
    ] = None,
    trials: Annotated[
        int, typer.Option(min=2, max=100_000, help="Points to try for each program.")
    ] = 60,
    method: Annotated[
        Method, typer.Option(help="How points are chosen: cma (CMA-ES) or random.")
    ] = Method.CMA,
    search_seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds every point is tried on.")
    ] = 2,
    choice_seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Fresh seeds the three best are chosen on.")
    ] = 4,
    pairs: Annotated[
        int, typer.Option(min=1, max=1000, help="Other fresh seeds, those of the table.")
    ] = 20,
    seed: SeedOption = 1,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the records; one below runs/leaderboard.")
    ] = None,
    workers: WorkersOption = CPUS,
    json_output: JsonOption = False,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: SandboxOption = "S2",
    unsafe_sandbox: UnsafeOption = False,
) -> None:
    """Rank the reference optimizers and the program that runs start from."""

    def command() -> int:
        if not measuring:
            if program:
                raise UsageError("--program is measured, so it needs --measure")
            _show(recorded(profile) if file is None else read(file), is_json=json_output)
            return 0
        names = tuple(f"reference:{name}" for name in reference_names()) + tuple(program or ())
        given = {"profile": profile, "data": None, "device": None}
        setting = common_setting(given, names, runs_dir)
        request = _Request(
            added=tuple(program or ()),
            field=_field(names, profile, runs_dir),
            budget=Budget(
                method=method,
                trials=trials,
                search_seeds=search_seeds,
                choice_seeds=choice_seeds,
                seed=seed,
                design=checked_design(pairs, DESIGN.alpha, DESIGN.smallest_gain_bpb),
            ),
            spec=worker_spec(setting, required_sandbox, is_unsafe=unsafe_sandbox),
            workers=workers,
            folder=out or runs_dir / "leaderboard" / profile,
        )
        return _measure(request, is_json=json_output)

    carried_out(command)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A checked request; `added` are the programs named with `--program`."""

    added: tuple[str, ...]
    field: Field
    budget: Budget
    spec: WorkerSpec
    workers: int
    folder: Path

    @property
    def command(self) -> str:
        """What measures this again, wherever its records are kept."""
        budget = self.budget
        words = [
            "python -m agent.leaderboard --measure",
            f"--profile {self.spec.profile} --method {budget.method} --trials {budget.trials}",
            f"--search-seeds {budget.search_seeds} --choice-seeds {budget.choice_seeds}",
            f"--pairs {budget.design.max_pairs} --seed {budget.seed}",
            *(f"--program {shlex.quote(name)}" for name in self.added),
        ]
        return " ".join(words)


@dataclass
class _Work:
    """The measurement under way, and what is complete of it."""

    request: _Request
    entries: list[Entry] = field(default_factory=list)
    settings: dict[str, object] = field(default_factory=dict)

    async def __call__(self, pool: EvaluatorPool, note: Note) -> None:
        request = self.request
        self.settings = conditions(pool.ready)
        runs = RecordedRuns(pool, request.folder / RUNS_FILE)
        limits = await limits_for(pool, steps=pool.ready.steps, seed=request.budget.seed)
        await measure(
            runs,
            request.field,
            request.budget,
            Course(steps=pool.ready.steps, limits=limits),
            request.workers,
            Watch(note=note, add=self.entries.append),
        )

    def board(self) -> Leaderboard:
        budget = self.request.budget
        return Leaderboard(
            command=self.request.command,
            date=datetime.now(UTC).date().isoformat(),
            settings=self.settings,
            budget=budget_fields(budget),
            seeds=budget.seeds("tune validation", budget.design.max_pairs),
            entries=tuple(self.entries),
        )


def _field(names: tuple[str, ...], profile: str, runs_dir: Path) -> Field:
    """Find all programs and check that they can be tuned, before anything is spent."""
    others = tuple(find_program(name, profile=profile, runs_dir=runs_dir) for name in names)
    for other in others:
        try:
            space_of(other.source)
        except SpaceError as error:
            raise UsageError(f"{other.name}: {error}") from error
    taken = [other.name for other in others] + [ANCHOR]
    twice = sorted({name for name in taken if taken.count(name) > 1})
    if twice:
        raise UsageError(f"two programs are called {twice[0]}: give one of the files another name")
    return Field(anchor=find_program(ANCHOR, profile=profile, runs_dir=runs_dir), others=others)


def _measure(request: _Request, *, is_json: bool) -> int:
    work = _Work(request)
    pool = LocalPool(request.spec, request.workers)
    ended = sit(pool, "measuring a leaderboard", work)
    if len(work.entries) > 1:
        board = work.board()
        write(request.folder / BOARD_FILE, board)
        _show(board, is_json=is_json)
        say(f"recorded in {request.folder / BOARD_FILE}")
    wanted = 1 + len(request.field.others)
    if len(work.entries) < wanted:
        done = counted(len(work.entries), "program")
        say(f"{done} of {wanted} measured; the same command goes on from here.")
    if ended.trouble:
        say(f"error: {ended.trouble}")
        return EXIT_SANDBOX
    return 0


def _show(board: Leaderboard, *, is_json: bool) -> None:
    text = as_json(board) if is_json else drawn(lambda console: print_board(console, board))
    print_out(text, "a leaderboard that was measured is recorded")


if __name__ == "__main__":
    app()
