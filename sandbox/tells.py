"""Find the places where a program recognises the run it is in.

A rule that holds up does not need to know that a matrix is 64 by 64, that a run has 400 steps or
that a parameter is called `blocks.0`. Code that compares such a thing with a number or a name
written into it is no proof of anything, since some honest rules do, but it is what a program
looks like that was fitted to its test. So tells are reported beside a verdict and refuse nothing.

What is followed is what is written plainly: attributes and parameters of the usual names, and
local variables that are computed from them. Hiding a comparison from this is easy; the gates that
change the horizon and the size of the model do not read the code.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum

from sandbox.source_form import Statement, nodes_of, statements

__all__ = ["Tell", "TellKind", "find_tells"]

MAX_TELLS = 20
MAX_QUOTE = 120  # characters of the line
_SMALL = 4  # dimensions, indices and halves: no size or length that would tell runs apart


class TellKind(StrEnum):
    """What a program recognises."""

    SIZE = "size"  # of a tensor or the model
    HORIZON = "horizon"  # the length of the run
    STEP = "step"  # where in the run it is
    NAME = "name"  # a parameter's name or layer


@dataclass(frozen=True, slots=True, kw_only=True)
class Tell:
    """One place where a program recognises its run.

    `line` counts from 1 in the candidate, `text` quotes that line, and `sentence` says what is
    compared with what.
    """

    line: int
    text: str
    kind: TellKind
    sentence: str


@dataclass(frozen=True, slots=True)
class _Found:
    """A tell with what makes it the same as another: its kind and the code itself."""

    kind: TellKind
    code: str
    line: int


_ATTRIBUTES: Mapping[str, TellKind] = {
    "shape": TellKind.SIZE,
    "model_width": TellKind.SIZE,
    "total_steps": TellKind.HORIZON,
    "tokens_per_step": TellKind.HORIZON,
    "step": TellKind.STEP,
    "tokens": TellKind.STEP,
    "name": TellKind.NAME,
    "layer": TellKind.NAME,
}
_NAMES: Mapping[str, TellKind] = {
    **_ATTRIBUTES,
    "numel": TellKind.SIZE,
    "width": TellKind.SIZE,
    "horizon": TellKind.HORIZON,
    "max_steps": TellKind.HORIZON,
    "num_steps": TellKind.HORIZON,
    "layer_idx": TellKind.NAME,
    "param_name": TellKind.NAME,
}
_METHODS: Mapping[str, TellKind] = {"numel": TellKind.SIZE, "size": TellKind.SIZE}
# A value stays what it is when passed through these.
_TRANSPARENT = frozenset(
    {"abs", "float", "int", "len", "list", "log", "log10", "log2", "max", "min", "prod", "round"}
    | {"set", "sorted", "sqrt", "str", "sum", "tuple"}
)
_TEXT_TESTS = frozenset(
    {"startswith", "endswith", "count", "find", "index", "removeprefix", "split"}
)
_WHAT: Mapping[TellKind, str] = {
    TellKind.SIZE: "a size",
    TellKind.HORIZON: "the length of the run",
    TellKind.STEP: "the number of a step",
    TellKind.NAME: "the name or layer of a parameter",
}
_BETTER: Mapping[TellKind, str] = {
    TellKind.SIZE: "a rule that needs it will not carry over to another model",
    TellKind.HORIZON: "a schedule should follow step / total_steps",
    TellKind.STEP: "a schedule should follow step / total_steps or a knob",
    TellKind.NAME: "a rule should follow the role of a parameter",
}


def find_tells(candidate: str, parent: str) -> tuple[Tell, ...]:
    """Return the tells that `candidate` has beyond those of its parent, in the order of lines.

    Args:
        candidate: the full text of a program that passed preflight.
        parent: the full text of the program it was made from.

    Raises:
        SourceError: one of them is not a program.
    """
    ours, theirs = statements(candidate, parent), statements(parent)
    our_texts, their_texts = {s.text for s in ours}, {s.text for s in theirs}
    before = Counter(
        (found.kind, found.code)
        for statement in theirs
        if statement.text not in our_texts
        for found in _of_statement(statement)
    )
    added = [
        found
        for statement in ours
        if statement.text not in their_texts
        for found in _of_statement(statement)
    ]
    lines = candidate.split("\n")
    tells = []
    for found in sorted(added, key=lambda found: found.line):
        key = found.kind, found.code
        if before[key] > 0:
            before[key] -= 1
            continue
        text = lines[found.line - 1].strip()[:MAX_QUOTE]
        sentence = (
            f"line {found.line} compares {_WHAT[found.kind]} with a constant, "
            f"`{found.code[:MAX_QUOTE]}`: {_BETTER[found.kind]}"
        )
        tells.append(Tell(line=found.line, text=text, kind=found.kind, sentence=sentence))
    return tuple(tells[:MAX_TELLS])


def _of_statement(statement: Statement) -> Iterator[_Found]:
    known = _watched_names(statement)
    for node in nodes_of(statement.nodes):
        kind = _recognised(node, known)
        if kind is not None:
            shown = node.subject if isinstance(node, ast.Match) else node
            yield _Found(kind, ast.unparse(shown), statement.line_of(node))


def _watched_names(statement: Statement) -> Mapping[str, TellKind]:
    """Return the names that stand for something watched, local variables included."""
    known = dict(_NAMES)
    # Twice, so that a name computed from a name computed later in the text is seen as well.
    for _ in range(2):
        for node in nodes_of(statement.nodes):
            match node:
                case ast.Assign(targets=[target], value=value):
                    pass
                case ast.AnnAssign(target=target, value=ast.expr() as value):
                    pass
                case ast.NamedExpr(target=target, value=value):
                    pass
                case _:
                    continue
            kind = _kind_of(value, known)
            for part in target.elts if isinstance(target, ast.Tuple) else [target]:
                if kind is not None and isinstance(part, ast.Name):
                    known[part.id] = kind
    return known


def _recognised(node: ast.AST, known: Mapping[str, TellKind]) -> TellKind | None:
    """Return what a node compares with something written out, None if it does not."""
    match node:
        case ast.Compare(left=left, comparators=others):
            sides = [left, *others]
            if any(map(_is_telling, sides)):
                return next((kind for side in sides if (kind := _kind_of(side, known))), None)
        case ast.Call(func=ast.Attribute(value=owner, attr=test), args=[first, *_]):
            if test in _TEXT_TESTS and _is_telling(first):
                return _kind_of(owner, known)
            if test == "get" and isinstance(owner, ast.Dict) and any(map(_is_key, owner.keys)):
                return _kind_of(first, known)
        case ast.Subscript(value=ast.Dict(keys=keys), slice=index) if any(map(_is_key, keys)):
            return _kind_of(index, known)
        case ast.Match(subject=subject, cases=cases) if any(map(_has_value, cases)):
            return _kind_of(subject, known)
    return None


def _kind_of(node: ast.expr, known: Mapping[str, TellKind]) -> TellKind | None:
    """Return what an expression stands for, if it is one of the things that are watched."""
    match node:
        case ast.Name(id=name):
            return known.get(name)
        case ast.Attribute(attr=name):
            return _ATTRIBUTES.get(name)
        case ast.Call():
            return _kind_of_call(node, known)
        case (
            ast.Subscript(value=inner)
            | ast.UnaryOp(operand=inner)
            | ast.Starred(value=inner)
            | ast.Tuple(elts=[inner, *_])
            | ast.List(elts=[inner, *_])
        ):
            return _kind_of(inner, known)
        case ast.BinOp(left=left, op=op, right=right):
            return _kind_of_arithmetic(_kind_of(left, known), op, _kind_of(right, known))
    return None


def _kind_of_call(node: ast.Call, known: Mapping[str, TellKind]) -> TellKind | None:
    match node.func:
        case ast.Attribute(attr=name) if name in _METHODS:
            return _METHODS[name]
        case ast.Name(id=name) | ast.Attribute(attr=name) if name in _TRANSPARENT:
            return next((k for argument in node.args if (k := _kind_of(argument, known))), None)
    return None


def _kind_of_arithmetic(
    left: TellKind | None, op: ast.operator, right: TellKind | None
) -> TellKind | None:
    """A step divided by the length of the run is a fraction, and tells nothing."""
    if isinstance(op, ast.Div) and left is not None and right is not None:
        return None
    return left or right


def _is_telling(node: ast.expr) -> bool:
    """Return whether an expression is a constant that could tell one run from another."""
    match node:
        case ast.Constant(value=value):
            return _is_telling_value(value)
        case ast.UnaryOp(operand=inner) | ast.Call(args=[inner]):  # -5, torch.Size((64, 64))
            return _is_telling(inner)
        case ast.BinOp():
            return _is_arithmetic(node)
        case ast.Tuple(elts=elements) | ast.List(elts=elements) | ast.Set(elts=elements):
            return any(map(_is_telling, elements))
    return False


def _is_telling_value(value: object) -> bool:
    if isinstance(value, int | float):
        return abs(value) > _SMALL
    return isinstance(value, str) and value != ""


def _is_arithmetic(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=int() | float()):
            return True
        case ast.UnaryOp(operand=inner):
            return _is_arithmetic(inner)
        case ast.BinOp(left=left, right=right):
            return _is_arithmetic(left) and _is_arithmetic(right)
    return False


def _is_key(node: ast.expr | None) -> bool:
    return node is not None and _is_telling(node)


def _has_value(case: ast.match_case) -> bool:
    return any(
        isinstance(node, ast.MatchValue) and _is_telling(node.value)
        for node in ast.walk(case.pattern)
    )
