"""Decide whether a program can do without something, with a margin that matters.

That no difference was shown is no evidence of absence. So two one-sided tests are asked: is being
without worse by the margin or more, and is it better by that much? Both are answered by the
confidence sequence of `agent.statistics.paired_test`, each of whose ends is wrong with probability
at most alpha whenever it is looked at: what is called equivalent truly costs the margin or more in
at most that share of cases, however often one looked.

Source: Schuirmann 1987, "A comparison of the two one-sided tests procedure and the power approach
for assessing the equivalence of average bioavailability", J. Pharmacokinet. Biopharm. 15(6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.statistics.paired_test import Decision, DecisionKind, Design, Effect, decide

__all__ = ["Equivalence", "Use", "use_of"]

SAME_PAIRS = 3  # so many scores equal to the last bit are no accident


class Use(StrEnum):
    """What a part was found to do, from what happens without it."""

    NOTHING = "nothing"
    TOO_LITTLE = "too little"
    HARM = "harm"
    GOOD = "good"
    NEEDED = "needed"
    UNCLEAR = "unclear"

    @property
    def is_droppable(self) -> bool:
        """Whether the program can do without."""
        return self in {Use.NOTHING, Use.TOO_LITTLE, Use.HARM}


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivalence:
    """The test: differences are without minus with, in bits per byte.

    `margin_bpb` is the smallest effect of interest. Of the design, alpha, the pairs and the prior
    are used.
    """

    margin_bpb: float
    design: Design

    def __call__(self, differences: Sequence[float]) -> Decision:
        """Accept if the program can do without, reject if it cannot or if it stays unclear."""
        found = decide(differences, self.design)
        use = use_of(differences, found.effect, self)
        pairs = found.effect.pairs
        reason = f"{_REASONS[use]} after {pairs} pairs".format(margin=self.margin_bpb)
        kind = DecisionKind.ACCEPT if use.is_droppable else DecisionKind.REJECT
        if use is Use.UNCLEAR and pairs < self.design.max_pairs:
            kind = DecisionKind.CONTINUE
        return Decision(kind=kind, effect=found.effect, log_e=found.log_e, reason=reason)


def use_of(differences: Sequence[float], effect: Effect, test: Equivalence) -> Use:
    """Say what a part does, as far as the pairs so far can tell."""
    if len(differences) >= SAME_PAIRS and not any(differences):
        return Use.NOTHING
    if effect.high < 0.0:
        return Use.HARM
    if -test.margin_bpb < effect.low and effect.high < test.margin_bpb:
        return Use.TOO_LITTLE
    if effect.low > 0.0:
        return Use.GOOD
    is_last = effect.pairs == test.design.max_pairs
    if is_last and effect.high < test.margin_bpb:
        return Use.TOO_LITTLE  # whether it is a little harmful stays open, and does not matter
    return Use.UNCLEAR


_REASONS = {
    Use.NOTHING: "the very same scores without it",
    Use.TOO_LITTLE: "worse by {margin:g} bpb or more without it is excluded",
    Use.HARM: "better without it",
    Use.GOOD: "worse without it",
    Use.UNCLEAR: "neither shown to matter nor not to",
}
