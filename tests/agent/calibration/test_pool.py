from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from agent.calibration.pool import Comparison, Pool, PoolError, pool_of, read_pool, write_pool
from db.records import Evaluation
from tests.agent.calibration.pools import made_up
from tests.db import builders


def evaluation(program: str, seed: int, bpb: float | None, **change: Any) -> Evaluation:
    fields = {"steps": 40, "horizon": 40, "jail_cpu_s": 1.0, "train_cpu_s": 7.0, **change}
    return builders.evaluation(program * 64, seed=seed, bpb=bpb, **fields)


def comparison(**change: Any) -> Comparison:
    scores = tuple(2.0 + 0.01 * (i % 3) for i in range(8))
    parts = {"seeds": tuple(range(8)), "candidate": scores, "reference": (2.0,) * 8, **change}
    return Comparison(name="tried", **parts)


def test_a_pool_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    pool = made_up()

    write_pool(pool, tmp_path / "pool.json")

    assert read_pool(tmp_path / "pool.json") == pool


def test_programs_are_paired_on_the_seeds_they_share() -> None:
    runs = [evaluation("a", seed, 2.0 + 0.01 * seed) for seed in range(12)]
    runs += [evaluation("b", seed, 2.1 - 0.01 * seed) for seed in range(11, 2, -1)]

    pool = pool_of(runs, steps=40, origin="here")

    (found,) = pool.comparisons
    assert found.seeds == tuple(range(3, 12))
    assert found.reference == tuple(2.0 + 0.01 * seed for seed in range(3, 12))
    assert found.candidate == tuple(2.1 - 0.01 * seed for seed in range(3, 12))
    assert (pool.cpu_s_per_run, pool.simulated) == (8.0, False)


@pytest.mark.parametrize(
    "other",
    [{"steps": 10}, {"horizon": 400}, {"split": "sealed"}, {"gradients": "reversed"}],
)
def test_runs_of_another_setting_are_not_mixed_in(other: dict[str, Any]) -> None:
    runs = [evaluation("a", seed, 2.0 + 0.01 * seed) for seed in range(9)]
    runs += [evaluation("b", seed, 2.0 - 0.01 * seed, **other) for seed in range(9)]

    with pytest.raises(PoolError, match="no two programs share 8 seeds"):
        pool_of(runs, steps=40, origin="here")


def test_failed_runs_and_programs_that_do_the_same_lend_no_noise() -> None:
    runs = [evaluation("a", seed, 2.0 + 0.01 * seed) for seed in range(9)]
    runs += [evaluation("b", seed, 2.0 + 0.01 * seed) for seed in range(9)]
    runs += [evaluation("c", seed, None if seed < 2 else 2.0) for seed in range(9)]

    with pytest.raises(PoolError, match="no two programs share 8 seeds"):
        pool_of(runs, steps=40, origin="here")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"seeds": tuple(range(7))}, "differ in length"),
        ({"seeds": (0, 0, 1, 2, 3, 4, 5, 6)}, "8 or more distinct seeds, found 7"),
        ({"candidate": (math.nan,) * 8}, "not a finite number"),
        ({"candidate": (2.5,) * 8}, "no noise"),
    ],
)
def test_a_comparison_that_lends_no_noise_is_refused(
    change: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PoolError, match=complaint):
        comparison(**change)


def test_a_pool_needs_comparisons_and_a_cost() -> None:
    with pytest.raises(PoolError, match="no comparison"):
        Pool(origin="", simulated=True, cpu_s_per_run=1.0, comparisons=())
    with pytest.raises(PoolError, match="cpu_s_per_run"):
        Pool(origin="", simulated=True, cpu_s_per_run=0.0, comparisons=(comparison(),))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "not JSON"),
        ("[]", "expected .format."),
        ('{"format": "other"}', "expected .format."),
        (json.dumps({"format": "nanoevolve-pool-1"}), "origin"),
        (
            json.dumps(
                {
                    "format": "nanoevolve-pool-1",
                    "origin": "",
                    "simulated": False,
                    "cpu_s_per_run": 1.0,
                    "comparisons": [
                        {"name": "x", "seeds": ["?"], "candidate": [], "reference": []}
                    ],
                }
            ),
            "malformed",
        ),
        (
            json.dumps(
                {
                    "format": "nanoevolve-pool-1",
                    "origin": "",
                    "simulated": False,
                    "cpu_s_per_run": 1.0,
                    "comparisons": [{"name": "x", "seeds": [1], "candidate": [], "reference": []}],
                }
            ),
            "x: seeds, candidate and reference differ",
        ),
    ],
)
def test_a_file_that_is_no_pool_is_refused_with_its_name(
    tmp_path: Path, text: str, complaint: str
) -> None:
    path = tmp_path / "pool.json"
    path.write_text(text)

    with pytest.raises(PoolError, match=complaint) as caught:
        read_pool(path)

    assert str(path) in str(caught.value)
