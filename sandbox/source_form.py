"""Read Python source as a sequence of top-level statements, and tell equal programs apart.

Programs here are children of one another and differ in a few statements, so whatever is computed
per statement is remembered by its text, and looking at a child whose parent is known costs a
parse of the statements that changed. The stretches between region markers are parsed one by one,
which is stricter than a parse of the whole: no statement can reach across a marker. Nothing here
executes the source, and no text makes it crash.
"""

from __future__ import annotations

import ast
import hashlib
import re
import warnings
from dataclasses import dataclass
from functools import lru_cache

from sandbox.line_error import LineError

__all__ = [
    "SourceError",
    "Statement",
    "digest",
    "nodes_of",
    "normalised_digest",
    "parse",
    "statements",
]

# Where a source is cut into pieces. What is left of a marker's line is the empty first line of the
# piece after it.
_MARKER_LINE = re.compile(r"^# EVOLVE-BLOCK-(?:START|END)\b.*$", re.MULTILINE)


# The statements of the programs looked at last; a child needs its parent's.
_KNOWN_LENGTH = 32
_KNOWN: dict[str, tuple[Statement, ...]] = {}


class SourceError(LineError):
    """A source is not Python that can be read."""


@dataclass(frozen=True, slots=True)
class Statement:
    """The whole lines of one top-level statement, decorators included.

    `first_line` and `last_line` count from 1 in the file. `nodes` holds one node; more where a
    semicolon puts several statements on a line. The same nodes serve every program that has the
    text around them, so theirs are not the lines of the file: `line_of` gives these.
    """

    first_line: int
    last_line: int
    text: str
    nodes: tuple[ast.stmt, ...]
    shift: int = 0

    def line_of(self, node: ast.AST) -> int:
        """Return the line of the file where a node of this statement begins."""
        return int(getattr(node, "lineno", self.first_line - self.shift)) + self.shift


def digest(source: str) -> str:
    """Return the sha256 of the text: the identity of a program."""
    return hashlib.sha256(source.encode("utf-8", "surrogatepass")).hexdigest()


@lru_cache(maxsize=64)
def normalised_digest(source: str) -> str:
    """Return a sha256 that ignores comments, layout, docstrings and how a number is written.

    Raises:
        SourceError: `source` does not parse.
    """
    total = hashlib.sha256()
    for statement in statements(source):
        total.update(_normalised(statement.text))
    return total.hexdigest()


def parse(source: str) -> ast.Module:
    """Parse `source`.

    Raises:
        SourceError: it does not parse, holds null bytes or is nested too deeply.
    """
    try:
        with warnings.catch_warnings():
            # An invalid escape is the author's business, not ours to print.
            warnings.simplefilter("ignore")
            return ast.parse(source)
    except SyntaxError as error:
        raise SourceError(line=error.lineno or 1, reason=f"syntax error: {error.msg}") from error
    except (ValueError, MemoryError, RecursionError) as error:
        reason = str(error) or "nested too deeply; write it flatter, in several statements"
        raise SourceError(line=1, reason=f"cannot be parsed: {reason}") from error


def statements(source: str, base: str | None = None) -> tuple[Statement, ...]:
    """Return the top-level statements of `source` in order.

    Args:
        source: the text.
        base: a text it was made from. What comes out does not depend on it, only the time does.

    Raises:
        SourceError: `source` does not parse, or a statement reaches across a region marker.
    """
    found = _KNOWN.pop(source, None)
    if found is None and base is not None:
        found = _like_base(source, base)
    if found is None:
        found = _statements_of_pieces(source, 0)
    _KNOWN[source] = found  # the last of a dict is the newest, the first the one to forget
    if len(_KNOWN) > _KNOWN_LENGTH:
        del _KNOWN[next(iter(_KNOWN))]
    return found


@lru_cache(maxsize=64)
def nodes_of(nodes: tuple[ast.stmt, ...]) -> tuple[ast.AST, ...]:
    """Return every node of some statements but operators and contexts, outer ones first."""
    found: list[ast.AST] = list(nodes)
    for node in found:
        for name in node._fields:
            value = getattr(node, name, None)
            if isinstance(value, list):
                found += [item for item in value if isinstance(item, ast.AST)]
            elif isinstance(value, ast.AST) and name not in ("ctx", "op"):
                found.append(value)
    return tuple(found)


