from __future__ import annotations

import itertools

from agent.seeds import (
    candidate_rng,
    gate_seed,
    is_drawn,
    is_first,
    quarantine_seeds,
    race_seeds,
    screen_seed,
    secret_steps,
    smoke_seed,
)


def test_seeds_of_different_purposes_and_programs_do_not_meet() -> None:
    seeds = [smoke_seed(1), screen_seed(1, "a"), screen_seed(1, "b")]
    for program in ("a", "b"):
        seeds += itertools.islice(race_seeds(1, program, season=0), 100)
        seeds += itertools.islice(race_seeds(1, program, season=1), 100)
        seeds += itertools.islice(quarantine_seeds(1, program), 100)
        seeds.append(gate_seed(1, program))

    assert len(set(seeds)) == len(seeds)


def test_seeds_depend_on_the_seed_of_the_run() -> None:
    assert smoke_seed(1) != smoke_seed(2)
    assert next(race_seeds(1, "a", season=0)) != next(race_seeds(2, "a", season=0))


def test_seeds_fit_31_bits() -> None:
    assert all(0 <= seed < 2**31 for seed in itertools.islice(race_seeds(1, "a", season=0), 1000))


def test_seeds_are_the_same_on_every_machine() -> None:
    """Recorded values: a change here makes old runs impossible to resume."""
    assert smoke_seed(1) == 1421706197
    assert next(race_seeds(1, "a", season=0)) == 1047889969


def test_secret_steps_lie_between_their_shares_and_reach_both_ends() -> None:
    found = {secret_steps(1, str(i), "any", steps=40, share=(0.5, 0.75)) for i in range(1000)}

    assert found == set(range(20, 31))


def test_secret_steps_depend_on_the_program_and_what_they_are_for() -> None:
    def steps(program: str, purpose: str) -> int:
        return secret_steps(1, program, purpose, steps=10**6, share=(0.5, 0.75))

    assert len({steps("a", "x"), steps("a", "y"), steps("b", "x")}) == 3


def test_the_choices_for_a_candidate_depend_on_run_and_ordinal_only() -> None:
    draws = {(run, i): candidate_rng(run, i).random() for run in (1, 2) for i in (3, 4)}

    assert len(set(draws.values())) == 4
    assert candidate_rng(1, 3).random() == draws[1, 3]


def test_the_lot_spares_about_its_share_and_the_same_programs_every_time() -> None:
    """Of 4000, 400 are expected with a standard deviation of 19."""
    spared = [program for program in range(4000) if is_drawn(1, str(program), share=0.1)]

    assert 300 < len(spared) < 500
    assert spared == [p for p in range(4000) if is_drawn(1, str(p), share=0.1)]
    assert spared != [p for p in range(4000) if is_drawn(2, str(p), share=0.1)]


def test_a_share_of_none_or_all_spares_none_or_all() -> None:
    for share in (0.0, 1.0):
        assert {is_drawn(1, str(i), share=share) for i in range(1000)} == {share == 1.0}


def test_either_half_of_a_pair_may_come_first() -> None:
    """Of 1000, 500 are expected with a standard deviation of 16."""
    assert 400 < sum(is_first(seed, "a") for seed in range(1000)) < 600
