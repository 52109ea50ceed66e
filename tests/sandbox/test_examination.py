"""Examinations as records: what comes of a patch, and how it is written as a line."""

from __future__ import annotations

import pytest

from sandbox.baseline import seed_program
from sandbox.examination import (
    Examination,
    MalformedExaminationError,
    Request,
    decode_examination,
    decode_request,
    encode_examination,
    encode_request,
    examine,
    why_too_large,
)
from sandbox.knobs import set_knobs
from sandbox.patches import Block, Patch, make_patch
from sandbox.source_form import digest, normalised_digest

SHIPPED = seed_program("none")
CHILD = set_knobs(SHIPPED, {"MUON.lr": 0.03})
MUON = frozenset({"muon"})


def examined(patch: Patch, scopes: frozenset[str] = MUON) -> Examination:
    return examine(Request(patch=patch, parent=SHIPPED, scopes=scopes))


def test_a_patch_that_may_run_becomes_a_program_with_its_digests() -> None:
    accepted = examined(make_patch(SHIPPED, CHILD)).accepted

    assert accepted is not None
    assert accepted.source == CHILD
    assert accepted.digest == digest(CHILD)
    assert accepted.normalised == normalised_digest(CHILD)


@pytest.mark.parametrize(
    ("patch", "scopes", "rule"),
    [
        (Patch((Block("no such line", ""),)), MUON, "patch"),
        (Patch((Block("a", "b"),) * 501), MUON, "patch"),
        (Patch((Block("MUON", "x" * 600_000),)), MUON, "patch"),
        (make_patch(SHIPPED, CHILD), frozenset({"adamw"}), "scope"),
    ],
)
def test_a_patch_that_may_not_run_becomes_reasons(
    patch: Patch, scopes: frozenset[str], rule: str
) -> None:
    examination = examined(patch, scopes)

    assert examination.accepted is None
    assert [violation.rule for violation in examination.violations] == [rule]


def test_the_limits_on_a_patch_are_as_large_as_a_rewrite_of_the_file() -> None:
    assert why_too_large(Patch((Block(SHIPPED, SHIPPED),))) is None


def test_an_examination_holds_a_program_or_reasons_and_never_both() -> None:
    both = examined(make_patch(SHIPPED, CHILD)).accepted
    reasons = examined(Patch((Block("?", ""),))).violations

    with pytest.raises(ValueError, match="a candidate or in violations"):
        Examination(accepted=both, violations=reasons)
    with pytest.raises(ValueError, match="a candidate or in violations"):
        Examination()


def test_requests_and_examinations_survive_being_written_as_a_line() -> None:
    for patch in (make_patch(SHIPPED, CHILD), Patch((Block("\ud800\n", "\0é"),))):
        request = Request(patch=patch, parent=SHIPPED, scopes=MUON)
        line = encode_request(request)
        assert line.count(b"\n") == 1
        assert decode_request(line) == request
        answer = encode_examination(examine(request))
        assert answer.count(b"\n") == 1
        assert decode_examination(answer) == examine(request)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b"1" * 5000,
        b'{"accepted": null, "violations": []}',
        b'{"accepted": {"source": "x"}, "violations": []}',
        b'{"accepted": null, "violations": [{"rule": "x"}]}',
        b'{"accepted": null, "violations": 3}',
    ],
    ids=range(11),
)
def test_a_line_that_is_something_else_is_refused(line: bytes) -> None:
    for decode in (decode_examination, decode_request):
        with pytest.raises(MalformedExaminationError):
            decode(line)
