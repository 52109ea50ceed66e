"""The command `python -m agent.tune PROGRAM`: tune a program's knobs within a fixed budget.

PROGRAM is named as for `agent.compare`; the id of a run or `latest` alone means its best program.
Everything trained is kept in `--out`; the same command begun again goes on where it was. Exit
codes: 0 it ended, with better values, with the program's own kept, or stopped with Ctrl-C; 1 the
program fails with its own values, or the chosen values on a fresh seed; 2 the request was refused;
3 the sandbox failed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from agent.compare_request import (
    UsageError,
    checked_design,
    common_setting,
    worker_spec,
)
from agent.duel import Course
from agent.evaluations import EvaluatorPool
from agent.output import say
from agent.programs import NamedProgram, find_program
from agent.run_folder import RunFolderError, find_run
from agent.statistics.paired_test import Design
from agent.tune.command import (
    CPUS,
    EXIT_NEGATIVE,
    EXIT_SANDBOX,
    JsonOption,
    Note,
    SandboxOption,
    SeedOption,
    Sitting,
    UnsafeOption,
    WorkersOption,
    carried_out,
    drawn,
    print_out,
    sit,
)
from agent.tune.recorded_runs import RecordedRuns, keep
from agent.tune.report import as_fields, describe_trial, finding, print_tuning, trial_line
from agent.tune.samplers import Method
from agent.tune.space import SpaceError, space_of
from agent.tune.tuning import Budget, OwnValuesFailError, Tuning, tune
from agent.yardstick import limits_for
from sandbox.executor import LocalPool
from sandbox.jobs import WorkerReady, WorkerSpec

__all__ = ["app"]

RUNS_FILE, TRIALS_FILE, BEST_FILE, RESULT_FILE = (
    "runs.jsonl",
    "trials.jsonl",
    "best.py",
    "result.json",
)
DEFAULT_PAIRS = 10
SMALLEST = Design().smallest_gain_bpb

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    program: Annotated[
        str,
        typer.Argument(
            help="An optimizer file, `shipped`, `tuned`, `reference:adamw` (or another), "
            "`run:latest/best`, or a run: then its best program.",
        ),
    ],
    trials: Annotated[
        int, typer.Option(min=2, max=100_000, help="Points to try, earlier ones included.")
    ] = 60,
    method: Annotated[
        Method, typer.Option(help="How points are chosen: cma (CMA-ES) or random.")
    ] = Method.CMA,
    only: Annotated[
        list[str] | None,
        typer.Option(help="Tune the knobs that match, as in 'MUON.*'; may be repeated. All."),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="Size of the training runs: micro, cpu or gpu; cpu.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=1_000_000, help="Training steps; the profile's.")
    ] = None,
    search_seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds every point is tried on.")
    ] = 2,
    choice_seeds: Annotated[
        int, typer.Option(min=1, max=100, help="Fresh seeds the three best are chosen on.")
    ] = 4,
    pairs: Annotated[
        int, typer.Option(min=1, max=1000, help="Other fresh seeds the chosen is measured on.")
    ] = DEFAULT_PAIRS,
    alpha: Annotated[
        float, typer.Option(help="How often the interval at the end may miss.")
    ] = 0.05,
    seed: SeedOption = 1,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of the records and of best.py; one below runs/tune."),
    ] = None,
    workers: WorkersOption = CPUS,
    json_output: JsonOption = False,
    data: Annotated[
        Path | None, typer.Option(help="Text file, folder of text or parquet file to train on.")
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model is trained: cpu, cuda or cuda:N; cpu.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: SandboxOption = "S2",
    unsafe_sandbox: UnsafeOption = False,
) -> None:
    """Tune the numeric knobs of a program and measure on fresh seeds what that was worth."""

    def command() -> int:
        name = program_name(program, runs_dir)
        given = {"profile": profile, "data": None if data is None else str(data), "device": device}
        spec = worker_spec(
            common_setting(given, (name,), runs_dir), required_sandbox, is_unsafe=unsafe_sandbox
        )
        found = find_program(name, profile=spec.profile, runs_dir=runs_dir)
        request = _Request(
            program=found,
            tuning=_new_tuning(found, tuple(only or ("*",))),
            budget=Budget(
                method=method,
                trials=trials,
                search_seeds=search_seeds,
                choice_seeds=choice_seeds,
                seed=seed,
                design=checked_design(pairs, alpha, SMALLEST),
            ),
            spec=spec,
            steps=steps,
            workers=workers,
            folder=out or runs_dir / "tune" / _folder_name(found.name, spec.profile, method, seed),
        )
        return _run(request, is_json=json_output)

    carried_out(command)


def program_name(name: str, runs_dir: Path) -> str:
    """Return the name of a program, also where only a run is named."""
    if Path(name).is_file():
        return name
    try:
        find_run(name, runs_dir)
    except RunFolderError:
        return name
    return f"run:{name}/best"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A checked request."""

    program: NamedProgram
    tuning: Tuning
    budget: Budget
    spec: WorkerSpec
    steps: int | None
    workers: int
    folder: Path


