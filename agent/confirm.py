"""The command `python -m agent.confirm RUN`: is a run's win real?

Trains the program and its baseline on fresh seeds and sealed text, elsewhere, longer and larger,
and says how far up the win hierarchy the win stands. Everything trained is in the run's database;
the same command goes on where an interrupted one was. Exit codes: 0 the win is claimed, or it was
stopped with Ctrl-C; 1 it is not; 2 the request was refused before anything was trained; 3 the
sandbox failed, or standard output was lost.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.confirmation.admission import (
    ConfirmationRefusedError,
    chosen_program,
    find_begun,
    require_pairs,
    require_preflight,
)
from agent.confirmation.plan import DEFAULT_PAIRS, QUICK_PAIRS, Plan, make_plan
from agent.confirmation.report import print_report
from agent.confirmation.sitting import Entry, Sitting, draw_seeds, sit_down
from agent.evaluations import SandboxError
from agent.output import OutputLostError, printing, say
from agent.run_folder import RunFolderError, find_run
from agent.settings import Settings, SettingsError, resume_settings
from agent.signals import stoppable
from agent.words import counted
from agent.yardstick import UnfitCourseError
from db.confirmations import Confirmations
from db.store import Store, StoreError
from sandbox.executor import LocalPool, PoolError, WorkerRefused
from sandbox.protocol import clean_text

__all__ = ["app"]

logger = logging.getLogger(__name__)

EXIT_NOT_CLAIMED = 1
EXIT_REFUSED = 2
EXIT_SANDBOX = 3
MAX_PAIRS = 1000
MAX_SEED = 2**63 - 1
PLAIN_WIDTH = 1000  # without a terminal a fact is a line, however long
REFRESHES_PER_S = 4

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    run: Annotated[str, typer.Argument(help="A run: its folder, its id or `latest`.")],
    program: Annotated[
        str | None,
        typer.Option(help="The beginning of a program's id, or a number as in '#12'; the best."),
    ] = None,
    pairs: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=MAX_PAIRS,
            help=f"Pairs on sealed text; {DEFAULT_PAIRS}, or {QUICK_PAIRS} with --quick.",
        ),
    ] = None,
    quick: Annotated[
        bool,
        typer.Option(
            "--quick", help="Leave out longer runs and other sizes: ends at level 3 at the highest."
        ),
    ] = False,
    again: Annotated[
        bool,
        typer.Option(
            "--again",
            help="Confirm anew, on other seeds, what was confirmed or begun before. Spends a "
            "further look at the sealed text.",
        ),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0, max=MAX_SEED, help="Draw the fresh seeds from this one; the run's own."
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, described in docs/confirm.md.")
    ] = False,
    workers: Annotated[
        int | None,
        typer.Option(min=1, max=1024, help="Programs trained at the same time; one per core."),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="Where the run's text is now, if it was moved.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: Annotated[
        str | None, typer.Option(help="The lowest sandbox level, S0 to S4; the run's.")
    ] = None,
    unsafe_sandbox: Annotated[
        bool | None,
        typer.Option("--unsafe-sandbox", help="Run below the required level all the same."),
    ] = None,
) -> None:
    """Confirm the win of a run on fresh seeds, sealed text, other lengths, rates and sizes."""
    flags = {
        "workers": workers or len(os.sched_getaffinity(0)),
        "data": data,
        "required_sandbox": required_sandbox,
        "unsafe_sandbox": unsafe_sandbox,
    }
    try:
        count = pairs or (QUICK_PAIRS if quick else DEFAULT_PAIRS)
        require_pairs(count)
        asked = _Asked(
            program=program, plan=make_plan(count, is_quick=quick), is_again=again, seed=seed
        )
        with _logging_to_stderr(), Store.open(find_run(run, runs_dir)) as store:
            settings = resume_settings(store.run().settings, flags)
            ended = asyncio.run(_confirmed(store, settings, asked))
        code = _conclude(ended, is_json=as_json)
    except (
        ConfirmationRefusedError,
        RunFolderError,
        SettingsError,
        StoreError,
        UnfitCourseError,
        WorkerRefused,
    ) as error:
        _end(EXIT_REFUSED, f"error: {error}")
    except (SandboxError, PoolError, OutputLostError) as error:
        _end(EXIT_SANDBOX, f"error: {error}")
    raise typer.Exit(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What the user wants confirmed, and how."""

    program: str | None
    plan: Plan
    is_again: bool
    seed: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ended:
    """What is known at the end: the report's fields, if any, and why it is not complete."""

    fields: Mapping[str, Any] | None
    is_stopped: bool = False
    trouble: str = ""


