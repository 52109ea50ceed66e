"""Start workers, train what a calibration needs, and end with what is known when stopped."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.calibration.measuring import measure_pool
from agent.calibration.pool import Pool
from agent.calibration.progress import counting
from agent.calibration.real import Programme, Result, facts_of, results, run_trials, trial_count
from agent.calibration.record import Record
from agent.calibration.trial import Trial, TrialError
from agent.evaluations import SandboxError
from agent.settings import Settings
from agent.signals import stoppable
from sandbox.executor import LocalPool, PoolError

__all__ = ["Sitting", "measured", "sit"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """What is known when there are no more trials; `trouble` is why, where the sandbox failed."""

    results: tuple[Result, ...]
    is_stopped: bool = False
    trouble: str = ""


async def sit(programme: Programme, settings: Settings, path: Path | None) -> Sitting:
    """Put plants through the pipeline until all are done, it is stopped, or the sandbox fails.

    Args:
        programme: what there is to be.
        settings: of the runs.
        path: where finished trials are kept; None keeps none.

    Raises:
        WorkerRefused, PoolError: no worker could be started.
        RecordMismatchError: the file was made under other facts.
        OSError: the file cannot be read or written.
    """
    pool = LocalPool(settings.worker_spec(), settings.workers)
    record: Record | None = None
    trouble = ""
    with stoppable() as stopper, counting("trials") as tell:
        try:
            async with pool:
                total = trial_count(programme)
                with Record(path, facts_of(pool, programme, settings)) as record:

                    def watch(trial: Trial) -> None:
                        tell(len(known.trials), total, _words(trial))

                    known = record
                    await run_trials(pool, programme, record, settings=settings, watch=watch)
        except asyncio.CancelledError:
            if not stopper.is_requested:
                raise
        except (PoolError, SandboxError, TrialError) as error:
            # Ctrl-C reaches the workers as well.
            if record is None and not stopper.is_requested:
                raise
            trouble = "" if stopper.is_requested else str(error)
    found = () if record is None else results(programme, record)
    return Sitting(results=found, is_stopped=stopper.is_requested, trouble=trouble)


async def measured(settings: Settings, tuned: str, seeds: Sequence[int]) -> Pool | None:
    """Measure a pool; None if it was stopped.

    Raises:
        MeasuringError: a program failed.
        WorkerRefused, PoolError, SandboxError: the sandbox failed.
    """
    workers = LocalPool(settings.worker_spec(), settings.workers)
    with stoppable() as stopper, counting("training runs") as tell:

        def watch(done: int, total: int) -> None:
            tell(done, total, "")

        try:
            async with workers:
                return await measure_pool(
                    workers, tuned, seeds, slots=settings.workers, watch=watch
                )
        except (asyncio.CancelledError, PoolError, SandboxError):
            if not stopper.is_requested:
                raise
            return None


def _words(trial: Trial) -> str:
    outcome = f"not promoted, {trial.ended_at}"
    if trial.promoted:
        outcome = f"promoted, {'claimed' if trial.claimed else 'not claimed'}"
    return f"{trial.plant} {outcome}"