class _Work:
    """The tuning under way, and what is known of it."""

    def __init__(self, request: _Request) -> None:
        self.tuning = request.tuning
        self.ready: WorkerReady | None = None
        self.failure = ""
        self._request = request

    async def __call__(self, pool: EvaluatorPool, note: Note) -> None:
        request = self._request
        self.ready = pool.ready
        runs = RecordedRuns(pool, request.folder / RUNS_FILE)
        keep(request.folder / TRIALS_FILE, "")
        steps = request.steps or pool.ready.steps
        limits = await limits_for(pool, steps=steps, seed=request.budget.seed)

        def watch(now: Tuning) -> None:
            if len(now.trials) > len(self.tuning.trials):
                self._record(now, note)
            elif now.duel is not None and now.duel is not self.tuning.duel:
                note(f"fresh seeds: {len(now.duel.pairs)} of {request.budget.design.max_pairs}")
            self.tuning = now

        try:
            await tune(
                runs,
                self.tuning,
                request.budget,
                Course(steps=steps, limits=limits),
                slots=request.workers,
                watch=watch,
            )
        except OwnValuesFailError as error:
            self.failure = str(error)

    def _record(self, now: Tuning, note: Note) -> None:
        trial = now.trials[-1]
        keep(self._request.folder / TRIALS_FILE, trial_line(trial), at_end=True)
        note(describe_trial(trial, now.trials[0]))


def _run(request: _Request, *, is_json: bool) -> int:
    work = _Work(request)
    pool = LocalPool(request.spec, request.workers)
    ended = sit(pool, f"tuning {request.tuning.name}", work)
    return _conclude(request, work, ended, is_json=is_json)


def _conclude(request: _Request, work: _Work, ended: Sitting, *, is_json: bool) -> int:
    """Write and print what is known; return the exit code."""
    tuning = work.tuning
    if tuning.trials:
        fields = as_fields(tuning, request.budget, work.ready)
        keep(request.folder / BEST_FILE, tuning.source)
        keep(request.folder / RESULT_FILE, json.dumps(fields, indent=2) + "\n")
        text = (
            json.dumps(fields, indent=2) + "\n"
            if is_json
            else drawn(lambda c: print_tuning(c, tuning, request.budget, work.ready))
        )
        print_out(text, f"the result is in {request.folder}")
        say(f"program and records: {request.folder}")
    if work.failure:
        say(f"error: {work.failure}")
        return EXIT_NEGATIVE
    if ended.is_stopped:
        say("Stopped; the same command goes on from here.")
    if ended.trouble:
        say(f"error: {ended.trouble}; the same command goes on from here")
        return EXIT_SANDBOX
    return EXIT_NEGATIVE if finding(tuning) == "failed" else 0


def _new_tuning(program: NamedProgram, patterns: tuple[str, ...]) -> Tuning:
    try:
        return Tuning(name=program.name, space=space_of(program.source, patterns))
    except SpaceError as error:
        raise UsageError(f"{program.name}: {error}") from error


def _folder_name(name: str, profile: str, method: Method, seed: int) -> str:
    plain = "".join(c if c.isalnum() or c in "._" else "-" for c in name)
    return f"{plain}-{profile}-{method}-s{seed}"


if __name__ == "__main__":
    app()
