"""What a confirmation has found so far, part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from statistics import fmean, stdev

from agent.confirmation.plan import Condition, Part, Plan
from agent.confirmation.variants import Gate
from agent.duel import Duel, Ending
from agent.effects import Effect, paired_effect, single_pair
from agent.statistics.multiplicity import paired_p_value
from agent.statistics.paired_test import Decision, DecisionKind
from agent.words import counted
from sandbox.jobs import Outcome, Status

__all__ = [
    "Findings",
    "GateTest",
    "RatePoint",
    "Rates",
    "Standing",
    "Tested",
    "count_pairs",
    "interval_of",
]

# Of each condition beside the sealed one: a level needs all of its conditions.
SIDE_ALPHA = 0.05

EXTENSION = math.sqrt(2.0)  # from one multiple of the learning rates to the next


class Standing(StrEnum):
    """How a condition or a level came out."""

    HELD = "held"
    FAILED = "failed"
    NOT_TESTED = "not_tested"
    NOT_APPLICABLE = "not_applicable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Tested:
    """One condition, and the pairs trained for it; `trouble` says why there are none."""

    condition: Condition
    duel: Duel | None = None
    trouble: str = ""

    @property
    def differences(self) -> tuple[float, ...]:
        """Program minus baseline of every whole pair."""
        return () if self.duel is None else self.duel.differences

    @property
    def is_complete(self) -> bool:
        """Whether every pair that was planned has a difference."""
        return len(self.differences) == self.condition.pairs

    @property
    def effect(self) -> Effect | None:
        """The mean difference with its interval; None with fewer than two pairs."""
        return interval_of(self.differences)

    @property
    def p(self) -> float | None:
        """The p-value of "the program is not better"; None before all pairs are there."""
        return paired_p_value(self.differences) if self.is_complete else None

    @property
    def standing(self) -> Standing:
        """Whether the program was shown to be better under this condition alone."""
        if self.trouble:
            return Standing.NOT_APPLICABLE
        if self.duel is not None and self.duel.ending is Ending.FAILED:
            return Standing.FAILED
        if self.p is None:
            return Standing.NOT_TESTED
        return Standing.HELD if self.p <= SIDE_ALPHA else Standing.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class RatePoint:
    """A program at one multiple of its learning rates: the variant's text and its runs."""

    factor: float
    source: str
    runs: tuple[Outcome, ...]

    @property
    def bpb(self) -> float:
        """The mean score over the seeds; infinite if a run has none."""
        scores = [run.bpb for run in self.runs if run.bpb is not None]
        return fmean(scores) if scores and len(scores) == len(self.runs) else math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The sweep of learning rates, of the program and of its baseline, on the same seeds."""

    ours: tuple[RatePoint, ...]
    theirs: tuple[RatePoint, ...]

    @property
    def best_ours(self) -> RatePoint:
        """Where the program is at its best: at its own rates, unless others are clearly better.

        Clearly is by more than a standard error; a rate picked by luck would only loosen the pairs.
        """
        best, own = _best(self.ours), _own(self.ours)
        return best if _is_clear(best, own) else own

    @property
    def best_theirs(self) -> RatePoint:
        """Where the baseline is at its best, by however little."""
        return _best(self.theirs)

    @property
    def own_theirs(self) -> RatePoint:
        """The baseline as it was tuned."""
        return _own(self.theirs)

    def further_factors(self) -> tuple[float, ...]:
        """Return the next multiples beyond each edge at which either side is at its best."""
        factors = [point.factor for point in self.ours]
        best = {_best(self.ours).factor, _best(self.theirs).factor}
        further = []
        if factors[0] in best:
            further.append(float(f"{factors[0] / EXTENSION:.2g}"))
        if factors[-1] in best:
            further.append(float(f"{factors[-1] * EXTENSION:.2g}"))
        return tuple(further)

    def joined(self, more: Rates) -> Rates:
        """Return both sweeps as one, in the order of the multiples."""
        ours, theirs = (
            tuple(sorted((*mine, *new), key=lambda point: point.factor))
            for mine, new in ((self.ours, more.ours), (self.theirs, more.theirs))
        )
        return Rates(ours=ours, theirs=theirs)

    @property
    def differences(self) -> tuple[float, ...]:
        """For every seed the mean over multiples of program minus baseline at that multiple.

        A multiple at which either fails on any seed is left out of all.
        """
        both = [
            (ours, theirs)
            for ours, theirs in zip(self.ours, self.theirs, strict=True)
            if math.isfinite(ours.bpb) and math.isfinite(theirs.bpb)
        ]
        per_factor = [
            [_score(mine) - _score(other) for mine, other in zip(a.runs, b.runs, strict=True)]
            for a, b in both
        ]
        return tuple(fmean(column) for column in zip(*per_factor, strict=True))

    @property
    def p(self) -> float | None:
        """The p-value of "over all multiples together the program is not better"."""
        differences = self.differences
        return paired_p_value(differences) if len(differences) > 1 else None

    @property
    def standing(self) -> Standing:
        """Whether the program is better over all multiples together."""
        if self.p is None or len(self.ours) == 1:
            return Standing.NOT_APPLICABLE
        return Standing.HELD if self.p <= SIDE_ALPHA else Standing.FAILED


@dataclass(frozen=True, slots=True, kw_only=True)
class GateTest:
    """What a program's gate listens to, and the program against itself with a deaf gate."""

    gate: Gate
    duel: Duel


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """Everything found so far.

    `neutral` compares the baseline with an edit of it that changes nothing, `bad` with the
    baseline at learning rates far too small. `stateless` is a run of an optimizer that keeps
    nothing. `gate` is None as long as it was not tested, and for a program without one.
    `at_own_rates` is the sealed comparison with the baseline as it was tuned, made where the sweep
    found it better at other rates.
    """

    plan: Plan
    neutral: Duel | None = None
    bad: Duel | None = None
    rates: Rates | None = None
    stateless: Outcome | None = None
    has_gate: bool = False
    gate: GateTest | None = None
    tested: tuple[Tested, ...] = ()
    at_own_rates: Tested | None = None

    @property
    def sealed(self) -> Tested | None:
        """Return the harder of the two comparisons on sealed text.

        A win must be one against both. A few seeds may take a baseline to worse rates than its
        own; to beat it there alone would be no win.
        """
        first, own = self.of(Part.SEALED), self.at_own_rates
        if first is None or own is None:
            return first
        return max(first, own, key=lambda found: math.inf if found.p is None else found.p)

    def of(self, part: Part) -> Tested | None:
        """Return what was found under one condition, if that was begun."""
        return next((t for t in self.tested if t.condition.part is part), None)


