from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.selection import Member, Population, choose_parents, shrunk


def member(number: int, effect: float = 0.0) -> Member:
    return Member(effect, number, f"{number:064x}")


def populated(effects: list[float], capacity: int = 24) -> Population:
    population = Population(capacity)
    population.crown(member(0))
    for number, effect in enumerate(effects, start=1):
        population.add(member(number, effect))
    return population


@given(effects=st.lists(st.floats(-0.1, 0.1), max_size=60), capacity=st.integers(2, 10))
def test_the_population_is_bounded_and_holds_the_best_and_the_champion(
    effects: list[float], capacity: int
) -> None:
    population = populated(effects, capacity)

    assert len(population.members) == min(len(effects) + 1, capacity)
    assert population.champion in population.members
    kept = sorted(m.effect_bpb for m in population.members if m != population.champion)
    assert kept == sorted(effects)[: len(kept)]


def test_a_new_champion_leaves_the_old_one_in_the_population() -> None:
    population = populated([])

    population.crown(member(1, -0.01))

    assert population.champion == member(1, -0.01)
    assert member(0) in population.members


def test_equal_draws_choose_equal_parents() -> None:
    population = populated([0.01 * k for k in range(20)])

    first = [choose_parents(population, random.Random(k)) for k in range(50)]  # noqa: S311 - search
    second = [choose_parents(population, random.Random(k)) for k in range(50)]  # noqa: S311 - search

    assert first == second


def test_the_second_parent_is_never_the_first() -> None:
    population = populated([0.01, 0.02])
    rng = random.Random(1)  # noqa: S311 - search

    pairs = [choose_parents(population, rng) for _ in range(500)]

    assert any(pair.second for pair in pairs)
    assert all(pair.first != pair.second for pair in pairs)


def test_a_lone_program_is_always_the_parent() -> None:
    population = populated([])
    rng = random.Random(1)  # noqa: S311 - search

    pairs = {choose_parents(population, rng) for _ in range(100)}

    assert [(pair.first, pair.second) for pair in pairs] == [(member(0), None)]


def test_better_programs_have_more_children_and_bad_ones_still_some() -> None:
    population = populated([0.01 * k for k in range(1, 10)])
    rng = random.Random(1)  # noqa: S311 - search

    children = Counter(choose_parents(population, rng).first.ordinal for _ in range(3000))

    assert children[0] > children[3] > children[7] > 0


def test_without_a_champion_there_are_no_parents() -> None:
    with pytest.raises(LookupError, match="no champion"):
        choose_parents(Population(), random.Random(1))  # noqa: S311 - search


def test_few_pairs_are_trusted_less_than_many() -> None:
    assert shrunk(-0.03, 2) == pytest.approx(-0.02)
    assert shrunk(-0.03, 8) < shrunk(-0.03, 2) < 0.0
