from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from agent.calibration.pool import PoolError
from agent.calibration.published import STEPS, calibrate_on, seed_noise, stage_steps
from agent.calibration.published_tables import published_tables
from agent.statistics.paired_test import Design
from agent.track3.pool import Pool, Pooled
from tests.agent.track3_logs import HEADER, rows


def submission(number: int, *, runs: int = 2, reversed_at: int = 0) -> Pooled:
    """Make a submission that is the better the smaller its number, but not at one step."""
    rng = np.random.default_rng(number)
    curves = {}
    for seed in range(runs):
        noise = float(rng.normal(0.0, 0.001))
        curves[seed] = {
            steps: round(
                5.0
                - steps / 2000.0
                + noise
                + 0.01 * (20 - number if steps == reversed_at else number),
                5,
            )
            for steps in STEPS
        }
    return Pooled(
        name=f"submission {number}",
        planned_steps=3000 + 25 * number,
        final_step=STEPS[-1],
        final_nats={seed: curve[STEPS[-1]] for seed, curve in curves.items()},
        curves=curves,
    )


def test_a_stage_that_ranks_the_other_way_round_may_not_prune() -> None:
    found = stage_steps([submission(number, reversed_at=500) for number in range(12)])

    assert [one.steps for one in found] == list(STEPS)
    assert [one.next_steps for one in found] == [*STEPS[1:], None]
    assert {one.steps for one in found if not one.may_prune} == {500}
    reversed_stage = next(one for one in found if one.steps == 500)
    assert reversed_stage.to_need.value == -1.0
    assert reversed_stage.to_next is not None
    assert reversed_stage.to_next.value == -1.0
    assert found[-1].to_next is None


def test_too_few_submissions_say_nothing_about_stages() -> None:
    assert stage_steps([submission(number) for number in range(5)]) == ()


def test_seed_noise_is_of_each_run_against_the_next_one() -> None:
    published = Pool(
        submissions={"a": submission(1, runs=9), "b": submission(2, runs=7)}, left_out={}
    )

    (comparison,) = seed_noise(published).comparisons

    assert comparison.name == "submission 1 against itself"
    assert comparison.candidate == (*comparison.reference[1:], comparison.reference[0])


def test_published_runs_of_few_seeds_lend_no_noise() -> None:
    with pytest.raises(PoolError, match="no submission among the published runs has 8 runs"):
        seed_noise(Pool(submissions={"b": submission(2, runs=7)}, left_out={}))


def test_rules_are_measured_on_tables_of_curves(tmp_path: Path) -> None:
    text = HEADER
    for number in range(8):
        made = submission(number, runs=10)
        for seed, curve in made.curves.items():
            text += rows(f"record{number}", seed + 1, dict(curve), made.planned_steps)
    (tmp_path / "curves.csv").write_text(text, encoding="utf-8")

    found = calibrate_on([tmp_path / "curves.csv"], Design(), trials=500, seed=1)

    assert (found.submissions, found.runs, found.comparisons, found.left_out) == (8, 80, 8, 0)
    (judge, points), *others = found.rules
    assert judge == "sequential paired test"
    assert [point.gain_bpb for point in points] == [0.0, 0.001, 0.002, 0.005]
    assert points[0].accepted.share < 0.1
    assert points[-1].accepted.share == 1.0
    assert len(others) == 3
    assert "80 of 8 submissions" in published_tables(found)
