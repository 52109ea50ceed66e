"""The command `python -m sandbox.trial`: one optimizer file through preflight, jail and training.

Exit codes: 0 the candidate trained to the end; 1 it failed, with any verdict but `ok`; 2 the
request was refused before the candidate was looked at; 3 the sandbox failed, or standard output
was lost, and nothing can be said about the candidate; 130 stopped with Ctrl-C.
"""

from __future__ import annotations

import asyncio
import errno
import io
import logging
import os
import re
import sys
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from sandbox.baseline import BaselineError, seed_program, shipped_program
from sandbox.executor import LocalPool, PoolError, WorkerRefused
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.jobs import Status, WorkerSpec
from sandbox.levels import parse_level
from sandbox.patches import Patch, PatchError, apply_patch, from_json
from sandbox.preflight import Violation
from sandbox.protocol import clean_text
from sandbox.trial_report import as_json, print_report
from sandbox.trial_run import (
    BaselineFailure,
    Candidate,
    Report,
    examination,
    not_an_edit,
    refusal,
    train_both,
    tuned_like,
    whole_file,
)

__all__ = ["app"]

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_REFUSED = 2
EXIT_SANDBOX = 3
EXIT_STOPPED = 130

PROFILES = ("micro", "cpu", "gpu")
MAX_SEED = 2**63 - 1
MAX_STEPS = 1_000_000
MAX_FILE_BYTES = 4 << 20  # a hundred times the shipped file; the jail needs something to refuse
MAX_NAME = 60
REFRESHES_PER_S = 8
PLAIN_WIDTH = 1000  # without a terminal a fact is a line, however long

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


class UsageError(Exception):
    """The request cannot be carried out; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A checked request; `patch` makes the candidate of the baseline."""

    name: str
    patch: Patch
    baseline: str
    spec: WorkerSpec
    steps: int | None
    seed: int
    preflight: bool


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    file: Annotated[
        Path | None, typer.Argument(help="An optimizer file, such as an edited nanochat/optim.py.")
    ] = None,
    patch: Annotated[
        Path | None,
        typer.Option(
            help="Try a patch instead of a file: a JSON list of search/replace blocks, as runs "
            "store it, against the optim.py that runs of this profile start from."
        ),
    ] = None,
    no_preflight: Annotated[
        bool,
        typer.Option(
            "--no-preflight",
            help="Go to the jail at once: for optimizers of your own, and for attacks.",
        ),
    ] = False,
    profile: Annotated[
        str, typer.Option(help="Size of the training runs: micro (a second), cpu (10 s) or gpu.")
    ] = "micro",
    steps: Annotated[
        int | None, typer.Option(min=1, max=MAX_STEPS, help="Training steps; the profile's.")
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of initial weights and data order.")
    ] = 1,
    json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object, described in docs/trial.md.")
    ] = False,
    data: Annotated[
        Path | None,
        typer.Option(help="Text file, folder of text or parquet file to train on."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the model is trained: cpu, cuda or cuda:N.")
    ] = "cpu",
    required_sandbox: Annotated[
        str, typer.Option(help="The lowest sandbox level, S0 to S4, to run the candidate at.")
    ] = "S2",
    unsafe_sandbox: Annotated[
        bool,
        typer.Option("--unsafe-sandbox", help="Run below the required level all the same."),
    ] = False,
) -> None:
    """Take one optimizer through preflight, jail and a short training run; say what happened.

    Exit codes: 0 it trained to the end, 1 it failed, 2 the request cannot be carried out, 3 the
    sandbox failed.
    """
    # Ctrl-C while a worker is being started makes asyncio wonder aloud where its child went.
    logging.getLogger("asyncio").setLevel(logging.ERROR)
    try:
        spec = _spec(profile, data, device, required_sandbox)
        baseline = seed_program(profile)
        request = _Request(
            name=_name(file or patch),
            patch=_patch(file, patch, baseline),
            baseline=baseline,
            spec=replace(spec, unsafe=unsafe_sandbox),
            steps=steps,
            seed=seed,
            preflight=not no_preflight,
        )
        report = asyncio.run(_tried(request))
    except (UsageError, BaselineError, WorkerRefused) as error:
        _end(EXIT_REFUSED, f"error: {error}")
    except BaselineFailure as failure:
        _end(EXIT_SANDBOX if failure.is_sandbox else EXIT_REFUSED, f"error: {failure}")
    except PoolError as error:
        _end(EXIT_SANDBOX, f"error: {error}")
    except OSError as error:  # no room for temporary files, or for another process
        _end(EXIT_SANDBOX, f"error: this machine does not let a worker start: {error}")
    except KeyboardInterrupt:
        _end(EXIT_STOPPED, "Stopped; nothing was kept.")
    _print(as_json(report) + "\n" if json else _drawn(report))
    if report.status is Status.SANDBOX_ERROR:
        raise typer.Exit(EXIT_SANDBOX)
    raise typer.Exit(EXIT_OK if report.status is Status.OK else EXIT_FAILED)


