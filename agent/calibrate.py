"""The command `python -m agent.calibrate`: how often is the judge wrong, and what does it miss?

Simulated (the default): the judge's rule and those of other systems on resampled real noise.
`--real`: candidates of known worth through the whole pipeline. `--make-pool`: measure the noise
that the simulations resample. Exit codes: 0 it ended, also when it was stopped with Ctrl-C; 1 an
error rate is demonstrably above its nominal value, or a bad optimizer was promoted; 2 the request
was refused; 3 the sandbox failed, or standard output was lost.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.markdown import Markdown

from agent.calibration.as_json import as_json
from agent.calibration.measuring import MeasuringError
from agent.calibration.plants import PlantError
from agent.calibration.pool import PoolError as NoiseError
from agent.calibration.pool import pool_of, write_pool
from agent.calibration.published import OnPublished, calibrate_on
from agent.calibration.published_tables import published_tables
from agent.calibration.real import Programme
from agent.calibration.real_tables import NOMINAL_CLAIMS, faults, real_tables
from agent.calibration.record import RecordMismatchError
from agent.calibration.request import Asked, Mode, UsageError
from agent.calibration.shipped import find_pool, shipped_pools
from agent.calibration.simulated import Calibration, Plan, calibrate
from agent.calibration.sitting import measured, sit
from agent.calibration.tables import tables
from agent.calibration.trial import TrialError
from agent.evaluations import SandboxError
from agent.output import OutputLostError, printing, say
from agent.run_folder import RunFolderError, find_run
from agent.settings import SettingsError
from agent.track3.submissions import LogsError
from agent.words import counted
from db.store import Store, StoreError
from sandbox.baseline import BaselineError, seed_program
from sandbox.executor import PoolError, WorkerRefused
from sandbox.protocol import clean_text

__all__ = ["app"]

EXIT_FAULT, EXIT_REFUSED, EXIT_SANDBOX = 1, 2, 3
MAX_SEED = 2**31 - 1
LEAST_TRIALS = 100
DEFAULT_PLAN = Plan()
DEFAULT_PROGRAMME = Programme(tuned="")

# What the user can mend; everything else is a defect and shows its traceback.
REFUSALS = (
    UsageError,
    NoiseError,
    LogsError,
    SettingsError,
    RecordMismatchError,
    RunFolderError,
    StoreError,
    BaselineError,
    PlantError,
    MeasuringError,
    WorkerRefused,
    OSError,
)

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(  # noqa: PLR0913 - typer: one parameter for each flag
    *,
    simulated: Annotated[
        bool,
        typer.Option("--simulated", help="Resample recorded noise, the default: takes seconds."),
    ] = False,
    real: Annotated[
        bool,
        typer.Option("--real", help="Train: candidates of known worth through the whole pipeline."),
    ] = False,
    pool: Annotated[
        list[str] | None,
        typer.Option(
            help="Simulated: the noise to resample, a pool's file or the name of one that comes "
            "with the project; may be repeated. All that come with it."
        ),
    ] = None,
    track3: Annotated[
        list[Path] | None,
        typer.Option(
            help="Simulated: published runs (logs, folders or tables of curves, as agent.track3 "
            "takes them) to measure stage correlations and rules on; may be repeated."
        ),
    ] = None,
    trials: Annotated[
        int,
        typer.Option(min=LEAST_TRIALS, help="Simulated: comparisons per rule and gain."),
    ] = DEFAULT_PLAN.trials,
    searches: Annotated[
        int, typer.Option(min=LEAST_TRIALS, help="Simulated: whole searches per rule.")
    ] = DEFAULT_PLAN.searches,
    gain: Annotated[
        list[float] | None,
        typer.Option(help="Simulated: a gain to plant, in bits per byte; may be repeated."),
    ] = None,
    paired_sd: Annotated[
        float | None,
        typer.Option(
            help="Simulated: scale the noise of every comparison to this sd, in bits per byte."
        ),
    ] = None,
    aa: Annotated[
        int,
        typer.Option(min=1, help="Real: trials of candidates that differ by luck alone."),
    ] = DEFAULT_PROGRAMME.aa,
    repeats: Annotated[
        int, typer.Option(min=0, help="Real: trials of each planted gain.")
    ] = DEFAULT_PROGRAMME.repeats,
    effect_pairs: Annotated[
        int, typer.Option(min=2, help="Real: pairs on which each planted gain is measured.")
    ] = DEFAULT_PROGRAMME.effect_pairs,
    record: Annotated[
        Path | None,
        typer.Option(
            help="Real: keep finished trials in this file, and go on with those it holds."
        ),
    ] = None,
    make_pool: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Measure a pool and write it: the tuned program and changes of its knobs, on "
            "--pool-seeds seeds; with --from-run, from what a run has trained already.",
        ),
    ] = None,
    pool_seeds: Annotated[int, typer.Option(min=8, max=10_000, help="Seeds of a new pool.")] = 64,
    first_seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="The first of them; the others follow it.")
    ] = 70_000,
    from_run: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="A run's folder, its id or latest, to take a pool from."),
    ] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of the resampling, or of all trials.")
    ] = 1,
    profile: Annotated[
        str, typer.Option(help="Size of the training runs: micro, cpu or gpu.")
    ] = "micro",
    workers: Annotated[
        int,
        typer.Option(min=1, max=1024, help="Programs trained at the same time; one per core."),
    ] = len(os.sched_getaffinity(0)),
    data: Annotated[
        Path | None,
        typer.Option(help="Text file, folder of text or parquet file to train on."),
    ] = None,
    device: Annotated[
        str, typer.Option(help="Where the model is trained: cpu, cuda or cuda:N.")
    ] = "cpu",
    runs_dir: Annotated[Path, typer.Option(help="Where runs are looked up.")] = Path("runs"),
    required_sandbox: Annotated[
        str, typer.Option(help="The lowest sandbox level, S0 to S4, to train at.")
    ] = "S2",
    unsafe_sandbox: Annotated[
        bool,
        typer.Option("--unsafe-sandbox", help="Train below the required level all the same."),
    ] = False,
    json: Annotated[
        bool,
        typer.Option("--json", help="Print one JSON object, described in docs/calibration.md."),
    ] = False,
) -> None:
    """Measure how often the judge is fooled, what it finds and what it misses."""
    flags = dict(locals())
    try:
        code = _carried_out(Asked(**flags))
    except (SandboxError, PoolError, TrialError, OutputLostError) as error:
        _end(EXIT_SANDBOX, f"error: {error}")
    except REFUSALS as error:
        _end(EXIT_REFUSED, f"error: {error}")
    except KeyboardInterrupt:
        say("Stopped; nothing is known yet.")
        code = 0
    raise typer.Exit(code)


def _carried_out(asked: Asked) -> int:
    """Do what was asked and return the exit code."""
    if asked.mode is Mode.REAL:
        return _really(asked)
    if asked.mode is Mode.MAKE_POOL and asked.make_pool is not None:
        return _make_pool(asked, asked.make_pool)
    return _simulated(asked)


def _simulated(asked: Asked) -> int:
    plan = asked.plan()
    pools = [(name, find_pool(name)) for name in asked.pool or shipped_pools()]
    found = {}
    for name, pool in pools:
        try:
            found[name] = calibrate(pool, plan, seed=asked.seed)
        except ValueError as error:
            raise UsageError(f"{name}: {error}: plant a larger --gain") from error
    published: OnPublished | None = None
    if asked.track3:
        published = calibrate_on(asked.track3, plan.design, trials=asked.trials, seed=asked.seed)
    if asked.json:
        _print(as_json({"pools": found, "published": published}) + "\n")
    else:
        parts = [f"## {name}\n\n{tables(one)}" for name, one in found.items()]
        parts += [] if published is None else [f"## track3\n\n{published_tables(published)}"]
        _print("\n".join(parts), is_markdown=True)
    return EXIT_FAULT if any(map(_is_faulty, found.values())) else 0


def _is_faulty(found: Calibration) -> bool:
    """Whether an error rate lies above its nominal value, by more than its interval."""
    judge = found.replayed[0]
    claims = (judge.of_nothing.claims, found.false_claims)
    return judge.points[0].accepted.low > found.alpha or any(
        rate.low > NOMINAL_CLAIMS for rate in claims
    )


def _really(asked: Asked) -> int:
    settings, programme = asked.settings(), asked.programme()
    sitting = asyncio.run(sit(programme, settings, asked.record))
    alpha = DEFAULT_PLAN.design.alpha
    wrong = faults(sitting.results, alpha)
    if asked.json:
        record = {
            "alpha": alpha,
            "stopped": sitting.is_stopped,
            "results": sitting.results,
            "faults": wrong,
        }
        _print(as_json(record) + "\n")
    else:
        _print(real_tables(sitting.results, alpha), is_markdown=True)
    if sitting.trouble:
        say(f"error: {clean_text(sitting.trouble)}")
        return EXIT_SANDBOX
    if sitting.is_stopped and asked.record is not None:
        say(f"Stopped; the same command goes on with what {asked.record} holds.")
    return EXIT_FAULT if wrong else 0


def _make_pool(asked: Asked, target: Path) -> int:
    if target.is_dir() or not os.access(target.parent, os.W_OK):
        raise UsageError(
            f"--make-pool {target} cannot be written: name a file in a folder of yours"
        )
    if asked.from_run is not None:
        folder = find_run(asked.from_run, asked.runs_dir)
        with Store.open(folder, exclusive=False) as store:
            facts = store.run().facts
            origin = f"profile {facts['profile']}, programs that a search compared"
            pool = pool_of(store.evaluations(), steps=int(facts["steps"]), origin=origin)
    else:
        seeds: Sequence[int] = range(asked.first_seed, asked.first_seed + asked.pool_seeds)
        fresh = asyncio.run(measured(asked.settings(), seed_program(asked.profile), seeds))
        if fresh is None:
            say(f"Stopped; {target} was not written.")
            return 0
        pool = fresh
    write_pool(pool, target)
    count = len(pool.comparisons)
    _print(
        f"{target}: {counted(count, 'comparison')}, {pool.cpu_s_per_run:.3g} CPU seconds a run\n"
    )
    return 0


def _print(text: str, *, is_markdown: bool = False) -> None:
    with printing("nothing was kept", silent_if_closed=True):
        if is_markdown and sys.stdout.isatty():
            Console().print(Markdown(text))
        else:
            sys.stdout.write(text)
        sys.stdout.flush()


def _end(code: int, sentence: str) -> NoReturn:
    say(clean_text(sentence))
    raise typer.Exit(code)


if __name__ == "__main__":
    app()
