from __future__ import annotations

from dataclasses import replace

import pytest

from agent.calibration.simulated import Plan, calibrate
from agent.calibration.tables import tables
from tests.agent.calibration.pools import made_up

PLAN = Plan(gains_bpb=(0.005,), trials=400, searches=20, budget_runs=60)


def test_every_rule_meets_no_gain_first_and_then_each_planted_one() -> None:
    found = calibrate(made_up(), PLAN, seed=1)

    assert len(found.replayed) == 4
    for one in found.replayed:
        assert [point.gain_bpb for point in one.points] == [0.0, 0.005]
        assert {point.accepted.trials for point in one.points} == {400}
        assert one.searches.rule == one.of_nothing.rule == one.rule
        assert one.of_nothing.true_gain_bpb == 0.0
    judge, *others = found.replayed
    assert judge.points[0].accepted.share < 0.1
    assert all(one.points[0].accepted.share > 0.3 for one in others)


def test_a_calibration_is_a_function_of_pool_plan_and_seed() -> None:
    first = calibrate(made_up(), PLAN, seed=1)

    assert calibrate(made_up(), PLAN, seed=1) == first
    assert calibrate(made_up(), PLAN, seed=2).replayed != first.replayed


def test_noise_is_scaled_to_the_planned_sd() -> None:
    quiet = calibrate(made_up(), replace(PLAN, paired_sd_bpb=0.001), seed=1)
    loud = calibrate(made_up(), replace(PLAN, paired_sd_bpb=0.05), seed=1)

    assert quiet.replayed[0].points[1].accepted.share > 0.99
    assert loud.replayed[0].points[1].accepted.share < 0.2


def test_the_compute_saved_is_taken_where_nine_of_ten_gains_are_found() -> None:
    plan = replace(PLAN, gains_bpb=(0.001, 0.005, 0.03), trials=2_000)
    found = calibrate(made_up(), plan, seed=1)
    compute, judge = found.compute, found.replayed[0].points

    assert (compute.gain_bpb, compute.power) == (0.005, judge[2].accepted.share)
    assert compute.judge_runs == (judge[0].mean_runs + judge[2].mean_runs) / 2.0
    # 200 trials of the unpaired test: .15 is seven standard errors.
    assert compute.unpaired[1].accepted.share == pytest.approx(compute.power, abs=0.15)
    assert compute.ratio == compute.judge_runs / compute.unpaired_runs < 0.25


@pytest.mark.parametrize("gains", [(), (0.005, 0.0)])
def test_a_plan_that_plants_nothing_is_refused(gains: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="plant one positive gain"):
        Plan(gains_bpb=gains)


def test_the_tables_say_what_they_rest_on_and_name_every_rule() -> None:
    found = calibrate(made_up(), PLAN, seed=1)

    text = tables(found)

    assert text.startswith("made up: made-up noise of 3 comparisons on 40 seeds, 400 trials")
    assert all(text.count(f"| {one.rule} |") == 3 for one in found.replayed)
    widths = {line.count("|") for line in text.splitlines() if "gain 0.005" in line}
    assert widths == {4}


def test_a_pool_of_real_runs_is_not_called_made_up() -> None:
    found = calibrate(replace(made_up(), simulated=False), PLAN, seed=1)

    assert "resampled real noise" in tables(found)
