"""The command `python -m agent.compare A B`: is one optimizer better than the other?

A and B are optimizer files, or `shipped`, `tuned`, `reference:NAME`, `run:RUN/PROGRAM`. Both are
trained in jails on the same seeds until a sequential test has decided. Exit codes: 0 it ended, with
a difference or without, also when it was stopped with Ctrl-C; 1 a program failed; 2 the request
was refused before anything was trained; 3 the sandbox failed, or standard output was lost.
"""

from __future__ import annotations

import asyncio
import io
import itertools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

from agent.compare_progress import Progress, shown
from agent.compare_report import Comparison, Finding, as_json, print_report
from agent.compare_request import (
    Request,
    UsageError,
    checked_design,
    checked_split,
    common_setting,
    worker_spec,
)
from agent.duel import Contender, Course, Duel, Ending, Matchup, run_duel
from agent.either_way import decide_either_way
from agent.evaluations import SandboxError
from agent.output import OutputLostError, printing, say
from agent.program_notes import notes_on, with_tuned_knobs
from agent.programs import NoSuchProgramError, find_program
from agent.seeds import pair_seeds
from agent.signals import stoppable
from agent.statistics.paired_test import Design
from agent.yardstick import UnfitCourseError, limits_for
from sandbox.executor import LocalPool, PoolError, WorkerRefused
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.jobs import Split
from sandbox.protocol import clean_text

__all__ = ["app"]

EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_SANDBOX = 3

