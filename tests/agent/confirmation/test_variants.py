from __future__ import annotations

import pytest

from agent.confirmation.variants import (
    gate_of,
    learning_rates,
    neutral_edit,
    with_gate_held,
    with_rates,
)
from sandbox.baseline import seed_program
from sandbox.knobs import read_knobs, set_knobs
from sandbox.source_form import normalised_digest
from tests.agent.fakes import SEED_SOURCE

TUNED = seed_program("micro")


def test_every_learning_rate_of_the_optimizer_is_known_and_nothing_else() -> None:
    rates = learning_rates(TUNED)

    assert "MUON.lr" in rates
    assert "ADAMW.embedding_lr" in rates
    assert not {"SCHEDULE.final_lr_fraction", "POLICY.lr_aspect_scale"} & set(rates)


def test_scaled_rates_keep_their_proportions_and_leave_all_else() -> None:
    before, after = read_knobs(TUNED), read_knobs(with_rates(TUNED, 0.5))

    for name, knob in before.items():
        wanted = float(knob.value) / 2 if name in learning_rates(TUNED) else knob.value
        assert after[name].value == (
            pytest.approx(wanted) if isinstance(wanted, float) else wanted
        ), name


def test_scaled_rates_stay_within_their_bounds() -> None:
    assert read_knobs(with_rates(SEED_SOURCE, 100.0))["MUON.lr"].value == 0.5


def test_a_program_at_its_own_rates_is_itself_to_the_letter() -> None:
    assert with_rates(TUNED, 1.0) == TUNED


def test_a_program_without_tables_has_no_rates_and_stays_as_it_is() -> None:
    source = "def build_optimizer(params, horizon):\n    return None\n"

    assert learning_rates(source) == ()
    assert with_rates(source, 2.0) == source


def test_a_gate_is_what_its_sensors_weigh() -> None:
    gated = set_knobs(
        TUNED, {"POLICY.control": True, "POLICY.gate_step_fraction": -2.0, "POLICY.gate_bias": 1.0}
    )

    assert gate_of(TUNED) is None
    assert gate_of(gated) == {"POLICY.gate_step_fraction": -2.0}
    held = with_gate_held(gated)
    assert gate_of(held) == {}
    assert read_knobs(held)["POLICY.gate_bias"].value == 1.0


def test_a_neutral_edit_is_another_text_of_the_same_form() -> None:
    edited = neutral_edit(TUNED)

    assert edited != TUNED
    assert normalised_digest(edited) == normalised_digest(TUNED)
