from __future__ import annotations

import pytest

from tests.adversarial.corpus import Loss
from tests.adversarial.observed import score_sightings, text_sightings


@pytest.mark.parametrize("score", [3.9, 4.1, 4.000000001])
def test_any_other_score_is_a_breach_where_it_must_stay_the_same(score: float) -> None:
    assert score_sightings(Loss.SAME, score, 4.0)


@pytest.mark.parametrize(("score", "breaches"), [(3.9, 1), (4.0, 0), (4.1, 0)])
def test_only_a_better_score_is_a_breach_where_weights_may_change(
    score: float, breaches: int
) -> None:
    assert len(score_sightings(Loss.NO_BETTER, score, 4.0)) == breaches


def test_no_score_and_a_score_left_to_the_gates_are_no_breach() -> None:
    assert score_sightings(Loss.SAME, None, 4.0) == []
    assert score_sightings(Loss.JUDGED, 1.0, 4.0) == []


@pytest.mark.parametrize(
    "reason", ["two\nlines", "\x1b[31mred", "\u202ereversed", "\ud800", "long " * 1000]
)
def test_a_reason_that_could_harm_its_reader_is_seen(reason: str) -> None:
    assert text_sightings(reason, "")


@pytest.mark.parametrize("output", ["\x1b]0;title\x07", "a\rb", "\u2028", "x" * 70_000])
def test_output_that_could_harm_its_reader_is_seen(output: str) -> None:
    assert text_sightings("fine", output)


def test_clean_texts_are_let_through() -> None:
    assert text_sightings("line 3 in step: ValueError: naïve", "a line\nand another\n") == []
