"""The words that cross the line between the evaluation worker and a jail.

Two pipes and a few fixed-size messages. A request is one byte, followed for a step by a training
state of fixed size; an answer is one byte, followed for a failure by a length and a JSON text.
Both sides live on the same machine, so the byte order is the native one.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

__all__ = [
    "ANSWER_CONFINED",
    "ANSWER_DONE",
    "ANSWER_FAILED",
    "ANSWER_READY",
    "FAILURE_HEADER",
    "MAX_FAILURE_BYTES",
    "REQUEST_ENTER_EVAL",
    "REQUEST_LEAVE_EVAL",
    "REQUEST_STEP",
    "STATE_FORMAT",
    "STATE_SIZE",
    "Failure",
    "MalformedFailureError",
    "clean_text",
    "decode_failure",
    "encode_failure",
]

REQUEST_STEP = b"s"
REQUEST_ENTER_EVAL = b"v"
REQUEST_LEAVE_EVAL = b"t"

ANSWER_CONFINED = b"c"  # said before a candidate's first line runs
ANSWER_READY = b"r"
ANSWER_DONE = b"d"
ANSWER_FAILED = b"e"

# step, total steps, training loss in nats, tokens seen
STATE_FORMAT = struct.Struct("=qqdq")
STATE_SIZE = STATE_FORMAT.size
FAILURE_HEADER = struct.Struct("=I")
# A traceback of 40 long lines fits four times; it must also fit a pipe's 64 KiB in one write.
MAX_FAILURE_BYTES = 16 << 10
_MAX_LINE = 1_000_000
_MAX_NAME = 100  # characters


class MalformedFailureError(ValueError):
    """The bytes that claim to describe a failure do not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a jail says went wrong. Every word of it may have been chosen by the candidate."""

    kind: str
    message: str
    line: int | None
    where: str


def encode_failure(failure: Failure) -> bytes:
    """Encode a failure as the answer byte, a length and JSON, within `MAX_FAILURE_BYTES`."""
    budget = MAX_FAILURE_BYTES // 4
    body = json.dumps(
        {
            "kind": failure.kind[:200],
            "message": failure.message[:budget],
            "line": failure.line,
            "where": failure.where[:200],
        }
    ).encode("ascii")
    if len(body) > MAX_FAILURE_BYTES:  # every character escaped to six bytes
        body = json.dumps(
            {"kind": "Error", "message": "(unprintable)", "line": failure.line, "where": ""}
        ).encode("ascii")
    return ANSWER_FAILED + FAILURE_HEADER.pack(len(body)) + body


def decode_failure(report: bytes) -> Failure:
    """Read a failure report (length and JSON, after the answer byte), trusting nothing about it.

    Raises:
        MalformedFailureError: its length is wrong or it is not JSON of the expected shape.
    """
    size = FAILURE_HEADER.unpack(report[: FAILURE_HEADER.size].ljust(FAILURE_HEADER.size, b"\0"))[0]
    body = report[FAILURE_HEADER.size :]
    if len(body) != size or size > MAX_FAILURE_BYTES:
        raise MalformedFailureError(f"a failure report of {size} bytes came as {len(body)}")
    try:
        fields = json.loads(body.decode("ascii"))
    except (ValueError, RecursionError) as error:  # not ASCII, not JSON, a number too long
        raise MalformedFailureError("a failure report is not ASCII JSON") from error
    if not isinstance(fields, dict):
        raise MalformedFailureError("a failure report is not a JSON object")
    kind, message = fields.get("kind"), fields.get("message")
    where, line = fields.get("where"), fields.get("line")
    if not (isinstance(kind, str) and isinstance(message, str) and isinstance(where, str)):
        raise MalformedFailureError("a failure report lacks its texts")
    if line is not None and (isinstance(line, bool) or not isinstance(line, int)):
        raise MalformedFailureError("a failure report's line is not a number")
    if line is not None and not 0 < line <= _MAX_LINE:
        line = None
    return Failure(
        kind=_one_line(kind)[:_MAX_NAME],
        message=clean_text(message),
        line=line,
        where=_one_line(where)[:_MAX_NAME],
    )


def _one_line(text: str) -> str:
    """Clean a name: those of types and functions may hold anything, line breaks too."""
    return " ".join(clean_text(text).split())


def clean_text(text: str) -> str:
    """Keep what is safe to store and show: printable characters, newlines and tabs as spaces.

    Terminal escapes, control characters and bidirectional overrides are dropped.
    """
    return "".join(
        character if character.isprintable() or character == "\n" else " " * (character == "\t")
        for character in text
    )
