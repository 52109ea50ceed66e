"""Rank programs that were measured on the same seeds, with intervals that hold together.

Every difference is paired. The number of seeds was fixed beforehand, so Student's t applies; and
since a table of many programs invites the reader to look for the largest difference, the error is
divided by the number of differences (Bonferroni): all intervals hold at once.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Any

from scipy.special import stdtrit

from agent.statistics.paired_test import Effect

__all__ = ["Entry", "Standing", "paired_effect", "standings"]

ERROR = 0.05  # of all intervals of a table together
LEAST_SEEDS = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A program as it was measured.

    Attributes:
        name: what it is called.
        tuning: in words, how its knobs were found.
        bpb: its score on each seed of the table; None where it failed.
        own_bpb: the same with the knobs it came with; empty where it was not tuned here.
        jail_cpu_s: mean CPU time of its optimizer in a run.
        knobs: those it was measured with.
    """

    name: str
    tuning: str
    bpb: tuple[float | None, ...]
    own_bpb: tuple[float | None, ...]
    jail_cpu_s: float
    knobs: Mapping[str, Any]

    @property
    def mean_bpb(self) -> float:
        """Mean score; infinite where a run failed, which sorts last."""
        return _mean(self.bpb)

    @property
    def own_mean_bpb(self) -> float | None:
        """Mean score with the knobs it came with."""
        return _mean(self.own_bpb) if self.own_bpb else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """An entry's place. It is one of `best_rank` to `worst_rank`, as far as the seeds can tell.

    `effect` is entry minus anchor; None for the anchor itself and where a run failed.
    """

    entry: Entry
    best_rank: int
    worst_rank: int
    effect: Effect | None
    cpu_ratio: float


def standings(entries: Sequence[Entry], anchor: str) -> tuple[Standing, ...]:
    """Rank entries, best first.

    Args:
        entries: measured on the same seeds.
        anchor: the name of the one that others are compared with.

    Raises:
        ValueError: there is no such entry, or the numbers of seeds differ or are too small.
    """
    counts = {len(entry.bpb) for entry in entries}
    if len(counts) != 1 or min(counts) < LEAST_SEEDS:
        raise ValueError(f"entries need the same two seeds or more, found {sorted(counts)}")
    reference = next((entry for entry in entries if entry.name == anchor), None)
    if reference is None:
        raise ValueError(f"there is no entry {anchor!r}")
    couples = math.comb(len(entries), 2)
    better: dict[str, int] = dict.fromkeys((entry.name for entry in entries), 0)
    worse = dict(better)
    for first, second in itertools.combinations(entries, 2):
        effect = paired_effect(first, second, ERROR / couples)
        difference = _sign(first, second, effect)
        if difference:
            ahead, behind = (first, second) if difference < 0 else (second, first)
            worse[ahead.name] += 1
            better[behind.name] += 1
    found = [
        Standing(
            entry=entry,
            best_rank=1 + better[entry.name],
            worst_rank=len(entries) - worse[entry.name],
            effect=None
            if entry is reference
            else paired_effect(entry, reference, ERROR / (len(entries) - 1)),
            cpu_ratio=entry.jail_cpu_s / reference.jail_cpu_s
            if reference.jail_cpu_s > 0.0
            else math.nan,
        )
        for entry in entries
    ]
    return tuple(sorted(found, key=lambda standing: standing.entry.mean_bpb))


def paired_effect(first: Entry, second: Entry, error: float) -> Effect | None:
    """Return first minus second with an interval that misses with probability `error`."""
    pairs = zip(first.bpb, second.bpb, strict=True)
    differences = [a - b for a, b in pairs if a is not None and b is not None]
    count = len(differences)
    if count < len(first.bpb):
        return None
    mean = fmean(differences)
    half = float(stdtrit(count - 1, 1.0 - error / 2.0)) * stdev(differences) / math.sqrt(count)
    return Effect(mean=mean, low=mean - half, high=mean + half, pairs=count)


def _sign(first: Entry, second: Entry, effect: Effect | None) -> int:
    """Say which of two is certainly better: -1 the first, 1 the second, 0 neither."""
    if effect is None:  # a program that failed is behind one that did not
        return (first.mean_bpb > second.mean_bpb) - (first.mean_bpb < second.mean_bpb)
    return (effect.low > 0.0) - (effect.high < 0.0)


def _mean(scores: Sequence[float | None]) -> float:
    found = [score for score in scores if score is not None]
    return fmean(found) if found and len(found) == len(scores) else math.inf
