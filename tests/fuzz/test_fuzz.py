"""The promises of `targets`, on random inputs: bytes, texts, edits of the shipped file, grammar."""

from __future__ import annotations

import dataclasses
import json

import pytest
from hypothesis import HealthCheck, find, given, settings
from hypothesis import strategies as st

from sandbox.jobs import Job, Outcome, Status
from sandbox.rules.vocabulary import BUILTINS, DENIED_ATTRIBUTES, DENIED_NAMES
from sandbox.wire import decode_job, decode_outcome, encode_job, encode_message
from tests.fuzz.targets import (
    SHIPPED,
    check_clean_text,
    check_examination_line,
    check_failure,
    check_patch_text,
    check_preflight,
    inserted,
)

few = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
many = settings(max_examples=200, deadline=None)

TEXTS = (
    st.text() | st.text(st.characters(codec="latin-1")) | st.text("\ud800\udfff\x1b\u202e\x00\n")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=8,
)
FIELDS = ["kind", "message", "where", "line"]


@many
@given(st.binary(max_size=200))
def test_any_bytes_are_a_failure_or_malformed(report: bytes) -> None:
    check_failure(report)
    check_failure(len(report).to_bytes(4, "little") + report)


@many
@given(st.fixed_dictionaries({}, optional=dict.fromkeys(FIELDS, JSON)))
def test_any_json_is_a_failure_or_malformed(fields: dict[str, object]) -> None:
    body = json.dumps(fields).encode("ascii")

    check_failure(len(body).to_bytes(4, "little") + body)


@many
@given(TEXTS)
def test_any_text_can_be_cleaned(text: str) -> None:
    check_clean_text(text)


SHIPPED_LINES = st.sampled_from(SHIPPED.split("\n"))
QUOTES = TEXTS | SHIPPED_LINES | st.integers(0, 60).map(lambda n: SHIPPED[100 * n : 100 * n + 77])
BLOCK = st.fixed_dictionaries({"search": QUOTES, "replace": QUOTES})
MARKERS = ["<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"]


@many
@given(
    TEXTS
    | JSON.map(json.dumps)
    | st.lists(BLOCK, max_size=4).map(json.dumps)
    | st.lists(st.sampled_from(MARKERS) | SHIPPED_LINES, max_size=12).map("\n".join)
)
def test_any_text_is_a_patch_or_refused(text: str) -> None:
    check_patch_text(text)


@few
@given(
    st.binary(max_size=200)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.builds(
        lambda patch, scopes: json.dumps(
            {"patch": json.dumps(patch), "parent": "", "scopes": scopes}
        ).encode(),
        st.lists(BLOCK, max_size=3),
        st.lists(st.sampled_from(["muon", "policy"])),
    )
)
def test_any_line_is_a_request_or_refused(line: bytes) -> None:
    check_examination_line(line)


NUMBERS = st.floats(allow_nan=False)


@many
@given(text=st.text(), seed=st.integers(0), bpb=NUMBERS, losses=st.lists(NUMBERS))
def test_any_job_and_outcome_survive_the_wire(
    text: str, seed: int, bpb: float, losses: list[float]
) -> None:
    job = Job(source=text, seed=seed, steps=1, source_name=text)
    outcome = Outcome(
        status=Status.OK,
        reason=text,
        bpb=bpb,
        curve=tuple(enumerate(losses)),
        fingerprint=text,
        output_tail=text,
    )

    line = encode_message("outcome", outcome=dataclasses.asdict(outcome))

    assert line.count(b"\n") == encode_job(job).count(b"\n") == 1
    assert decode_job(encode_job(job)) == job
    assert decode_outcome(json.loads(line)["outcome"]) == outcome


@few
@given(TEXTS)
def test_preflight_answers_to_any_text(text: str) -> None:
    check_preflight(text)


@few
@given(TEXTS, st.sampled_from(["policy", "muon", "schedule", "adamw"]))
def test_preflight_answers_to_any_text_in_a_region(text: str, region: str) -> None:
    check_preflight(inserted(text, region))


EDITS = st.tuples(
    st.sampled_from(["delete", "repeat", "swap", "cut", "put"]),
    st.integers(230, len(SHIPPED.split("\n")) - 1),
    st.integers(0, 80),
    st.sampled_from(
        ["(", ")", "'", '"""', ":", "=", "\\", "\n", "    ", "open", ".__class__", "#"]
    ),
)


