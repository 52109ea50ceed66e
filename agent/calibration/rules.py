"""Rules that accept or reject a candidate, ours and those of other systems, on many trials at once.

A rule sees `Draws` and the score on record of every trial's champion, and says for each trial
whether it accepts, from how many training runs it knows, and what it would put on record. A rule
may only use as many columns as it reports runs for.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from agent.calibration.noise import Draws
from agent.statistics.paired_test import Design, boundaries

__all__ = [
    "Outcome",
    "Rule",
    "best_ever",
    "fixed_seeds",
    "sequential",
    "single_run",
    "unpaired_fixed",
]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a rule did in every trial.

    Attributes:
        accepted: (trials,) whether the candidate replaces the champion.
        candidate_runs: (trials,) training runs of the candidate that the decision took.
        champion_runs: (trials,) how many of the champion's runs it needed; those made for earlier
            candidates serve again, since they are on the champion's own list of seeds.
        measured: (trials,) the effect the rule would report.
        on_record: (trials,) the score the candidate would be remembered by.
    """

    accepted: NDArray[np.bool_]
    candidate_runs: NDArray[np.int64]
    champion_runs: NDArray[np.int64]
    measured: Array
    on_record: Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """A named rule and the number of seeds it may use at most."""

    name: str
    pairs: int
    decide: Callable[[Draws, Array], Outcome]


def sequential(design: Design) -> Rule:
    """Return the judge's own rule: `agent.statistics.paired_test.decide`, for many trials."""

    def apply(draws: Draws, recorded: Array) -> Outcome:
        stop = _stopped(draws.differences, design)
        return Outcome(
            accepted=stop.accepted,
            candidate_runs=stop.pairs,
            champion_runs=stop.pairs,
            measured=stop.mean,
            on_record=recorded,
        )

    return Rule(name="sequential paired test", pairs=design.max_pairs, decide=apply)


def best_ever() -> Rule:
    """Return the greedy rule: one run of the candidate beats the best score ever seen.

    The champion is remembered by the lucky score that elected it, and never run again.
    """

    def apply(draws: Draws, recorded: Array) -> Outcome:
        score = draws.candidate[:, 0]
        return Outcome(
            accepted=score < recorded,
            candidate_runs=np.ones(len(score), dtype=np.int64),
            champion_runs=np.zeros(len(score), dtype=np.int64),
            measured=score - recorded,
            on_record=score,
        )

    return Rule(name="best-ever greedy, one run", pairs=1, decide=apply)


def single_run(threshold_bpb: float) -> Rule:
    """Return the threshold rule: one run of the candidate beats the record by a margin."""

    def apply(draws: Draws, recorded: Array) -> Outcome:
        score = draws.candidate[:, 0]
        return Outcome(
            accepted=score < recorded - threshold_bpb,
            candidate_runs=np.ones(len(score), dtype=np.int64),
            champion_runs=np.zeros(len(score), dtype=np.int64),
            measured=score - recorded,
            on_record=score,
        )

    return Rule(name=f"single run, threshold {threshold_bpb:g}", pairs=1, decide=apply)


def fixed_seeds(seeds: int = 3, wins: int = 2) -> Rule:
    """Return the majority rule: the candidate is ahead on enough of a few shared seeds.

    The seeds never change, so the champion's scores on them are known and cost nothing. That a
    champion was elected on the very seeds it is then defended on is left out: generous to the rule.
    """

    def apply(draws: Draws, recorded: Array) -> Outcome:
        differences = draws.differences[:, :seeds]
        return Outcome(
            accepted=(differences < 0.0).sum(axis=1) >= wins,
            candidate_runs=np.full(len(differences), seeds, dtype=np.int64),
            champion_runs=np.zeros(len(differences), dtype=np.int64),
            measured=differences.mean(axis=1),
            on_record=recorded,
        )

    return Rule(name=f"{seeds} fixed seeds, {wins} wins", pairs=seeds, decide=apply)


def unpaired_fixed(runs_each: int, alpha: float = 0.05) -> Rule:
    """Return the textbook rule: a one-sided two-sample t-test on seeds of their own.

    The champion's runs are taken from other seeds than the candidate's, so a draw must have twice
    as many columns as each side has runs.
    """
    critical = float(stdtrit(2 * runs_each - 2, 1.0 - alpha))

    def apply(draws: Draws, recorded: Array) -> Outcome:
        candidate = draws.candidate[:, :runs_each]
        reference = draws.reference[:, runs_each : 2 * runs_each]
        spread = candidate.var(axis=1, ddof=1) + reference.var(axis=1, ddof=1)
        gap = candidate.mean(axis=1) - reference.mean(axis=1)
        return Outcome(
            accepted=gap < -critical * np.sqrt(spread / runs_each),
            candidate_runs=np.full(len(gap), runs_each, dtype=np.int64),
            champion_runs=np.full(len(gap), runs_each, dtype=np.int64),
            measured=gap,
            on_record=recorded,
        )

    return Rule(name=f"unpaired t-test, {runs_each} runs each", pairs=2 * runs_each, decide=apply)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stop:
    """Where every trial of a sequential test ended, and the mean difference it had then."""

    accepted: NDArray[np.bool_]
    pairs: NDArray[np.int64]
    mean: Array


def _stopped(differences: Array, design: Design) -> _Stop:
    """Look after every pair, at the trials that still go on.

    The conditions and their order are those of `agent.statistics.paired_test.decide`.
    """
    limits = boundaries(design)
    trials = len(differences)
    stop = _Stop(
        accepted=np.zeros(trials, dtype=np.bool_),
        pairs=np.full(trials, design.max_pairs, dtype=np.int64),
        mean=differences[:, : design.max_pairs].mean(axis=1),
    )
    going = np.arange(trials)
    for pairs in range(2, design.max_pairs + 1):
        seen = differences[going, :pairs]
        mean = seen.mean(axis=1)
        error = seen.std(axis=1, ddof=1) / math.sqrt(pairs)
        critical, limit = limits.critical[pairs - 1], limits.futile[pairs - 1]
        reach = np.full_like(error, math.inf) if math.isinf(critical) else critical * error
        negligible = mean - reach > -design.smallest_gain_bpb
        better = ~negligible & (mean + reach < 0.0)
        futile = np.zeros_like(better) if math.isinf(limit) else mean > limit * error
        ended = negligible | better | futile
        stop.accepted[going[better]] = True
        stop.pairs[going[ended]] = pairs
        stop.mean[going[ended]] = mean[ended]
        going = going[~ended]
    return stop
