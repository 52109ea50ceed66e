from __future__ import annotations

import pytest

from agent.savings import savings_of
from agent.stage import Decided, Stage, Stopped
from agent.stages.screen import SCREEN_MARGIN_BPB
from db.records import Verdict
from tests.agent.verdicts import verdict

BEHIND = SCREEN_MARGIN_BPB * 1.1


def screened(program: str, effect: float, decision: Decided = Decided.PASS) -> Verdict:
    return verdict(program, Stage.SCREEN, effect, decision=decision)


def race(program: str, pairs: int, stopped: Stopped) -> Verdict:
    decision = Decided.PASS if stopped is Stopped.BETTER else Decided.REJECT
    return verdict(program, Stage.RACE, 0.1, pairs=pairs, stopped=stopped, decision=decision)


def test_what_the_spared_came_to_says_what_rejecting_the_others_saved_and_lost() -> None:
    verdicts = [screened(f"out{i}", BEHIND, Decided.REJECT) for i in range(10)]
    verdicts += [screened(f"spared{i}", BEHIND) for i in range(4)]
    verdicts += [screened("near", 0.0)]
    verdicts += [race(f"spared{i}", 2, Stopped.FUTILE) for i in range(3)]
    verdicts += [race("spared3", 10, Stopped.BETTER), race("near", 24, Stopped.OUT_OF_PAIRS)]

    found = savings_of(verdicts, max_pairs=24)

    assert (found.screened, found.pruned, found.spared) == (15, 10, 4)
    assert found.pairs_each == 4.0
    assert found.runs_saved_by_screen == 40.0
    lost = found.wins_lost_by_screen
    assert lost is not None
    assert lost[0] == pytest.approx(2.5)
    assert 0.0 < lost[1] < 2.5 < lost[2] < 10.0
    assert (found.races, found.pairs, found.pairs_fixed, found.futile) == (5, 40, 120, 3)


def test_what_rejecting_loses_is_not_known_where_nothing_was_spared() -> None:
    verdicts = [screened("out", BEHIND, Decided.REJECT), screened("near", 0.0)]
    verdicts += [race("near", 6, Stopped.FUTILE)]

    found = savings_of(verdicts, max_pairs=24)

    assert found.wins_lost_by_screen is None
    assert found.runs_saved_by_screen == 6.0


def test_a_program_refused_for_being_nothing_new_was_not_pruned() -> None:
    twin = verdict("twin", Stage.SCREEN, None, decision=Decided.REJECT)

    found = savings_of([twin], max_pairs=24)

    assert (found.screened, found.pruned, found.pairs_each) == (0, 0, 0.0)
