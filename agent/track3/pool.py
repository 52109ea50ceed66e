"""Lend the noise of published runs to calibration: real optimizers, real seeds.

Runs of one submission differ by seed alone, runs of different submissions by real effects too;
no two runs share a seed in the sense of a pair. What cannot be judged is left out with its
reason, and a run that stands in the logs twice is lent once: resampling from repeats would make
the noise look smaller than it is.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.track3.runs import Run
from agent.track3.submissions import Submission, borrowed, collect
from agent.track3.verdicts import common_steps, why_malformed

__all__ = ["Pool", "Pooled", "load_pool"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pooled:
    """One optimizer's runs.

    Attributes:
        name: the submission.
        planned_steps: how many steps the runs' schedule was made for.
        final_step: the last step at which all runs were validated.
        final_nats: loss at that step by seed, in nats per token. Seeds are those the logs tell;
            where one of them tells none, runs are numbered from 1 in the order they were read.
        curves: loss by step, by seed; a run may have steps the others lack.
    """

    name: str
    planned_steps: int
    final_step: int
    final_nats: Mapping[int, float]
    curves: Mapping[int, Mapping[int, float]]

    def at(self, step: int) -> dict[int, float]:
        """Return the losses by seed of the runs that were validated at a step."""
        return {seed: curve[step] for seed, curve in self.curves.items() if step in curve}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """All usable submissions by name, and why others were left out, by name."""

    submissions: Mapping[str, Pooled]
    left_out: Mapping[str, str]


def load_pool(paths: Iterable[Path]) -> Pool:
    """Load logs and tables of curves as a pool of final losses and validation curves.

    Args:
        paths: files, folders or PATH:NAME, as the command takes them.

    Raises:
        LogsError: a path does not exist or cannot be read, or nothing in it is a log.
    """
    usable: dict[str, Pooled] = {}
    left_out: dict[str, str] = {}
    submissions = collect(list(paths)).submissions
    twice = borrowed(submissions)
    for submission in submissions:
        faults = why_malformed(submission) or _diverged(submission.runs)
        faults += tuple(
            f"{repeat.run.place}: this run is the one at {repeat.of.place}"
            for repeat in twice.get(submission.name, ())
        )
        if faults:
            left_out[submission.name] = "; ".join(faults)
        else:
            usable[submission.name] = _pooled(submission)
    return Pool(submissions=usable, left_out=left_out)


def _diverged(runs: Sequence[Run]) -> tuple[str, ...]:
    """Name the runs without a finite final loss: they have no place in a pool of numbers."""
    final = common_steps(runs)[-1]
    return tuple(
        f"{run.place}: the loss is {run.losses[final]} at step {final}"
        for run in runs
        if not math.isfinite(run.losses[final])
    )


def _pooled(submission: Submission) -> Pooled:
    runs = submission.runs
    final = common_steps(runs)[-1]
    seeds = [run.seed for run in runs if run.seed is not None]
    numbers = seeds if len(seeds) == len(runs) else range(1, len(runs) + 1)
    by_seed = dict(zip(numbers, runs, strict=True))
    return Pooled(
        name=submission.name,
        planned_steps=runs[0].planned_steps,
        final_step=final,
        final_nats={seed: run.losses[final] for seed, run in by_seed.items()},
        curves={seed: run.losses for seed, run in by_seed.items()},
    )
