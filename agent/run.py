"""The command `python -m agent.run`: evolve the optimizer within a budget, and say what came of it.

Exit codes: 0 the budget was spent or the run was stopped with Ctrl-C (it can be resumed); 2 the
request was refused before anything was spent; 3 the run had to pause because workers or the disk
failed (it can be resumed); 1 standard output was lost, or a defect, with its traceback.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.live import Live

from agent.controller import Ending, EndingKind
from agent.display import log_progress, render, view_of
from agent.operators.proposer import OperatorsProposer
from agent.output import OutputLostError, PipeConsole, printing, say
from agent.run_folder import RunFolderError, find_run, make_run_folder
from agent.session import (
    RunMismatchError,
    Session,
    SessionParts,
    create_run,
    open_session,
    rare_garbage_collections,
)
from agent.settings import Settings, SettingsError, load_settings, resume_settings, to_toml
from agent.signals import Stopper, stoppable
from agent.summary import Sitting, print_summary
from agent.words import counted
from db.store import RecordError, Store, StoreError
from sandbox.baseline import BaselineError, seed_program
from sandbox.executor import LocalPool, PoolError, WorkerRefused

__all__ = ["app", "evolve"]

logger = logging.getLogger(__name__)

EXIT_OUTPUT_LOST = 1
EXIT_REFUSED = 2
EXIT_PAUSED = 3
REFRESH_S = 0.25
LOG_EVERY_S = 30.0
LOG_FORMAT = "%(asctime)s %(levelname)s %(message)s"

# What the user can mend; everything else is a defect and shows its traceback.
REFUSALS = (
    SettingsError,
    RunFolderError,
    RunMismatchError,
    StoreError,
    BaselineError,
    WorkerRefused,
    PoolError,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Opened:
    """A run about to go: its settings, its folder, and its store if it existed before."""

    settings: Settings
    folder: Path
    store: Store | None


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    budget_hours: Annotated[
        float | None,
        typer.Option(help="Stop after so many hours; 0.5 if no budget is given at all."),
    ] = None,
    budget_evals: Annotated[
        int | None,
        typer.Option(
            help="Stop after so many training runs, of any length and of any program, the seed "
            "program included. With one worker this makes a run repeatable to the bit."
        ),
    ] = None,
    proposer: Annotated[
        str | None,
        typer.Option(help="Who proposes changes: `operators` (bounded mutations, needs no key)."),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(help="Programs trained at the same time, one thread each; one per core."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The seed of every random choice of the run; 1.")
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            help="Size of a training run: `micro` (under a second, for trying things out), `cpu` "
            "(seconds on one core, the default) or `gpu`."
        ),
    ] = None,
    scope: Annotated[
        str | None,
        typer.Option(
            help="Regions of optim.py that may change, separated by commas, out of policy, muon, "
            "adamw, schedule, routing. Default: policy,muon,schedule."
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Train on this text file, folder of text files or parquet file instead of the "
            "default corpus."
        ),
    ] = None,
    runs_dir: Annotated[
        Path | None, typer.Option(help="Where the folders of runs are made; `runs`.")
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Go on with a run: its folder, its id or `latest`. A budget given with it counts "
            "from now; without one, what is left of the run's budget is spent.",
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A TOML file with any of these settings (budget_hours = 2); flags win."),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="Where models are trained: `cpu`, `cuda` or `cuda:1`; cpu.")
    ] = None,
    required_sandbox: Annotated[
        str | None,
        typer.Option(
            help="The lowest sandbox level, S0 to S4, with which the run may start, as found by "
            "trying (`python -m sandbox.check`); S2."
        ),
    ] = None,
    unsafe_sandbox: Annotated[
        bool | None,
        typer.Option(
            "--unsafe-sandbox",
            help="Run below the required level all the same; recorded with every training run.",
        ),
    ] = None,
    compile: Annotated[
        bool | None,
        typer.Option(
            "--compile/--no-compile",
            help="Compile forward and backward pass: faster steps after a slower start. Off.",
        ),
    ] = None,
    max_pairs: Annotated[
        int | None,
        typer.Option(help="Paired runs after which a race against the champion gives up; 24."),
    ] = None,
    smallest_gain: Annotated[
        float | None,
        typer.Option(
            help="The smallest gain worth having, in bits per byte: a race ends when a gain of "
            "this size is excluded; 0.0005."
        ),
    ] = None,
    sample_share: Annotated[
        float | None,
        typer.Option(
            help="The share of candidates that are raced whatever their screen says, to see what "
            "the screen foretells; 0.1."
        ),
    ] = None,
    max_cpu_ratio: Annotated[
        float | None,
        typer.Option(
            help="Most CPU time a champion's optimizer may take, in units of the seed program's; 2."
        ),
    ] = None,
    max_memory_ratio: Annotated[
        float | None,
        typer.Option(help="Most memory it may take, in the same way; 1.5."),
    ] = None,
    max_setback: Annotated[
        float | None,
        typer.Option(
            help="How far a champion may be behind the one before it on any single seed, in bits "
            "per byte; 0.05."
        ),
    ] = None,
) -> None:
    """Evolve the optimizer of a small GPT and keep only what measurably helps."""
    flags = {k: v for k, v in locals().items() if k not in {"resume", "config"} and v is not None}
    try:
        code = asyncio.run(evolve(flags, resume=resume, config=config))
    except REFUSALS as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_REFUSED) from error
    except OutputLostError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_OUTPUT_LOST) from error
    raise typer.Exit(code)


async def evolve(flags: Mapping[str, Any], *, resume: str | None, config: Path | None) -> int:
    """Carry out one sitting of a run, from the command line to the summary.

    Args:
        flags: settings given on the command line, by field name.
        resume: the run to go on with.
        config: a TOML file with further settings.

    Returns:
        The exit code.

    Raises:
        Exception: one of `REFUSALS` before anything was spent, or a defect.
        OutputLostError: standard output is closed or full.
    """
    with stoppable() as stopper:
        opened = _open(flags, resume=resume, config=config)
        try:
            return await _sit(opened, stopper)
        except (asyncio.CancelledError, PoolError):  # Ctrl-C reaches the workers as well
            if not stopper.is_requested:
                raise
            say("Stopped before the search began; nothing was spent.")
            return 0
        finally:
            if opened.store is not None:
                opened.store.close()


def _open(flags: Mapping[str, Any], *, resume: str | None, config: Path | None) -> _Opened:
    if resume is None:
        settings = load_settings(flags, config)
        now = datetime.now(UTC)
        folder = make_run_folder(settings.runs_dir, seed=settings.seed, now=now)
        return _Opened(settings=settings, folder=folder, store=None)
    if config is not None:
        raise SettingsError("--config cannot be given with --resume: a run keeps its settings")
    folder = find_run(resume, Path(flags.get("runs_dir", "runs")))
    store = Store.open(folder)
    try:
        asked = {name: value for name, value in flags.items() if name != "runs_dir"}
        settings = resume_settings(store.run().settings, asked)
    except SettingsError:
        store.close()
        raise
    return _Opened(settings=settings, folder=folder, store=store)


async def _sit(opened: _Opened, stopper: Stopper) -> int:
    """Start the workers, search, and print the summary."""
    settings, folder, store = opened.settings, opened.folder, opened.store
    console = PipeConsole(highlight=False)
    try:
        source = seed_program(settings.profile)
        with printing("nothing was started"):
            console.print(f"Starting {counted(settings.workers, 'worker')} for {folder} …")
        async with LocalPool(settings.worker_spec(), settings.workers) as pool:
            if store is None:
                store = create_run(folder, settings, pool.ready, _now)
                _write_settings(folder, settings)
            parts = SessionParts(
                pool=pool,
                proposer=OperatorsProposer(),
                seed_source=source,
                clock=_now,
            )
            with (
                rare_garbage_collections(),
                _logging(folder / "run.log", console),
                open_session(store, folder, settings, parts) as session,
            ):
                stopper.stop = session.controller.stop
                ending = await _watched_search(session, settings.workers, console)
                stopper.let_go()  # a second Ctrl-C, while ending, interrupts at once
                session.history.pack()
        return _conclude(console, store, folder, ending)
    finally:
        if opened.store is None:
            if store is not None:
                store.close()
            else:  # stopped or refused before the folder held anything
                shutil.rmtree(folder, ignore_errors=True)


async def _watched_search(session: Session, slots: int, console: Console) -> Ending:
    """Search, with something to look at meanwhile."""
    watch = _refresh if console.is_terminal else _log_now_and_then
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(watch(session, console))
        ending = await session.search(slots)
        watcher.cancel()
    return ending


async def _refresh(session: Session, console: Console) -> None:
    try:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            while True:
                live.update(render(view_of(session)), refresh=True)
                await asyncio.sleep(REFRESH_S)
    except OSError as error:
        logger.warning("the terminal is gone (%s), the run goes on without it", error)


async def _log_now_and_then(session: Session, console: Console) -> None:  # noqa: ARG001 - as _refresh
    while True:
        await asyncio.sleep(LOG_EVERY_S)
        log_progress(view_of(session))


def _conclude(console: Console, store: Store, folder: Path, ending: Ending) -> int:
    if ending.kind is EndingKind.REFUSED:
        say(f"error: {ending.message}")
        return EXIT_REFUSED
    is_spent = ending.kind is EndingKind.SPENT
    try:
        with printing("what the run found is stored"):
            print_summary(console, store, folder, Sitting(ending=ending.message, is_spent=is_spent))
    except RecordError:  # nobody's disk: a defect
        raise
    except StoreError as error:
        say(f"error: {folder} cannot be read for a summary: {error}")
        return EXIT_PAUSED
    return EXIT_PAUSED if ending.kind is EndingKind.PAUSED else 0


class _LogFile(logging.FileHandler):
    """A log that a full disk leaves incomplete instead of covering the screen with tracebacks."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        """Drop a line that cannot be written."""
        if not isinstance(sys.exception(), OSError):
            super().handleError(record)


@contextmanager
def _logging(path: Path, console: Console) -> Iterator[None]:
    """Log to the run's file, and to standard error where there is no live display."""
    try:
        handlers: list[logging.Handler] = [_LogFile(path, encoding="utf-8")]
    except OSError as error:
        raise RunFolderError(f"cannot write {path} ({error.strerror}): check the disk") from error
    if not console.is_terminal:
        handlers.append(logging.StreamHandler())
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.INFO)
    for handler in handlers:
        handler.setFormatter(logging.Formatter(LOG_FORMAT))
        root.addHandler(handler)
    try:
        yield
    finally:
        root.setLevel(before)
        for handler in handlers:
            root.removeHandler(handler)
            with suppress(OSError):  # what a full disk did not take is flushed once more
                handler.close()


def _write_settings(folder: Path, settings: Settings) -> None:
    path = folder / "settings.toml"
    try:
        path.write_text(to_toml(settings), encoding="utf-8")
    except OSError as error:
        raise RunFolderError(f"cannot write {path} ({error.strerror}): check the disk") from error


def _now() -> datetime:
    return datetime.now(UTC)


if __name__ == "__main__":
    app()
