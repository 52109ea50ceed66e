"""Look at a proposed patch once and completely: does it apply, may the result run, is it new?

Everything that reads the text of a candidate before it is trained happens in `examine`, so that
it can happen in a process of its own (`sandbox.guarded_preflight`).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

from sandbox.patches import Patch, PatchError, apply_patch, from_json, to_json
from sandbox.preflight import Violation, preflight
from sandbox.source_form import digest, normalised_digest

__all__ = [
    "MAX_BLOCKS",
    "MAX_PATCH_CHARACTERS",
    "Accepted",
    "Examination",
    "MalformedExaminationError",
    "Request",
    "decode_examination",
    "decode_request",
    "encode_examination",
    "encode_request",
    "examine",
    "refusal",
    "why_too_large",
]

# An editor of a 40 KB file needs neither. What is larger is not even looked at.
MAX_PATCH_CHARACTERS = 512 * 1024
MAX_BLOCKS = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A patch, the program it was made for, and the regions it may change."""

    patch: Patch
    parent: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """A candidate that may run: its text, its identity, and its identity but for form."""

    source: str
    digest: str
    normalised: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examination:
    """What came of a patch: a candidate, or the reasons why there is none; never both."""

    accepted: Accepted | None = None
    violations: tuple[Violation, ...] = ()

    def __post_init__(self) -> None:
        if (self.accepted is None) != bool(self.violations):
            raise ValueError("an examination ends in a candidate or in violations")


class MalformedExaminationError(ValueError):
    """What was received is no request, or no examination."""


def examine(request: Request) -> Examination:
    """Apply the patch, run preflight on the result, and compute its digests.

    Raises:
        SourceError, RegionError: the parent is not a program.
    """
    reason = why_too_large(request.patch)
    if reason is not None:
        return refusal("patch", reason)
    try:
        source = apply_patch(request.patch, request.parent)
    except PatchError as error:
        return refusal("patch", str(error))
    violations = preflight(source, request.parent, request.scopes)
    if violations:
        return Examination(violations=violations)
    return Examination(
        accepted=Accepted(
            source=source, digest=digest(source), normalised=normalised_digest(source)
        )
    )


def refusal(rule: str, message: str) -> Examination:
    """Refuse a patch as a whole, for a reason that has no line."""
    return Examination(violations=(Violation(rule=rule, line=1, text="", message=message),))


def why_too_large(patch: Patch) -> str | None:
    """Say why a patch is too large to be looked at or stored; None if it is not."""
    if len(patch.blocks) > MAX_BLOCKS:
        return (
            f"the patch has {len(patch.blocks)} blocks, at most {MAX_BLOCKS}; "
            "change fewer places at a time"
        )
    size = sum(len(block.search) + len(block.replace) for block in patch.blocks)
    if size > MAX_PATCH_CHARACTERS:
        return (
            f"the patch has {size} characters, at most {MAX_PATCH_CHARACTERS}; "
            "quote only the lines that change and a few around them"
        )
    return None


def encode_request(request: Request) -> bytes:
    """Write a request as a line."""
    fields = {
        "patch": to_json(request.patch),
        "parent": request.parent,
        "scopes": sorted(request.scopes),
    }
    return json.dumps(fields).encode("ascii") + b"\n"


def decode_request(line: bytes) -> Request:
    """Read what `encode_request` wrote.

    Raises:
        MalformedExaminationError: it is something else.
    """
    try:
        fields: Any = json.loads(line)
        return Request(
            patch=from_json(fields["patch"]),
            parent=str(fields["parent"]),
            scopes=frozenset(map(str, fields["scopes"])),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedExaminationError(f"not a request: {error}") from error


def encode_examination(examination: Examination) -> bytes:
    """Write an examination as a line."""
    return json.dumps(dataclasses.asdict(examination)).encode("ascii") + b"\n"


def decode_examination(line: bytes) -> Examination:
    """Read what `encode_examination` wrote.

    Raises:
        MalformedExaminationError: it is something else.
    """
    try:
        fields: Any = json.loads(line)
        accepted = fields["accepted"]
        return Examination(
            accepted=None if accepted is None else Accepted(**accepted),
            violations=tuple(Violation(**item) for item in fields["violations"]),
        )
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise MalformedExaminationError(f"not an examination: {error}") from error
