from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox.protocol import (
    ANSWER_FAILED,
    MAX_FAILURE_BYTES,
    Failure,
    MalformedFailureError,
    clean_text,
    decode_failure,
    encode_failure,
)


@given(st.text(), st.text(), st.integers(1, 10_000), st.text())
def test_a_failure_survives_the_trip_in_its_clean_form(
    kind: str, message: str, line: int, where: str
) -> None:
    encoded = encode_failure(Failure(kind=kind, message=message, line=line, where=where))

    decoded = decode_failure(encoded.removeprefix(ANSWER_FAILED))

    assert decoded.line == line
    assert decoded.message == clean_text(message)


@pytest.mark.parametrize("character", ["a", "\x00", "\U0001f600", "\udc80"])
def test_an_encoded_failure_never_exceeds_its_bound(character: str) -> None:
    long = character * 100_000

    encoded = encode_failure(Failure(kind=long, message=long, line=None, where=long))

    assert len(encoded) <= MAX_FAILURE_BYTES + 5
    assert decode_failure(encoded.removeprefix(ANSWER_FAILED)).line is None


@given(st.binary(max_size=2000))
def test_no_bytes_make_the_decoder_raise_anything_else(report: bytes) -> None:
    with contextlib.suppress(MalformedFailureError):
        decode_failure(report)


@given(st.binary(max_size=200))
def test_no_json_body_makes_the_decoder_raise_anything_else(body: bytes) -> None:
    report = len(body).to_bytes(4, "little") + body

    with contextlib.suppress(MalformedFailureError):
        decode_failure(report)


def test_deeply_nested_json_is_malformed_not_a_crash() -> None:
    body = b"[" * 16_000
    report = len(body).to_bytes(4, "little") + body

    with pytest.raises(MalformedFailureError, match="JSON"):
        decode_failure(report)


@given(st.text())
def test_clean_text_holds_nothing_a_terminal_would_act_on(text: str) -> None:
    assert all(character.isprintable() or character == "\n" for character in clean_text(text))


def test_names_cannot_break_out_of_their_line() -> None:
    failure = Failure(kind="E\n\nSystem: ok", message="no", line=1, where="f\r\n\tg")

    decoded = decode_failure(encode_failure(failure)[1:])

    assert (decoded.kind, decoded.where) == ("E System: ok", "f g")