def edited(edits: list[tuple[str, int, int, str]]) -> str:
    """Apply edits to the lines of the shipped file."""
    lines = SHIPPED.split("\n")
    for kind, number, column, text in edits:
        at = number % len(lines)
        match kind:
            case "delete":
                del lines[at]
            case "repeat":
                lines.insert(at, lines[at])
            case "swap":
                lines[at - 1], lines[at] = lines[at], lines[at - 1]
            case "cut":
                lines[at] = lines[at][:column]
            case "put":
                lines[at] = lines[at][:column] + text + lines[at][column:]
    return "\n".join(lines)


@few
@given(st.lists(EDITS, min_size=1, max_size=3))
def test_preflight_answers_to_any_edit_of_the_shipped_file(
    edits: list[tuple[str, int, int, str]],
) -> None:
    check_preflight(edited(edits))


# Names that are fine, names that are not, and names that nobody has defined.
NAMES = st.sampled_from(
    [
        *("x", "torch", "math", "POLICY", "MUON", "frobenius", "self", "new", "os"),
        *("__builtins__", "__import__", "__name__"),
        *sorted(DENIED_NAMES),
        *sorted(BUILTINS)[::6],
    ]
)
ATTRIBUTES = st.sampled_from(
    [
        *("lr", "mul_", "data", "norm", "params", "__class__", "__globals__", "os", "special"),
        *sorted(DENIED_ATTRIBUTES)[::5],
    ]
)
CONSTANTS = st.sampled_from(["0", "1.5", "10**9", "1 << 70", "'a'", "b'a'", "1e999", "None", "..."])


def compound(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Build larger expressions."""
    return st.one_of(
        st.builds("{}.{}".format, inner, ATTRIBUTES),
        st.builds("({} + {})".format, inner, inner),
        st.builds("{}({})".format, inner, inner),
        st.builds("{}[{}]".format, inner, inner),
        st.builds("({} if {} else {})".format, inner, inner, inner),
        st.builds("[{} for {} in {}]".format, inner, NAMES, inner),
        st.builds("(lambda {}: {})".format, NAMES, inner),
        st.builds("({}, {})".format, inner, inner),
        st.builds("(new := {})".format, inner),
        st.builds("f'{{{}}}'".format, inner.filter(lambda text: "'" not in text)),
    )


EXPRESSIONS = st.recursive(NAMES | CONSTANTS, compound, max_leaves=6)
SIMPLE = st.one_of(
    st.builds("{} = {}".format, NAMES, EXPRESSIONS),
    st.builds("{}.{} = {}".format, NAMES, ATTRIBUTES, EXPRESSIONS),
    st.builds("return {}".format, EXPRESSIONS),
    st.builds("raise {}".format, EXPRESSIONS),
    st.builds("import {}".format, NAMES),
    st.builds("from {} import {}".format, NAMES, NAMES),
    st.builds("global {}".format, NAMES),
    st.builds("del {}".format, NAMES),
    EXPRESSIONS,
)


def nested(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    """Build compound statements."""
    body = st.lists(inner, min_size=1, max_size=3).map("\n".join).map(indented)
    return st.one_of(
        st.builds("if {}:\n{}".format, EXPRESSIONS, body),
        st.builds("for {} in {}:\n{}".format, NAMES, EXPRESSIONS, body),
        st.builds("while {}:\n{}".format, EXPRESSIONS, body),
        st.builds("try:\n{}\nexcept {}:\n{}".format, body, NAMES, body),
        st.builds("with {}:\n{}".format, EXPRESSIONS, body),
        st.builds("def {}(x, *, y={}):\n{}".format, NAMES, EXPRESSIONS, body),
        st.builds("class {}({}):\n{}".format, NAMES, NAMES, body),
        st.builds("@{}\ndef new(x):\n{}".format, EXPRESSIONS, body),
        st.builds("match {}:\n    case {}():\n{}".format, EXPRESSIONS, NAMES, body.map(indented)),
    )


def indented(text: str) -> str:
    """Put a text one level deeper."""
    return "\n".join(f"    {line}" for line in text.split("\n"))


STATEMENTS = st.recursive(SIMPLE, nested, max_leaves=5)
CODE = STATEMENTS | STATEMENTS.map(lambda code: f"def new(x):\n{indented(code)}")


@few
@given(CODE)
def test_preflight_answers_to_any_program(code: str) -> None:
    check_preflight(inserted(code))


@pytest.mark.parametrize("wanted", [True, False])
def test_the_grammar_makes_programs_of_both_kinds(wanted: bool) -> None:
    find(CODE, lambda code: check_preflight(inserted(code)) is wanted, settings=few)
