"""What has to hold for every input, however hostile: one function per reader of foreign text.

Each takes an input and raises AssertionError where a promise is broken; any other exception is a
finding as well. The Hypothesis tests beside this module and the coverage-guided driver share them.
"""

from __future__ import annotations

import ast
import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterator

from sandbox.baseline import seed_program
from sandbox.examination import (
    MalformedExaminationError,
    Request,
    decode_examination,
    decode_request,
    encode_examination,
    examine,
)
from sandbox.patches import (
    Patch,
    PatchError,
    apply_patch,
    from_blocks,
    from_json,
    make_patch,
    to_json,
)
from sandbox.preflight import MAX_VIOLATIONS, preflight
from sandbox.protocol import Failure, MalformedFailureError, clean_text, decode_failure
from sandbox.regions import find_regions, outside
from sandbox.rules.vocabulary import ALLOWED, DENIED_NAMES
from sandbox.source_form import normalised_digest, statements
from sandbox.tells import find_tells

__all__ = [
    "MAX_CPU_S",
    "SCOPES",
    "SHIPPED",
    "check_clean_text",
    "check_examination_line",
    "check_failure",
    "check_patch_text",
    "check_preflight",
    "inserted",
]

MAX_CPU_S = 2.0  # the limit of the process that preflight runs in
SHIPPED = seed_program("none")
SCOPES = frozenset({"policy", "muon", "schedule"})


def check_failure(report: bytes) -> None:
    """A failure report is read, or refused as malformed; what is read is safe to show."""
    try:
        failure = decode_failure(report)
    except MalformedFailureError:
        return
    assert isinstance(failure, Failure)
    for text in (failure.kind, failure.message, failure.where):
        _check_shown(text)
    assert failure.line is None or failure.line > 0


def check_clean_text(text: str) -> None:
    """Cleaned text is safe to show, and cleaning it again changes nothing."""
    clean = clean_text(text)
    _check_shown(clean)
    assert clean_text(clean) == clean
    assert len(clean) <= len(text)


def check_patch_text(text: str) -> None:
    """A patch is read or refused, and applied or refused, in both of its forms."""
    for read in (from_json, from_blocks):
        try:
            patch = read(text)
        except PatchError:
            continue
        assert from_json(to_json(patch)) == patch
        _check_applied(patch, SHIPPED)
        _check_applied(patch, text)


def check_examination_line(line: bytes) -> None:
    """A request or an answer is read or refused; what is read can be examined and written."""
    with contextlib.suppress(MalformedExaminationError):
        decode_examination(line)
    try:
        request = decode_request(line)
    except MalformedExaminationError:
        return
    request = Request(patch=request.patch, parent=SHIPPED, scopes=request.scopes)
    examination = examine(request)
    assert decode_examination(encode_examination(examination)) == examination


def check_preflight(candidate: str) -> bool:
    """Preflight answers in time, and what it accepts has nothing forbidden that is new.

    Returns:
        Whether it was accepted.
    """
    started = time.process_time()
    violations = preflight(candidate, SHIPPED, SCOPES)
    assert time.process_time() - started < MAX_CPU_S
    assert len(violations) <= MAX_VIOLATIONS
    for violation in violations:
        assert 1 <= violation.line <= candidate.count("\n") + 1
        assert violation.rule
        _check_shown(violation.text)
        _check_shown(violation.message)
    if violations:
        return False
    _check_accepted(candidate)
    return True


def inserted(text: str, region: str = "muon") -> str:
    """Put a text at the end of a region of the shipped file."""
    [found] = [r for r in find_regions(SHIPPED) if r.name == region]
    lines = SHIPPED.split("\n")
    lines[found.last_line : found.last_line] = text.split("\n")
    return "\n".join(lines)


def _check_shown(text: str) -> None:
    assert all(character.isprintable() or character == "\n" for character in text)


def _check_applied(patch: Patch, source: str) -> None:
    try:
        changed = apply_patch(patch, source)
    except PatchError:
        return
    back = make_patch(source, changed)
    assert apply_patch(back, source) == changed


def _check_accepted(candidate: str) -> None:
    """Look at an accepted program with other eyes than preflight's: one parse of the whole."""
    tree = ast.parse(candidate)
    before = Counter(_forbidden(ast.parse(SHIPPED)))
    assert not Counter(_forbidden(tree)) - before
    assert outside(candidate) == outside(SHIPPED)
    assert json.loads(json.dumps(candidate)) == candidate
    assert len(normalised_digest(candidate)) == 64
    assert [node for s in statements(candidate) for node in map(ast.dump, s.nodes)] == [
        ast.dump(node) for node in tree.body
    ]
    for tell in find_tells(candidate, SHIPPED):
        _check_shown(tell.text)


def _forbidden(tree: ast.Module) -> Iterator[str]:
    """Yield the names that have no place in an optimizer."""
    for node in ast.walk(tree):
        match node:
            case ast.Name(id=name) if name in DENIED_NAMES or name.startswith("__"):
                yield name
            case ast.Attribute(attr=name) if name.startswith("__") and name.endswith("__"):
                if name not in {"__init__", "__slots__", "__name__"}:
                    yield f".{name}"
            case ast.Import(names=aliases):
                yield from (f"import {a.name}" for a in aliases if a.name not in ALLOWED)
            case ast.ImportFrom(module=module) if (module or "") not in ALLOWED:
                yield f"from {module}"
            case ast.Global() | ast.AsyncFunctionDef() | ast.Await():
                yield type(node).__name__
