from __future__ import annotations

import pytest

from agent.calibration.plants import Kind, Plant, PlantError, bad, chance, gains, same
from sandbox.baseline import seed_program
from sandbox.knobs import read_knobs
from sandbox.preflight import preflight
from sandbox.source_form import normalised_digest

SCOPES = frozenset({"policy", "muon", "schedule"})
TUNED = seed_program("micro")
PLANTS = (*same(TUNED), chance(TUNED, 0), chance(TUNED, 149), *gains(TUNED), *bad(TUNED))


@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.name}")
def test_preflight_lets_a_plant_through(plant: Plant) -> None:
    assert preflight(plant.candidate, plant.incumbent, SCOPES) == ()


@pytest.mark.parametrize("profile", ["micro", "cpu"])
def test_all_plants_but_the_identical_one_are_new_programs(profile: str) -> None:
    tuned = seed_program(profile)
    plants = (*same(tuned), *gains(tuned), *bad(tuned), chance(tuned, 0))

    known = [
        plant.name
        for plant in plants
        if normalised_digest(plant.candidate) == normalised_digest(plant.incumbent)
    ]

    assert known == ["identical"]


def test_every_trial_of_chance_has_a_candidate_of_its_own_and_the_same_incumbent() -> None:
    found = [chance(TUNED, trial) for trial in range(20)]

    assert len({plant.candidate for plant in found}) == 20
    assert {plant.incumbent for plant in found} == {found[0].incumbent}
    assert found[0].incumbent not in {plant.candidate for plant in found}
    assert {plant.kind for plant in found} == {Kind.CHANCE}


def test_a_gain_puts_back_what_its_incumbent_has_moved_further_each_time() -> None:
    tuned = float(read_knobs(TUNED)["MUON.lr"].value)

    moved = [float(read_knobs(plant.incumbent)["MUON.lr"].value) for plant in gains(TUNED)]

    assert moved == sorted(moved, reverse=True)
    assert all(lr < tuned for lr in moved)
    assert {plant.candidate for plant in gains(TUNED)} == {TUNED}


def test_a_program_without_the_line_to_edit_is_refused() -> None:
    with pytest.raises(PlantError, match=r"0 times the text 'lr=MUON.lr \* lr_fraction,'"):
        chance("MUON = Knobs(lr=0.1)\n", 0)
