"""The test whether a program can do without something, and how often it is wrong."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from agent.ablate.equivalence import Equivalence, Use, use_of
from agent.statistics.paired_test import Decision, DecisionKind, Design, decide

MARGIN = 0.002
TEST = Equivalence(margin_bpb=MARGIN, design=Design(max_pairs=20))


def run_out(differences: Sequence[float], test: Equivalence = TEST) -> tuple[Decision, Use]:
    """Look after every pair, as a duel does."""
    count = 1
    while (decision := test(differences[:count])).kind is DecisionKind.CONTINUE:
        count += 1
    seen = differences[:count]
    return decision, use_of(seen, decide(seen, test.design).effect, test)


def sample(mean: float, sd: float = 0.001, *, seed: int = 1, pairs: int = 20) -> list[float]:
    return [float(d) for d in np.random.default_rng(seed).normal(mean, sd, pairs)]


@pytest.mark.parametrize(
    ("mean", "use", "kind"),
    [
        (0.0, Use.TOO_LITTLE, DecisionKind.ACCEPT),
        (0.006, Use.GOOD, DecisionKind.REJECT),
        (-0.006, Use.HARM, DecisionKind.ACCEPT),
    ],
)
def test_what_a_part_does_is_told_from_what_happens_without_it(
    mean: float, use: Use, kind: DecisionKind
) -> None:
    decision, found = run_out(sample(mean))

    assert (found, decision.kind) == (use, kind)


def test_equal_scores_need_three_pairs_to_be_no_accident() -> None:
    decision, use = run_out([0.0] * 20)

    assert (decision.effect.pairs, use, decision.kind) == (3, Use.NOTHING, DecisionKind.ACCEPT)
    assert "the very same scores" in decision.reason


def test_a_part_that_cannot_be_told_from_noise_is_unclear_and_stays() -> None:
    decision, use = run_out(sample(0.001, sd=0.02))

    assert (use, decision.kind) == (Use.UNCLEAR, DecisionKind.REJECT)
    assert decision.effect.pairs == 20


def test_a_part_of_a_tiny_certain_use_is_too_little() -> None:
    decision, use = run_out(sample(0.0005, sd=0.00002))

    assert decision.effect.low > 0.0
    assert (use, decision.kind) == (Use.TOO_LITTLE, DecisionKind.ACCEPT)


def test_a_part_worth_the_margin_is_dropped_no_more_often_than_alpha() -> None:
    # The worst case: being without costs exactly the margin. 1000 trials at alpha .05 would give
    # up to 50; 5 standard deviations more is 85.
    rng = np.random.default_rng(11)
    dropped = sum(
        run_out(rng.normal(MARGIN, 0.0015, 20).tolist())[0].kind is DecisionKind.ACCEPT
        for _ in range(1000)
    )

    assert dropped <= 85


def test_an_idle_part_is_found_to_be_idle_in_most_cases() -> None:
    rng = np.random.default_rng(12)
    dropped = sum(
        run_out(rng.normal(0.0, 0.0015, 20).tolist())[0].kind is DecisionKind.ACCEPT
        for _ in range(300)
    )

    assert dropped >= 0.9 * 300


def test_no_evidence_of_a_difference_is_no_evidence_of_none() -> None:
    decision, use = run_out(sample(0.0, sd=0.01))

    assert decision.effect.low < 0.0 < decision.effect.high
    assert not use.is_droppable