def _like_base(source: str, base: str) -> tuple[Statement, ...] | None:
    """Return the statements of `source`, those it shares with `base` taken over unparsed.

    Above the first changed line and below the last, the statements are those of `base`. What is
    left between them is read by itself: that finds the same statements wherever it succeeds,
    since it starts after the end of one statement and ends before the beginning of another.

    Returns:
        None where it does not succeed, because the change reaches into what lies around it.
    """
    new, old = source.split("\n"), base.split("\n")
    head, tail = _shared_ends(new, old)
    shift = len(new) - len(old)
    before = [s for s in statements(base) if s.last_line <= head]
    after = [s for s in statements(base) if s.first_line > len(old) - tail]
    if any(s.text.endswith("\\") for s in before[-1:]):
        return None  # the next line belongs to it, whatever it is
    start = before[-1].last_line if before else 0
    end = after[0].first_line - 1 + shift if after else len(new)
    try:
        middle = _statements_of_pieces("\n".join(new[start:end]), start)
    except SourceError:
        return None
    return (*before, *middle, *(_moved(s, shift) for s in after))


def _shared_ends(new: list[str], old: list[str]) -> tuple[int, int]:
    """Return how many lines two texts share at the beginning, and how many more at the end."""
    shorter = min(len(new), len(old))
    head = tail = 0
    while head < shorter and new[head] == old[head]:
        head += 1
    while tail < shorter - head and new[-1 - tail] == old[-1 - tail]:
        tail += 1
    return head, tail


def _moved(statement: Statement, by: int) -> Statement:
    if by == 0:
        return statement
    return Statement(
        statement.first_line + by,
        statement.last_line + by,
        statement.text,
        statement.nodes,
        statement.shift + by,
    )


def _statements_of_pieces(source: str, shift: int) -> tuple[Statement, ...]:
    """Return the statements of a text that begins after `shift` lines of its file."""
    found: list[Statement] = []
    for piece in _MARKER_LINE.split(source):
        try:
            inside = _statements_of_piece(piece)
        except SourceError as error:
            raise SourceError(line=error.line + shift, reason=error.reason) from error
        found += [_moved(statement, shift) for statement in inside]
        shift += piece.count("\n")
    return tuple(found)


@lru_cache(maxsize=64)
def _statements_of_piece(piece: str) -> tuple[Statement, ...]:
    lines = piece.split("\n")
    found: list[Statement] = []
    for node in parse(piece).body:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        last = node.end_lineno or node.lineno
        nodes: tuple[ast.stmt, ...] = (node,)
        if found and first <= found[-1].last_line:
            shared = found.pop()
            first, last = shared.first_line, max(last, shared.last_line)
            nodes = (*shared.nodes, node)
        found.append(Statement(first, last, "\n".join(lines[first - 1 : last]), nodes))
    return tuple(found)


@lru_cache(maxsize=4096)
def _normalised(text: str) -> bytes:
    """Return top-level statements as the interpreter would print them, without docstrings."""
    tree = parse(text)
    try:
        for node in ast.walk(tree):
            _drop_strings(node)
        form = ast.unparse(tree)
    except (RecursionError, ValueError) as error:  # too deep, or an integer too long to print
        raise SourceError(line=1, reason="cannot be written out to be compared") from error
    return f"{form}\n".encode("utf-8", "surrogatepass") if form else b""


def _drop_strings(node: ast.AST) -> None:
    """Remove strings that stand alone as statements: docstrings and comments in disguise."""
    for name in ("body", "orelse", "finalbody"):
        body = getattr(node, name, None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_bare_string(item)]
            # The body of a function or class needs a statement, a module or an `else` does not.
            needs_one = name == "body" and not isinstance(node, ast.Module)
            setattr(node, name, kept or ([ast.Pass()] if needs_one else []))


def _is_bare_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
