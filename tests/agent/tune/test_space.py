"""What can be tuned in a program, and how its knobs are laid out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.tune.space import Dimension, SpaceError, space_of
from sandbox.knobs import Bounds, read_knobs, why_out_of_bounds
from tests.agent.fakes import SEED_SOURCE

BOUNDS = (
    Bounds(1e-5, 0.3, "log"),
    Bounds(0.0, 2.0),
    Bounds(-8.0, 8.0),
    Bounds(0.0, 0.999),
    Bounds(0.5, 0.9999),
    Bounds(0, 1000, "integer"),
    Bounds(1, 10, "integer"),
)


@given(bounds=st.sampled_from(BOUNDS), position=st.floats(0.0, 1.0))
def test_every_position_is_a_value_within_bounds_at_about_that_position(
    bounds: Bounds, position: float
) -> None:
    dimension = Dimension(name="T.k", bounds=bounds)

    value = dimension.value(position)

    assert why_out_of_bounds(value, bounds) is None
    again = dimension.position(float(value))
    # Whole numbers and rounding move it by half a step at most.
    assert abs(again - position) <= (0.11 if bounds.scale == "integer" else 1e-3)


@pytest.mark.parametrize("bounds", BOUNDS)
def test_bounds_are_the_ends_and_what_is_beyond_counts_as_them(bounds: Bounds) -> None:
    dimension = Dimension(name="T.k", bounds=bounds)

    assert dimension.position(bounds.low) == 0.0
    assert dimension.position(bounds.high) == pytest.approx(1.0)
    assert dimension.position(bounds.high + 5.0) == pytest.approx(1.0)
    assert dimension.value(-3.0) == bounds.low


def test_a_decay_rate_is_laid_out_by_what_it_forgets() -> None:
    dimension = Dimension(name="ADAM.beta2", bounds=Bounds(0.0, 0.9999))

    positions = [dimension.position(value) for value in (0.9, 0.99, 0.999)]

    assert positions[1] - positions[0] == pytest.approx(positions[2] - positions[1])


def test_a_fraction_is_no_decay_rate() -> None:
    assert Dimension(name="S.f", bounds=Bounds(0.0, 1.0)).position(0.9) == pytest.approx(0.9)


def test_a_long_count_is_laid_out_by_factors_and_a_short_one_evenly() -> None:
    warmup = Dimension(name="S.warmup_steps", bounds=Bounds(0, 1000, "integer"))
    steps = Dimension(name="M.ns_steps", bounds=Bounds(1, 5, "integer"))

    assert warmup.position(30.0) == pytest.approx(0.5, abs=0.01)
    assert steps.position(3.0) == 0.5


def test_own_values_written_at_the_start_give_the_program_again() -> None:
    space = space_of(SEED_SOURCE)

    assert space.own_values() == {"MUON.lr": 0.02, "MUON.weight_decay": 0.1}
    assert space.program(space.values(space.start)) == SEED_SOURCE


def test_values_of_a_point_are_what_the_program_then_declares() -> None:
    space = space_of(SEED_SOURCE)

    values = space.values((1.0, 0.25))

    knobs = read_knobs(space.program(values))
    assert {name: knobs[name].value for name in values} == values
    assert values == {"MUON.lr": 0.5, "MUON.weight_decay": 0.25}


def test_only_numbers_with_bounds_and_a_matching_name_are_tuned() -> None:
    source = (
        'BOUNDS = {"A.lr": Bounds(0.0, 1.0), "A.on": Choice((False, True)), '
        '"B.lr": Bounds(0.0, 1.0), "A.one": Bounds(1.0, 1.0)}\n'
        "A = Knobs(lr=0.1, on=True, free=3.0, one=1.0)\nB = Knobs(lr=0.2)\n"
    )

    everything, some = space_of(source), space_of(source, ("B.*",))

    assert [d.name for d in everything.dimensions] == ["A.lr", "B.lr"]
    assert [d.name for d in some.dimensions] == ["B.lr"]


def test_a_program_without_knobs_is_refused_with_what_it_would_need() -> None:
    with pytest.raises(SpaceError, match="no knob to tune"):
        space_of("x = 1\n")