async def _confirmed(store: Store, settings: Settings, asked: _Asked) -> _Ended:
    """Carry out a confirmation, until it is done, stopped, or the sandbox fails.

    Raises:
        ConfirmationRefusedError, WorkerRefused, UnfitCourseError: it cannot be carried out.
        PoolError, SandboxError: nothing was found out.
        StoreError: the database cannot be used.
    """
    confirmations = Confirmations(store)
    program = chosen_program(store, asked.program)
    begun = None if asked.is_again else find_begun(confirmations, program, asked.plan)
    report = None if begun is None else confirmations.report(begun.number)
    if begun is not None and report is not None:
        say(f"Confirmation {begun.number} is finished; --again would confirm anew.")
        return _Ended(fields=report)
    seeds = draw_seeds(store, begun, asked.plan, asked.seed)
    entry = Entry(program=program, plan=asked.plan, begun=begun, seeds=seeds)
    progress = _Progress()
    with stoppable() as stopper, _shown(progress) as note:
        try:
            await require_preflight(store, program, settings.scopes)
            await _trained(store, settings, entry, progress, note)
        except (asyncio.CancelledError, PoolError, SandboxError) as error:
            if not stopper.is_requested and (
                progress.sitting is None or isinstance(error, asyncio.CancelledError)
            ):
                raise
            trouble = "" if stopper.is_requested else str(error)
            return _Ended(fields=progress.fields(), is_stopped=True, trouble=trouble)
    fields = progress.fields()
    if progress.sitting is None or fields is None:
        raise AssertionError("a confirmation that ended has a sitting")
    confirmations.finish(progress.sitting.number, fields, _now())
    return _Ended(fields=fields)


async def _trained(
    store: Store,
    settings: Settings,
    entry: Entry,
    progress: _Progress,
    note: Callable[[str], None],
) -> None:
    """Start workers, write the confirmation down, and train all there is to train."""

    def make_pool(size: int) -> LocalPool:
        return LocalPool(replace(settings.worker_spec(), size=size), settings.workers)

    async with make_pool(0) as pool:
        sitting = sit_down(store, entry, pool.ready, settings, _now)
        progress.sitting = sitting
        await sitting.campaign.run(pool, make_pool, note)


def _conclude(ended: _Ended, *, is_json: bool) -> int:
    """Print what is known and return the exit code."""
    if ended.fields is None:
        say("Stopped before anything was trained.")
        return 0
    text = json.dumps(ended.fields, indent=2) + "\n" if is_json else _drawn(ended.fields)
    with printing("what was found is stored", silent_if_closed=True):
        sys.stdout.write(text)
        sys.stdout.flush()
    if ended.trouble:
        say(f"error: {clean_text(ended.trouble)}; the same command goes on from here")
        return EXIT_SANDBOX
    if ended.is_stopped:
        say("Stopped: what was trained is kept, the same command goes on from here.")
        return 0
    claim = ended.fields["claim"]
    return 0 if claim is not None and claim["holds"] else EXIT_NOT_CLAIMED


def _drawn(fields: Mapping[str, Any]) -> str:
    """Render a report for where it will be read."""
    is_terminal = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=is_terminal,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
    )
    print_report(console, fields)
    return "\n".join(line.rstrip() for line in page.getvalue().split("\n"))


class _Progress:
    """What there is to see of a confirmation at the moment it is drawn."""

    def __init__(self) -> None:
        self.sitting: Sitting | None = None
        self.lines: list[str] = []

    def fields(self) -> dict[str, Any] | None:
        """Return what is known as JSON values; None before anything was begun."""
        return None if self.sitting is None else self.sitting.fields()

    def __rich__(self) -> RenderableType:
        if self.sitting is None or self.sitting.campaign.pool is None:
            return Text("starting workers: they import torch and try out their own sandbox")
        done = counted(self.sitting.runs.count, "training run")
        rows: list[RenderableType] = [Text(clean_text(line)) for line in self.lines]
        now = self.sitting.campaign.now
        headline = f"confirmation {self.sitting.number}: {now}, {done} so far"
        table = Table.grid(padding=(0, 2))
        for run in self.sitting.campaign.pool.running():
            where = f"step {run.step} of {run.job.steps}"
            table.add_row(Text(clean_text(run.job.source_name)), f"seed {run.job.seed}", where)
        return Group(*rows, Text(headline, style="bold"), table)


@contextmanager
def _shown(progress: _Progress) -> Iterator[Callable[[str], None]]:
    """Show progress on standard error while inside; give what is to be told of every part."""
    console = Console(stderr=True)

    def note(line: str) -> None:
        progress.lines.append(line)
        if not console.is_terminal:
            logger.info("%s", clean_text(line))

    if not console.is_terminal:
        yield note
        return
    with Live(progress, console=console, refresh_per_second=REFRESHES_PER_S, transient=True):
        yield note


@contextmanager
def _logging_to_stderr() -> Iterator[None]:
    """Let progress be seen where there is no terminal to draw it on, and warnings anywhere."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(message)s"))
    levels = {"agent": logging.INFO, "asyncio": logging.ERROR, __name__: logging.INFO}
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


def _now() -> datetime:
    return datetime.now(UTC)


def _end(code: int, sentence: str) -> NoReturn:
    say(clean_text(sentence))
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
