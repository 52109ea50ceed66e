"""Decide after any number of pairs which of two programs is better, if either is.

The test of a search asks one thing: is the candidate better? Between two programs that are both
somebody's own there are two questions, and each is asked with half of the error: is the first
better, is the second? Training goes on until one is answered with yes, or both are given up.
If the programs are equally good, either is called better with probability at most `alpha`; the
interval covers the truth with probability 1 - `alpha`, whenever it is looked at.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.statistics.paired_test import Decision, DecisionKind, Design, Effect, decide

__all__ = ["decide_either_way", "two_sided"]

SIDES = 2


def two_sided(design: Design) -> Design:
    """Return the design that asks each question of two with half of the error.

    Raises:
        DesignError: with that, no result within the design's pairs can be accepted.
    """
    return replace(design, alpha=design.alpha / SIDES)


def decide_either_way(differences: Sequence[float], design: Design) -> Decision:
    """Test the pairs so far, both ways.

    Args:
        differences: first program minus second per seed, in the order they were measured.
        design: of each of the two tests, from `two_sided`.

    Returns:
        Accept if the first program is better. Reject if the second is, in which case the interval
        lies above zero, or if neither can be shown to be. `log_e` weighs "one is better" against
        "they are equally good": the mean of two e-values is one.

    Raises:
        ValueError: as `decide`.
    """
    first = decide(differences, design)
    second = decide([-difference for difference in differences], design)
    log_e = float(np.logaddexp(first.log_e, second.log_e)) - math.log(SIDES)
    kind, reason = _joined(first, second, design)
    return Decision(kind=kind, effect=first.effect, log_e=log_e, reason=reason)


def _joined(first: Decision, second: Decision, design: Design) -> tuple[DecisionKind, str]:
    pairs = first.effect.pairs
    if first.kind is DecisionKind.ACCEPT:
        return first.kind, first.reason
    if second.kind is DecisionKind.ACCEPT:
        return DecisionKind.REJECT, f"worse after {pairs} pairs"
    if DecisionKind.CONTINUE in {first.kind, second.kind}:
        return DecisionKind.CONTINUE, f"undecided after {pairs} pairs"
    return DecisionKind.REJECT, _why_given_up(first.effect, design)


def _why_given_up(effect: Effect, design: Design) -> str:
    smallest = design.smallest_gain_bpb
    if -smallest < effect.low and effect.high < smallest:
        return f"a difference of {smallest:g} bpb is excluded after {effect.pairs} pairs"
    if effect.pairs == design.max_pairs:
        return f"not told apart in {effect.pairs} pairs"
    return f"little chance of telling them apart after {effect.pairs} pairs"