MAX_SEED = 2**63 - 1
MAX_STEPS = 1_000_000
MAX_PAIRS = 1000
LETTERS = ("A", "B")
PURPOSE = "compare"  # so that no other command draws the same seeds
PLAIN_WIDTH = 1000  # without a terminal a fact is a line, however long
DEFAULT_DESIGN = Design()

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    a: Annotated[
        str,
        typer.Argument(
            metavar="A",
            help="An optimizer file, or a name: `shipped` (nanochat/optim.py), `tuned` (the same "
            "with tuned knobs), `reference:adamw` (or another), `run:latest/best`.",
        ),
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What to compare it with, likewise.")],
    pairs: Annotated[
        int, typer.Option(min=1, max=MAX_PAIRS, help="Pairs after which the test gives up.")
    ] = DEFAULT_DESIGN.max_pairs,
    alpha: Annotated[
        float,
        typer.Option(help="How often two equally good programs may be called different."),
    ] = DEFAULT_DESIGN.alpha,
    smallest: Annotated[
        float, typer.Option(help="The smallest difference of interest, in bits per byte.")
    ] = DEFAULT_DESIGN.smallest_gain_bpb,
    profile: Annotated[
        str | None,
        typer.Option(help="Size of the training runs: micro (a second), cpu (10 s) or gpu; cpu."),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="Training steps; the profile's.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="Text to validate on: search, or ood (out of distribution).")
    ] = Split.SEARCH,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the seeds that the pairs are run on.")
    ] = 1,
    workers: Annotated[
        int,
        typer.Option(
            min=1,
            max=1024,
            help="Programs trained at the same time. With two, the halves of one pair; beyond "
            "that, pairs are begun that the test may not need.",
        ),
    ] = min(2, len(os.sched_getaffinity(0))),
    tuned_knobs: Annotated[
        bool,
        typer.Option(
            "--tuned-knobs",
            help="Give edits of the shipped file the knobs tuned for the profile, where they left "
            "them at the shipped defaults, which are those of a far larger model.",
        ),
    ] = False,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, described in docs/compare.md.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Text file, folder of text or parquet file to train on."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where the model is trained: cpu, cuda or cuda:N; cpu.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: Annotated[
        str, typer.Option(help="The lowest sandbox level, S0 to S4, to run the programs at.")
    ] = "S2",
    unsafe_sandbox: Annotated[
        bool,
        typer.Option("--unsafe-sandbox", help="Run below the required level all the same."),
    ] = False,
) -> None:
    """Compare two optimizers on shared seeds and say which is better, if either is."""
    given = {"profile": profile, "data": None if data is None else str(data), "device": device}
    try:
        setting = common_setting(given, (a, b), runs_dir)
        spec = worker_spec(setting, required_sandbox, is_unsafe=unsafe_sandbox)
        found = [find_program(name, profile=spec.profile, runs_dir=runs_dir) for name in (a, b)]
        if tuned_knobs:
            found = [with_tuned_knobs(program, spec.profile) for program in found]
        request = Request(
            names=(a, b),
            programs=(found[0], found[1]),
            design=checked_design(pairs, alpha, smallest),
            spec=spec,
            split=checked_split(split),
            steps=steps,
            seed=seed,
            workers=workers,
        )
        with _logging_to_stderr():
            ended = asyncio.run(_compared(request))
        code = _conclude(ended, is_json=json)
    except (UsageError, NoSuchProgramError, UnfitCourseError, WorkerRefused) as error:
        _end(EXIT_REFUSED, f"error: {error}")
    except (SandboxError, PoolError, OutputLostError) as error:
        _end(EXIT_SANDBOX, f"error: {error}")
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What is known when there are no more pairs; `trouble` is why, where the sandbox failed."""

    comparison: Comparison | None
    trouble: str = ""


async def _compared(request: Request) -> _Ended:
    """Carry out a request, until it is done, stopped, or the sandbox fails.

    Raises:
        WorkerRefused, PoolError, SandboxError: nothing was found out.
        UnfitCourseError: no program can be expected to train like this.
    """
    pool = LocalPool(request.spec, request.workers)
    progress = Progress(pool, request.design.max_pairs)
    notes: tuple[str, ...] = ()
    trouble = ""
    with stoppable() as stopper, shown(progress) as watch:
        try:
            notes = await _notes(request)
            async with pool:
                await _duel(pool, request, watch)
        except asyncio.CancelledError:
            if not stopper.is_requested:
                raise
        except (PoolError, SandboxError) as error:
            # Ctrl-C reaches workers that are being started as well.
            if progress.duel is None and not stopper.is_requested:
                raise
            trouble = "" if stopper.is_requested else str(error)
    duel = progress.duel
    if duel is None:
        return _Ended(comparison=None)
    if duel.ending is Ending.UNDER_WAY:
        duel = replace(duel, ending=Ending.STOPPED)
    comparison = Comparison(
        names=request.names, duel=duel, design=request.design, ready=pool.ready, notes=notes
    )
    return _Ended(comparison=comparison, trouble=trouble)


async def _notes(request: Request) -> tuple[str, ...]:
    async with GuardedPreflight() as preflight:
        found = [
            await notes_on(program, letter, request.spec.profile, preflight)
            for letter, program in zip(LETTERS, request.programs, strict=True)
        ]
    return tuple(note for notes in found for note in notes)


async def _duel(pool: LocalPool, request: Request, watch: Callable[[Duel], None]) -> None:
    """Find out the limits, then train pairs until the test has decided."""
    steps = pool.ready.steps if request.steps is None else request.steps
    upcoming = pair_seeds(request.seed, PURPOSE)
    seeds = list(itertools.islice(upcoming, request.design.max_pairs))
    limits = await limits_for(pool, steps=steps, seed=seeds[0])
    first, second = (
        Contender(name=f"{letter} ({program.name})", source=program.source)
        for letter, program in zip(LETTERS, request.programs, strict=True)
    )
    course = Course(steps=steps, split=request.split, limits=limits)
    await run_duel(
        pool,
        Matchup(candidate=first, incumbent=second, course=course),
        seeds,
        partial(decide_either_way, design=request.design),
        slots=request.workers,
        watch=watch,
    )


def _conclude(ended: _Ended, *, is_json: bool) -> int:
    """Print what is known and return the exit code."""
    comparison = ended.comparison
    if comparison is None:
        say("Stopped before the first pair was finished; nothing is known.")
        return 0
    text = as_json(comparison) + "\n" if is_json else _drawn(comparison)
    with printing("nothing was kept", silent_if_closed=True):
        sys.stdout.write(text)
        sys.stdout.flush()
    if ended.trouble:
        say(f"error: {clean_text(ended.trouble)}")
        return EXIT_SANDBOX
    return EXIT_FAILED if comparison.finding is Finding.FAILED else 0


def _drawn(comparison: Comparison) -> str:
    """Render a comparison for where it will be read."""
    is_terminal = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=is_terminal,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
    )
    print_report(console, comparison)
    return "\n".join(line.rstrip() for line in page.getvalue().split("\n"))


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Let progress be seen where there is no terminal to draw it on, and warnings anywhere."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    # Ctrl-C while a worker is being started makes asyncio wonder aloud where its child went.
    levels = {"agent": logging.INFO, "asyncio": logging.ERROR}
    before = {name: logging.getLogger(name).level for name in levels}
    logging.getLogger().addHandler(handler)
    try:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        yield
    finally:
        for name, level in before.items():
            logging.getLogger(name).setLevel(level)
        logging.getLogger().removeHandler(handler)


def _end(code: int, sentence: str) -> NoReturn:
    say(clean_text(sentence))
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
