"""Reading and writing knob tables without executing the file."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.baseline import seed_program
from sandbox.knobs import (
    Bounds,
    Choice,
    Knob,
    KnobError,
    UnknownKnobError,
    read_knobs,
    set_knobs,
    why_out_of_bounds,
)
from sandbox.patches import unified_diff

SOURCE = """BOUNDS = {
    "MUON.lr": Bounds(1e-4, 0.5, "log"),
    "MUON.steps": Bounds(1, 5, "integer"),
    "MUON.mode": Choice(("a", "b")),
    "MUON.offset": Bounds(-1.0, 1),
}
FAMILIES = {"_beta": Bounds(0.0, 1.0), "_warm_beta": Bounds(0.0, 0.5)}
# EVOLVE-BLOCK-START muon
MUON = Knobs(
    lr=0.02,  # tuned
    steps=5, mode='a',
    offset=-0.5,
    late_beta=0.9,
    late_warm_beta=0.4,
    odd=1.0,
)
# EVOLVE-BLOCK-END
"""


def test_a_knob_is_read_with_its_value_bounds_region_and_line() -> None:
    knobs = read_knobs(SOURCE)

    assert knobs["MUON.lr"] == Knob("MUON.lr", 0.02, Bounds(1e-4, 0.5, "log"), "muon", 10)
    assert knobs["MUON.mode"].bounds == Choice(("a", "b"))
    assert knobs["MUON.offset"].value == -0.5
    assert list(knobs)[:3] == ["MUON.lr", "MUON.steps", "MUON.mode"]


def test_a_knob_without_declared_bounds_gets_those_of_its_longest_family() -> None:
    knobs = read_knobs(SOURCE)

    assert knobs["MUON.late_beta"].bounds == Bounds(0.0, 1.0)
    assert knobs["MUON.late_warm_beta"].bounds == Bounds(0.0, 0.5)
    assert knobs["MUON.odd"].bounds is None


def test_a_table_outside_regions_has_no_region() -> None:
    assert read_knobs("T = Knobs(a=1)\n")["T.a"].region is None


@pytest.mark.parametrize(
    "table",
    [
        "T = Knobs(a=f())",
        "T = Knobs(a=1 + 1)",
        "T = Knobs(a=None)",
        "T = Knobs(a=[1])",
        "T = Knobs(a=1e999)",
        "T = Knobs(a=-True)",
        "T = Knobs(a=0x" + "f" * 5000 + ")",
        "T = Knobs(1)",
        "T = Knobs(**{'a': 1})",
        "T = Knobs(a=1); T = Knobs(a=2)",
        "BOUNDS = {'T.a': Bounds(f(), 1)}",
        "BOUNDS = {'T.a': 3}",
        "BOUNDS = {**x}",
        "BOUNDS = dict()",
        "BOUNDS = {}; BOUNDS = {}",
    ],
)
def test_a_table_that_is_not_made_of_literals_is_refused(table: str) -> None:
    with pytest.raises(KnobError, match="line 2"):
        read_knobs(f"# a comment\n{table}\n")


def test_setting_knobs_changes_their_values_and_nothing_else() -> None:
    changed = set_knobs(SOURCE, {"MUON.lr": 0.03, "MUON.mode": "b", "MUON.offset": -0.25})

    expected = SOURCE.replace("lr=0.02,", "lr=0.03,").replace("mode='a'", 'mode="b"')
    assert changed == expected.replace("-0.5", "-0.25")


def test_a_value_that_stays_keeps_its_spelling() -> None:
    source = "T = Knobs(a=1e-3, b=5_0)\n"

    assert set_knobs(source, {"T.a": 0.001, "T.b": 50}) == source


def test_several_knobs_of_one_line_are_set_each_in_its_place() -> None:
    source = "T = Knobs(é=1, mode='ä', b=-0.5, c=(\n    3\n))  # ü\n"

    changed = set_knobs(source, {"T.c": 300, "T.é": 10, "T.b": 0.25, "T.mode": "ö"})

    assert changed == 'T = Knobs(é=10, mode="ö", b=0.25, c=(\n    300\n))  # ü\n'


def test_true_and_one_are_different_values() -> None:
    assert set_knobs("T = Knobs(a=1)\n", {"T.a": True}) == "T = Knobs(a=True)\n"


def test_setting_an_unknown_knob_is_refused() -> None:
    with pytest.raises(UnknownKnobError, match=r"no knob 'MUON\.speed'"):
        set_knobs(SOURCE, {"MUON.speed": 1.0})


@given(
    st.one_of(
        st.booleans(),
        st.integers(-(10**9), 10**9),
        st.floats(allow_nan=False, allow_infinity=False),
        st.text(max_size=20).filter(lambda text: text.isprintable()),
    )
)
def test_a_value_that_was_set_is_read_back(value: float | str) -> None:
    changed = set_knobs(SOURCE, {"MUON.odd": value})

    back = read_knobs(changed)["MUON.odd"].value
    assert type(back) is type(value)
    assert back == value or math.isclose(float(back), float(value), rel_tol=0)


@pytest.mark.parametrize(
    ("value", "bounds", "reason"),
    [
        (0.5, Bounds(0, 1), None),
        (1, Bounds(0, 1), None),
        (1.5, Bounds(0, 1), "expected 0 to 1, found 1.5"),
        (True, Bounds(0, 1), "found True"),
        ("x", Bounds(0, 1), "found 'x'"),
        (2.0, Bounds(1, 5, "integer"), "whole number"),
        (float("nan"), Bounds(0, 1), "found nan"),
        ("a", Choice(("a", "b")), None),
        ("c", Choice(("a", "b")), "one of 'a', 'b'"),
        (1, Choice((False, True)), "one of False, True"),
    ],
)
def test_a_value_is_held_against_its_bounds(
    value: float | str, bounds: Bounds | Choice, reason: str | None
) -> None:
    found = why_out_of_bounds(value, bounds)

    assert (found is None) if reason is None else (found is not None and reason in found)


def test_every_shipped_knob_has_bounds_and_lies_within_them() -> None:
    knobs = read_knobs(seed_program("none"))

    assert len(knobs) > 80
    for knob in knobs.values():
        assert knob.bounds is not None, knob.name
        assert why_out_of_bounds(knob.value, knob.bounds) is None, knob.name


def test_every_shipped_number_can_be_set_without_touching_another_line() -> None:
    source = seed_program("none")

    changed = set_knobs(source, {"MUON.lr": 0.0123, "POLICY.clip": "update_rms"})

    diff = [line for line in unified_diff(source, changed).split("\n")[2:] if line[0] in "+-"]
    assert diff == [
        '-    clip="none",', '+    clip="update_rms",', "-    lr=0.02,", "+    lr=0.0123,",
    ]  # fmt: skip
