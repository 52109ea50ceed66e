from __future__ import annotations

import random
from collections.abc import Iterator

import pytest

from agent.foresight import STEPS, THRESHOLD, Foresight, Step, foresight_of
from agent.stage import Decided, Stage
from db.records import Verdict
from tests.agent.verdicts import verdict

SCREEN_TO_RACE = Step(cheap=Stage.SCREEN, dear=Stage.RACE)


def judged(number: int, screen: float, race: float | None, *, is_sample: bool) -> Iterator[Verdict]:
    name = f"p{number}"
    yield verdict(name, Stage.SMOKE, screen, is_sample=True)
    yield verdict(name, Stage.SCREEN, screen, is_sample=is_sample)
    if race is not None:
        yield verdict(name, Stage.RACE, race, decision=Decided.REJECT)


def in_step(programs: int, *, is_sample: bool = True) -> Foresight:
    """Programs whose races rank them as their screens did."""
    return foresight_of(
        each
        for number in range(programs)
        for each in judged(number, number / 100, number / 50, is_sample=is_sample)
    )


def test_a_stage_nobody_went_through_has_earned_nothing() -> None:
    assert not Foresight().may_prune(Stage.SCREEN)
    assert Foresight().correlation(SCREEN_TO_RACE) is None


def test_a_screen_that_ranks_as_the_race_does_may_reject_after_a_handful_of_programs() -> None:
    assert [in_step(programs).may_prune(Stage.SCREEN) for programs in (5, 8)] == [False, True]


def test_a_screen_that_ranks_at_random_may_never_reject() -> None:
    """At 60 programs, three standard errors of no correlation are .4; the lower end needs .3."""
    rng = random.Random(5)  # noqa: S311 - a simulation
    foresight = foresight_of(
        each
        for number in range(60)
        for each in judged(number, rng.random(), rng.random(), is_sample=True)
    )

    assert not foresight.may_prune(Stage.SCREEN)


def test_programs_that_the_screen_let_through_for_their_scores_show_nothing() -> None:
    foresight = in_step(20, is_sample=False)

    assert foresight.programs(SCREEN_TO_RACE) == 0
    assert not foresight.may_prune(Stage.SCREEN)


def test_a_right_to_reject_is_lost_when_the_sample_speaks_against_it() -> None:
    foresight = in_step(8)
    assert foresight.may_prune(Stage.SCREEN)

    for number in range(100, 112):
        for each in judged(number, number / 100, -number / 50, is_sample=True):
            foresight.add(each)

    assert not foresight.may_prune(Stage.SCREEN)


def test_the_smoke_test_is_compared_with_the_screen_for_every_program_that_has_both() -> None:
    foresight = in_step(12, is_sample=False)

    correlation = foresight.correlation(Step(cheap=Stage.SMOKE, dear=Stage.SCREEN))
    assert correlation is not None
    assert correlation.programs == 12
    assert correlation.value == pytest.approx(1.0)


def test_a_second_race_against_a_newer_champion_does_not_count() -> None:
    foresight = in_step(8)
    before = foresight.correlation(SCREEN_TO_RACE)

    foresight.add(verdict("p0", Stage.RACE, 9.0, reference_id="newer"))

    assert foresight.correlation(SCREEN_TO_RACE) == before


def test_what_was_asked_for_before_is_brought_up_to_date_by_every_verdict() -> None:
    asked, fresh = Foresight(), Foresight()
    for number in range(12):
        race = number / 50 if number < 9 else -number / 50
        for each in judged(number, number / 100, race, is_sample=number != 8):
            asked.add(each)
            fresh.add(each)
            for step in STEPS:
                asked.correlation(step)

    assert [asked.correlation(step) for step in STEPS] == [fresh.correlation(s) for s in STEPS]


def test_verdicts_without_a_difference_are_passed_over() -> None:
    foresight = Foresight()

    foresight.add(verdict("p", Stage.SCREEN, None, decision=Decided.REJECT))
    foresight.add(verdict("p", Stage.GATES, None))

    assert [foresight.programs(step) for step in STEPS] == [0, 0, 0]
    assert THRESHOLD > 0