def interval_of(differences: Sequence[float]) -> Effect | None:
    """Estimate a mean difference with its 95 % interval; None for fewer than two differences."""
    return paired_effect(differences) if len(differences) > 1 else None


def count_pairs(differences: Sequence[float]) -> Decision:
    """Never stop early: the number of pairs of a confirmation is fixed in advance."""
    return Decision(
        kind=DecisionKind.CONTINUE,
        effect=interval_of(differences) or single_pair(differences[0]),
        log_e=0.0,
        reason=f"{counted(len(differences), 'pair')}, their number fixed in advance",
    )


def _best(points: Sequence[RatePoint]) -> RatePoint:
    """Return the point with the best mean; of equals the one nearest to the program's own rate."""
    return min(points, key=lambda point: (point.bpb, abs(math.log(point.factor))))


def _own(points: Sequence[RatePoint]) -> RatePoint:
    return next(point for point in points if point.factor == 1.0)


def _is_clear(best: RatePoint, own: RatePoint) -> bool:
    """Whether one point is better than another by more than a standard error."""
    if not math.isfinite(own.bpb) or not math.isfinite(best.bpb):
        return math.isfinite(best.bpb)
    gains = [_score(mine) - _score(usual) for mine, usual in zip(best.runs, own.runs, strict=True)]
    if len(gains) == 1:
        return gains[0] < 0.0
    return fmean(gains) + stdev(gains) / math.sqrt(len(gains)) < 0.0


def _score(run: Outcome) -> float:
    if run.status is not Status.OK or run.bpb is None:
        raise ValueError("a run without a score has no difference")
    return run.bpb
