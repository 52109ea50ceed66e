"""Taking a program apart, and putting it together without some of its parts."""

from __future__ import annotations

import itertools

import pytest

from agent.ablate.parts import Kind, take_apart
from sandbox.baseline import seed_program
from sandbox.knobs import read_knobs, set_knobs
from sandbox.line_error import LineError
from tests.agent.fakes import SEED_SOURCE

HELPER = "def twice(x):\n    return 2 * x\n\n\n"
CHANGED = set_knobs(
    SEED_SOURCE.replace("class Optimizer", HELPER + "class Optimizer")
    .replace("alpha=-MUON.lr)", "alpha=-twice(MUON.lr))")
    .replace("lr=0.02,\n", "lr=0.02,\n    beta=0.9,\n"),
    {"MUON.lr": 0.1, "MUON.weight_decay": 0.3},
)


def test_changed_values_and_changed_text_are_parts_of_their_own() -> None:
    anatomy = take_apart(SEED_SOURCE, CHANGED)

    knobs = [p.description for p in anatomy.parts if p.kind is Kind.KNOB]
    changes = [p.description for p in anatomy.parts if p.kind is Kind.CHANGE]
    assert knobs == ["MUON.lr: 0.02 to 0.1", "MUON.weight_decay: 0.1 to 0.3"]
    assert len(changes) == 3
    assert "1 in: + beta=0.9," in changes[0]
    assert "+ def twice(x):" in changes[1]
    assert "1 out, 1 in" in changes[2]
    assert [part.number for part in anatomy.parts] == list(range(5))


def test_without_nothing_it_is_the_program_and_without_everything_the_original() -> None:
    anatomy = take_apart(SEED_SOURCE, CHANGED)

    assert anatomy.without(frozenset()) == CHANGED
    assert anatomy.without(frozenset(range(5))) == SEED_SOURCE


def test_any_parts_can_be_left_out_together_and_the_others_stay() -> None:
    anatomy = take_apart(SEED_SOURCE, CHANGED)

    for count in range(1, 6):
        for numbers in itertools.combinations(range(5), count):
            source = anatomy.without(frozenset(numbers))
            knobs = read_knobs(source)
            assert knobs["MUON.lr"].value == (0.02 if 0 in numbers else 0.1)
            assert knobs["MUON.weight_decay"].value == (0.1 if 1 in numbers else 0.3)
            assert ("MUON.beta" in knobs) == (2 not in numbers)
            assert ("def twice" in source) == (3 not in numbers)
            assert ("-twice(" in source) == (4 not in numbers)


def test_a_tuned_shipped_program_comes_apart_into_its_knobs() -> None:
    original = seed_program("micro")
    program = set_knobs(original, {"MUON.lr": 0.05, "SCHEDULE.warmup_steps": 4})

    anatomy = take_apart(original, program)

    assert len(anatomy.parts) == 2
    assert anatomy.without(frozenset({0, 1})) == original


def test_equal_programs_have_no_parts() -> None:
    assert take_apart(SEED_SOURCE, SEED_SOURCE).parts == ()


def test_a_program_whose_tables_cannot_be_read_cannot_be_taken_apart() -> None:
    with pytest.raises(LineError):
        take_apart(SEED_SOURCE, SEED_SOURCE.replace("lr=0.02", "lr=open('x')"))
