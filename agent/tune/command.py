"""What the commands that keep a pool busy for long have in common.

They say what they do on standard error, live on a terminal and a line at a time elsewhere, end
cleanly on Ctrl-C with what is known, and turn every way to fail into one sentence and an exit code.
"""

from __future__ import annotations

import asyncio
import io
import logging
import os
import sys
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import TracebackType
from typing import Annotated, NoReturn, Protocol, Self

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from agent.compare_request import UsageError
from agent.evaluations import EvaluatorPool, SandboxError
from agent.output import OutputLostError, printing, say
from agent.programs import NoSuchProgramError
from agent.run_folder import RunFolderError
from agent.signals import stoppable
from agent.tune.recorded_runs import RecordLostError
from agent.yardstick import UnfitCourseError
from db.store import StoreError
from sandbox.executor import PoolError, WorkerRefused
from sandbox.line_error import LineError
from sandbox.protocol import clean_text

__all__ = [
    "CPUS",
    "EXIT_NEGATIVE",
    "EXIT_REFUSED",
    "EXIT_SANDBOX",
    "JsonOption",
    "Note",
    "SandboxOption",
    "SeedOption",
    "Sitting",
    "StartablePool",
    "UnsafeOption",
    "WorkersOption",
    "carried_out",
    "drawn",
    "print_out",
    "sit",
]

EXIT_NEGATIVE = 1
EXIT_REFUSED = 2
EXIT_SANDBOX = 3

CPUS = min(2, len(os.sched_getaffinity(0)))
MAX_SEED = 2**63 - 1
PLAIN_WIDTH = 1000  # without a terminal a fact is a line, however long
REFRESHES_PER_S = 4
SHOWN_LINES = 8

logger = logging.getLogger(__name__)

Note = Callable[[str], None]

SeedOption = Annotated[
    int, typer.Option(min=0, max=MAX_SEED, help="Everything random is drawn from it.")
]
WorkersOption = Annotated[
    int, typer.Option(min=1, max=1024, help="Programs trained at the same time.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
SandboxOption = Annotated[
    str, typer.Option(help="The lowest sandbox level, S0 to S4, to run the programs at.")
]
UnsafeOption = Annotated[
    bool,
    typer.Option("--unsafe-sandbox", help="Run below the required level all the same."),
]


class StartablePool(EvaluatorPool, Protocol):
    """A pool whose workers run while it is entered."""

    async def __aenter__(self) -> Self:
        """Start the workers."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the workers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """How work on a pool came to its end: by itself, stopped by a person, or in trouble."""

    is_stopped: bool = False
    trouble: str = ""


def sit(
    pool: StartablePool, headline: str, work: Callable[[EvaluatorPool, Note], Awaitable[object]]
) -> Sitting:
    """Do work on a pool until it is done, somebody stops it, or the sandbox fails.

    Args:
        pool: not yet started.
        headline: what a terminal shows above the progress.
        work: is given the pool and a function to tell of progress with; keeps what it finds out.

    Raises:
        WorkerRefused: a worker cannot start like this.
    """
    with _logging_to_stderr():
        return asyncio.run(_sit(pool, headline, work))


def carried_out(command: Callable[[], int]) -> NoReturn:
    """Do what a command is for and end with its exit code, or with a sentence that says why not."""
    try:
        code = command()
    except (
        UsageError,
        NoSuchProgramError,
        UnfitCourseError,
        WorkerRefused,
        RunFolderError,
        StoreError,
        LineError,
    ) as error:
        code = _told(error, EXIT_REFUSED)
    except (SandboxError, PoolError, OutputLostError, RecordLostError) as error:
        code = _told(error, EXIT_SANDBOX)
    raise typer.Exit(code)


def drawn(draw: Callable[[Console], None]) -> str:
    """Render a report for where it will be read."""
    is_terminal = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=is_terminal,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
    )
    draw(console)
    return "\n".join(line.rstrip() for line in page.getvalue().split("\n"))


def print_out(text: str, otherwise: str) -> None:
    """Print a report, with what is true all the same if that fails.

    Raises:
        OutputLostError: standard output is closed or full.
    """
    with printing(otherwise, silent_if_closed=True):
        sys.stdout.write(text)
        sys.stdout.flush()


class _Display:
    def __init__(self, pool: EvaluatorPool, headline: str) -> None:
        self.lines: deque[str] = deque(maxlen=SHOWN_LINES)
        self._pool = pool
        self._headline = headline

    def __rich__(self) -> RenderableType:
        try:
            level = self._pool.ready.sandbox_level
        except PoolError:
            return Text("starting workers: they import torch and try out their own sandbox")
        head = Text(f"{self._headline}, sandbox level S{level}", style="bold")
        table = Table.grid(padding=(0, 2))
        for run in self._pool.running():
            where = f"step {run.step} of {run.job.steps}"
            table.add_row(Text(clean_text(run.job.source_name)), f"seed {run.job.seed}", where)
        return Group(head, *map(Text, self.lines), table)


async def _sit(
    pool: StartablePool, headline: str, work: Callable[[EvaluatorPool, Note], Awaitable[object]]
) -> Sitting:
    with stoppable() as stopper, _shown(_Display(pool, headline)) as note:
        try:
            async with pool:
                await work(pool, note)
        except asyncio.CancelledError:
            if not stopper.is_requested:
                raise
        except (PoolError, SandboxError) as error:
            # Ctrl-C reaches workers that are being started as well.
            if not stopper.is_requested:
                return Sitting(trouble=str(error))
        return Sitting(is_stopped=stopper.is_requested)


@contextmanager
def _shown(display: _Display) -> Iterator[Note]:
    console = Console(stderr=True)

    def note(line: str) -> None:
        display.lines.append(clean_text(line))
        if not console.is_terminal:
            logger.info("%s", clean_text(line))

    if not console.is_terminal:
        yield note
        return
    with Live(display, console=console, refresh_per_second=REFRESHES_PER_S, transient=True):
        yield note


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


def _told(error: Exception, code: int) -> int:
    say(clean_text(f"error: {error}"))
    return code
