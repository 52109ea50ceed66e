"""What training runs show besides their scores: cost, speed, stability.

Everything here was measured by the trusted side: losses, gradients, CPU time and memory are the
worker's readings, never the candidate's word.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from agent.duel import Pair
from sandbox.jobs import Outcome, Status

__all__ = [
    "STATELESS_PROGRAM",
    "Costs",
    "Speed",
    "Stability",
    "costs_of",
    "count_spikes",
    "speed_of",
    "stability_of",
]

# A gradient so many times the median of those before it. A mini-batch alone moves the norm by some
# ten per cent; what the usual clipping thresholds are there for is a factor of several.
SPIKE_FACTOR = 4.0
SPIKE_WINDOW = 20
SPIKE_LEAST = 10  # steps before a median means something

SMOOTHING_SHARE = 20  # losses are averaged over a twentieth of the run

# Plain gradient descent keeps nothing: what its jail holds is what any jail holds.
STATELESS_PROGRAM = '''"""Gradient descent, which keeps nothing."""

import torch


class Stateless(torch.optim.Optimizer):
    """Gradient descent."""

    def observe(self, state):
        """Take no notice."""

    def step(self):
        """Move a little downhill."""
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.data.add_(tensor.grad, alpha=-1e-3)


def build_optimizer(params, horizon):
    """Return the optimizer."""
    return Stateless([param.tensor for param in params], {})
'''


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """What a run of the program costs, beside one of its baseline.

    `cpu_ratio` compares the optimizers' own CPU time, `run_cpu_ratio` that of whole runs, each as
    the median over pairs. State bytes are the memory an optimizer holds at the end beyond one that
    keeps nothing, workspace included; None where the machine does not tell.
    """

    cpu_ratio: float | None
    run_cpu_ratio: float | None
    state_bytes: int | None
    baseline_state_bytes: int | None
    peak_bytes: int
    baseline_peak_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Speed:
    """How soon the program gets to the loss its baseline ends with.

    `step_ratio` is the median over pairs of its steps in units of the baseline's, infinite if it
    mostly never gets there; `reached` of `pairs` got there. Losses are those of training, averaged
    over a twentieth of the run.
    """

    step_ratio: float
    reached: int
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """What went wrong in the runs of one program: `failures` of `runs` ended without a score."""

    runs: int
    failures: int
    non_finite: int
    spikes_per_run: float


def costs_of(pairs: Sequence[Pair], stateless: Outcome | None) -> Costs:
    """Compare what both programs of some pairs cost.

    Args:
        pairs: at least one.
        stateless: a run of `STATELESS_PROGRAM`, if there is one.
    """
    floor = _resident(stateless) if stateless is not None else None
    return Costs(
        cpu_ratio=_ratio(pairs, lambda run: run.jail_cpu_s),
        run_cpu_ratio=_ratio(pairs, lambda run: run.jail_cpu_s + run.train_cpu_s),
        state_bytes=_state_bytes([pair.candidate for pair in pairs], floor),
        baseline_state_bytes=_state_bytes([pair.incumbent for pair in pairs], floor),
        peak_bytes=max(pair.candidate.peak_memory_bytes for pair in pairs),
        baseline_peak_bytes=max(pair.incumbent.peak_memory_bytes for pair in pairs),
    )


def speed_of(pairs: Sequence[Pair]) -> Speed | None:
    """Compare when both programs of some pairs get to the baseline's last loss.

    Returns:
        None where no pair has the losses of both.
    """
    ratios = []
    for pair in pairs:
        ours, theirs = _smoothed(pair.candidate), _smoothed(pair.incumbent)
        if not ours or not theirs or pair.difference is None:
            continue
        target = theirs[-1]
        ratios.append(_first_below(ours, target) / _first_below(theirs, target))
    if not ratios:
        return None
    reached = sum(math.isfinite(ratio) for ratio in ratios)
    return Speed(step_ratio=median(ratios), reached=reached, pairs=len(ratios))


def stability_of(runs: Sequence[Outcome]) -> Stability:
    """Count what went wrong in the runs of one program."""
    spikes = [count_spikes(norms) for norms in map(_norms, runs)]
    return Stability(
        runs=len(runs),
        failures=sum(run.status is not Status.OK for run in runs),
        non_finite=sum(
            run.status is Status.NAN or not all(map(math.isfinite, _norms(run))) for run in runs
        ),
        spikes_per_run=fmean(spikes) if spikes else 0.0,
    )


def count_spikes(norms: Sequence[float]) -> int:
    """Count gradients far larger than the median of those before them; infinite ones are some."""
    count = 0
    for at in range(SPIKE_LEAST, len(norms)):
        before = [n for n in norms[max(0, at - SPIKE_WINDOW) : at] if math.isfinite(n)]
        usual = median(before) if before else math.inf
        count += not norms[at] <= SPIKE_FACTOR * usual
    return count


def _ratio(pairs: Sequence[Pair], cost: Callable[[Outcome], float]) -> float | None:
    ratios = [cost(p.candidate) / cost(p.incumbent) for p in pairs if cost(p.incumbent) > 0.0]
    return median(ratios) if ratios else None


def _state_bytes(runs: Sequence[Outcome], floor: int | None) -> int | None:
    held = [bytes_ for bytes_ in map(_resident, runs) if bytes_ is not None]
    return None if floor is None or not held else max(0, round(median(held)) - floor)


def _resident(run: Outcome) -> int | None:
    return None if run.vitals is None else run.vitals.resident_bytes


def _norms(run: Outcome) -> list[float]:
    return [] if run.vitals is None else [norm for _, norm in run.vitals.gradient_norms]


def _smoothed(run: Outcome) -> list[float]:
    """Return the mean loss of the last few steps, at every step that has so many before it."""
    losses = [loss for _, loss in run.curve]
    width = max(1, len(losses) // SMOOTHING_SHARE)
    sums = [0.0, *itertools.accumulate(losses)]
    return [(sums[at] - sums[at - width]) / width for at in range(width, len(sums))]


def _first_below(losses: Sequence[float], target: float) -> float:
    """Count the steps until a loss is at most the target; infinite if none is."""
    reached = [step for step, loss in enumerate(losses, start=1) if loss <= target]
    return reached[0] if reached else math.inf