def _spec(profile: str, data: Path | None, device: str, level: str) -> WorkerSpec:
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    try:
        required_level = parse_level(level)
    except ValueError as error:
        raise UsageError(f"--required-sandbox cannot be {level!r}: {error}") from error
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device cannot be {device!r}: there are cpu, cuda, cuda:0 and so on")
    if data is not None and not data.exists():
        raise UsageError(f"--data {data} does not exist")
    return WorkerSpec(
        profile=profile,
        data_path=None if data is None else str(data),
        device=device,
        required_level=required_level,
    )


def _patch(file: Path | None, patch: Path | None, baseline: str) -> Patch:
    """Read what is to be tried, as a change to the baseline."""
    if file is not None and patch is None:
        return whole_file(_read(file), baseline)
    if patch is None or file is not None:
        raise UsageError("give one optimizer file, or --patch and a file with a patch")
    try:
        return from_json(_read(patch))
    except PatchError as error:
        raise UsageError(
            f"{patch} is not a patch as runs store it: {error}; of a unified diff, apply it to a "
            "copy of optim.py and give that file"
        ) from error


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise UsageError(
            f"{path} has more than {MAX_FILE_BYTES >> 20} MiB: no optimizer is so long"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8 text, see byte {error.start}") from error


def _name(path: Path | None) -> str:
    """Name a candidate after its file, as its tracebacks will."""
    return " ".join(clean_text(path.name if path else "").split())[:MAX_NAME] or "candidate"


async def _tried(request: _Request) -> Report:
    """Carry out a request.

    Raises:
        WorkerRefused, PoolError: there is no worker.
        BaselineFailure: there is nothing to compare with.
    """
    if request.preflight:
        foreign = not_an_edit(request.patch, request.baseline)
        if foreign is not None:
            return refusal(request.name, (foreign,))
        async with GuardedPreflight() as preflight:
            found = await preflight.examine(examination(request.patch, request.baseline))
        if found.accepted is None:
            return refusal(request.name, found.violations)
        program = Candidate(name=request.name, source=found.accepted.source)
        program = tuned_like(program, shipped_program(), request.baseline)
    else:
        try:
            source = apply_patch(request.patch, request.baseline)
        except PatchError as error:
            violation = Violation(rule="patch", line=1, text="", message=str(error))
            return refusal(request.name, (violation,))
        program = Candidate(name=request.name, source=source)
    pool = LocalPool(request.spec, 1)
    with _progress(pool):
        async with pool:
            report = await train_both(
                pool,
                candidate=program,
                baseline=request.baseline,
                seed=request.seed,
                steps=request.steps,
            )
    return replace(report, violations=() if request.preflight else None)


class _Doing:
    """What the pool is doing at the moment it is drawn."""

    def __init__(self, pool: LocalPool) -> None:
        self._pool = pool

    def __rich__(self) -> Text:
        for run in self._pool.running():
            return Text(f"training {run.job.source_name}, step {run.step} of {run.job.steps}")
        try:
            return Text(f"done at level S{self._pool.ready.sandbox_level}")
        except PoolError:
            return Text("starting a worker: it imports torch and tries out its own sandbox")


def _progress(pool: LocalPool) -> Live | nullcontext[None]:
    """Show what is going on, where somebody is watching."""
    console = Console(stderr=True)
    if not console.is_terminal:
        return nullcontext()
    return Live(
        Spinner("dots", text=_Doing(pool)),
        console=console,
        refresh_per_second=REFRESHES_PER_S,
        transient=True,
    )


def _drawn(report: Report) -> str:
    """Render a report for where it will be read."""
    is_terminal = sys.stdout.isatty()
    page = io.StringIO()
    console = Console(
        file=page,
        force_terminal=is_terminal,
        width=None if is_terminal else PLAIN_WIDTH,
        highlight=False,
    )
    print_report(console, report)
    return "\n".join(line.rstrip() for line in page.getvalue().split("\n"))


def _print(text: str) -> None:
    """Print the whole answer; a reader who has seen enough, as `head` has, is no failure."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):  # what is still buffered would fail again at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
        if error.errno != errno.EPIPE:
            _end(EXIT_SANDBOX, f"error: cannot write to standard output ({error.strerror})")


def _end(code: int, sentence: str) -> NoReturn:
    with suppress(OSError, AttributeError):  # standard error may be gone as well
        sys.stderr.write(f"{clean_text(sentence)}\n")
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
