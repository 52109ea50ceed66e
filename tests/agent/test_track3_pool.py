from __future__ import annotations

from pathlib import Path

from agent.track3.pool import load_pool
from tests.agent.track3_logs import HEADER, curve, rows, run_text, whole_log, write_runs


def test_a_pool_holds_final_losses_and_curves_by_submission_and_seed(tmp_path: Path) -> None:
    for seed, final in {3: 3.277, 8: 3.278}.items():
        text = whole_log(curve(final), seed=seed)
        (tmp_path / f"{seed}.txt").write_text(text, encoding="utf-8")

    pool = load_pool([tmp_path])

    pooled = pool.submissions[str(tmp_path)]
    assert pooled.final_nats == {3: 3.277, 8: 3.278}
    assert pooled.curves == {3: curve(3.277), 8: curve(3.278)}
    assert (pooled.planned_steps, pooled.final_step) == (3000, 3000)
    assert pooled.at(2875) == {3: 3.279, 8: 3.28}


def test_the_final_loss_is_taken_at_one_step_of_all_runs(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.277])
    early = {step: loss for step, loss in curve(3.278).items() if step <= 2950}
    (tmp_path / "z.txt").write_text(run_text(early), encoding="utf-8")

    (pooled,) = load_pool([tmp_path]).submissions.values()

    assert pooled.final_step == 2950
    assert pooled.final_nats == {1: 3.2778, 2: 3.2788}
    assert pooled.at(3000) == {1: 3.277}


def test_runs_without_seeds_are_numbered(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.277, 3.278])
    text = whole_log(curve(3.279), seed=9)
    (tmp_path / "z.txt").write_text(text, encoding="utf-8")

    (pooled,) = load_pool([tmp_path]).submissions.values()

    assert pooled.final_nats == {1: 3.277, 2: 3.278, 3: 3.279}


def test_no_run_is_lent_twice(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    text = rows("a", 1, curve(3.277)) + rows("a", 2, curve(3.278)) + rows("a", 3, curve(3.277))
    path.write_text(HEADER + text + rows("b", 1, curve(3.278)), encoding="utf-8")

    pool = load_pool([path])

    assert {name: one.final_nats for name, one in pool.submissions.items()} == {
        "a": {1: 3.277, 2: 3.278}
    }
    assert "this run is the one at" in pool.left_out["b"]


def test_what_cannot_be_judged_or_diverged_is_left_out_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    text = rows("good", 1, curve(3.277)) + "cut,1,125\n"
    diverged = rows("lost", 1, curve(3.279) | {3000: float("nan")})
    path.write_text(HEADER + text + diverged, encoding="utf-8")

    pool = load_pool([path])

    assert list(pool.submissions) == ["good"]
    assert "expected 5 fields" in pool.left_out["cut"]
    assert "nan at step 3000" in pool.left_out["lost"]
