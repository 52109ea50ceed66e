"""Ranks and intervals of programs measured on the same seeds."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from agent.leaderboard.standings import Entry, paired_effect, standings

SEEDS = 20


def entry(name: str, *bpb: float | None, cpu_s: float = 1.0) -> Entry:
    return Entry(name=name, tuning="", bpb=bpb, own_bpb=(), jail_cpu_s=cpu_s, knobs={})


def drawn(rng: np.random.Generator, name: str, mean: float, common: NDArray[np.float64]) -> Entry:
    return entry(name, *(mean + common + rng.normal(0.0, 0.002, SEEDS)).tolist())


def test_clear_differences_are_ranked_and_unclear_ones_share_ranks() -> None:
    rng = np.random.default_rng(1)
    common = rng.normal(0.0, 0.05, SEEDS)
    field = [
        drawn(rng, "worst", 2.5, common),
        drawn(rng, "twin", 2.4, common),
        drawn(rng, "tuned", 2.0, common),
        drawn(rng, "other twin", 2.4, common),
    ]

    found = standings(field, "tuned")

    ranks = {s.entry.name: (s.best_rank, s.worst_rank) for s in found}
    assert (found[0].entry.name, found[-1].entry.name) == ("tuned", "worst")
    assert ranks == {"tuned": (1, 1), "twin": (2, 3), "other twin": (2, 3), "worst": (4, 4)}


def test_differences_are_entry_minus_anchor() -> None:
    found = standings([entry("tuned", 2.0, 2.1), entry("b", 2.3, 2.41)], "tuned")

    anchor, other = found
    assert anchor.effect is None
    assert other.effect is not None
    assert other.effect.mean == pytest.approx(0.305)
    assert other.effect.low < 0.305 < other.effect.high


def test_seeds_common_to_both_do_not_widen_an_interval() -> None:
    calm = paired_effect(entry("a", 2.0, 2.1, 2.0), entry("b", 2.2, 2.31, 2.2), 0.05)
    wild = paired_effect(entry("a", 2.0, 5.1, 9.0), entry("b", 2.2, 5.31, 9.2), 0.05)

    assert calm is not None
    assert wild is not None
    assert wild.high - wild.low == pytest.approx(calm.high - calm.low)


def test_an_interval_misses_as_often_as_it_may() -> None:
    # 2000 draws: 5 % is 100 of them, and 60 to 140 is over four standard deviations to each side.
    rng = np.random.default_rng(7)
    misses = 0
    for _ in range(2000):
        ours, theirs = rng.normal(2.0, 0.01, 6), rng.normal(2.0, 0.01, 6)
        effect = paired_effect(entry("a", *ours.tolist()), entry("b", *theirs.tolist()), 0.05)
        assert effect is not None
        misses += not effect.low <= 0.0 <= effect.high

    assert 60 <= misses <= 140


def test_no_rank_is_certain_among_equals() -> None:
    # All pairs of a table together: at most 5 % of tables may rank equals apart.
    rng = np.random.default_rng(3)
    wrong = 0
    for _ in range(200):
        field = [drawn(rng, name, 2.0, np.zeros(SEEDS)) for name in ("tuned", "b", "c", "d")]
        wrong += any(s.best_rank > 1 or s.worst_rank < 4 for s in standings(field, "tuned"))

    assert wrong <= 20


def test_a_program_that_failed_is_last_and_has_no_interval() -> None:
    found = standings(
        [entry("tuned", 2.0, 2.1), entry("broken", 1.0, None), entry("b", 2.5, 2.6)], "tuned"
    )

    last = found[-1]
    assert last.entry.name == "broken"
    assert last.effect is None
    assert (last.best_rank, last.worst_rank) == (3, 3)


def test_the_cost_is_relative_to_the_anchor() -> None:
    found = standings([entry("tuned", 2.0, 2.1, cpu_s=0.5), entry("b", 3.0, 3.1)], "tuned")

    assert [s.cpu_ratio for s in found] == [1.0, 2.0]


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ([entry("tuned", 2.0, 2.1), entry("b", 2.0)], "same two seeds"),
        ([entry("tuned", 2.0), entry("b", 2.0)], "same two seeds"),
        ([entry("a", 2.0, 2.1), entry("b", 2.0, 2.1)], "no entry 'tuned'"),
    ],
)
def test_a_field_that_cannot_be_ranked_is_refused(field: list[Entry], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        standings(field, "tuned")
