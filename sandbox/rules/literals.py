"""Rules on literals: weights must be learned, they cannot be written into the program."""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator

from sandbox.rules.program import Finding, Program
from sandbox.source_form import Statement, nodes_of

__all__ = ["check_literals", "constant_integer"]

MAX_INTEGER = 1_000_000  # steps, sizes and periods of a training run stay below it
MAX_STRING = 200  # characters; names of modes have a dozen, docstrings are not counted
MAX_ELEMENTS = 32  # of one list, tuple, set or dict of constants
_LARGE_INTEGER = (
    f"an integer beyond {MAX_INTEGER}: no step, size or period is so large; "
    "write a large factor as a float, such as 1e9"
)
_BEYOND = 1 << 62  # stands for any integer too large to be worth computing


def check_literals(statement: Statement, program: Program) -> Iterator[Finding]:  # noqa: ARG001 (all rules take both)
    """Yield literals that are too large, too long or too many in one place."""
    docstrings = {
        id(node.value) for node in nodes_of(statement.nodes) if isinstance(node, ast.Expr)
    }
    for node in nodes_of(statement.nodes):
        match node:
            case ast.Constant() if id(node) not in docstrings:
                yield from _check_constant(node)
            case ast.BinOp():
                yield from _check_arithmetic(node)
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                yield from _check_elements(node, elements)
            case ast.Dict(values=elements):
                yield from _check_elements(node, elements)


def constant_integer(node: ast.expr) -> int | None:
    """Evaluate arithmetic of written-out integers; None for anything else.

    What is beyond 2^62 is given as 2^62, so no expression takes long.
    """
    match node:
        case ast.Constant(value=int(number)):
            return max(-_BEYOND, min(_BEYOND, number))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = constant_integer(operand)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=op, right=right):
            return _combine(constant_integer(left), op, constant_integer(right))
    return None


def _combine(left: int | None, op: ast.operator, right: int | None) -> int | None:
    if left is None or right is None:
        return None
    result: int
    match op:
        case ast.Add():
            result = left + right
        case ast.Sub():
            result = left - right
        case ast.Mult():
            result = left * right
        case ast.FloorDiv() if right != 0:
            result = left // right
        case ast.Pow() if right >= 0:
            is_large = right * max(1, abs(left).bit_length()) > 62  # noqa: PLR2004 (bits of _BEYOND)
            result = _BEYOND if is_large and abs(left) > 1 else int(left**right)
        case ast.LShift() if right >= 0:
            result = left << min(right, 62)
        case _:
            return None
    return max(-_BEYOND, min(_BEYOND, result))


def _check_constant(node: ast.Constant) -> Iterator[Finding]:
    match node.value:
        case bool():
            return
        case int(number) if abs(number) > MAX_INTEGER:
            yield Finding("literal", node.lineno, _LARGE_INTEGER)
        case float(number) if not math.isfinite(number):
            yield Finding(
                "literal", node.lineno, "this number is beyond the range of a float; use math.inf"
            )
        case bytes():
            yield Finding(
                "literal", node.lineno, "bytes have no use in an optimizer; leave them out"
            )
        case str(text) if len(text) > MAX_STRING:
            advice = f"a string has {len(text)} characters, at most {MAX_STRING}; shorten it"
            yield Finding("literal", node.lineno, advice)


def _check_arithmetic(node: ast.BinOp) -> Iterator[Finding]:
    if isinstance(node.op, ast.Pow | ast.LShift) and not _is_within(constant_integer(node)):
        yield Finding("literal", node.lineno, _LARGE_INTEGER)
    if isinstance(node.op, ast.Mult):
        for sequence, count in ((node.left, node.right), (node.right, node.left)):
            is_sequence = isinstance(sequence, ast.List | ast.Tuple) or (
                isinstance(sequence, ast.Constant) and isinstance(sequence.value, str | bytes)
            )
            if is_sequence and (constant_integer(count) or 0) > MAX_ELEMENTS:
                advice = f"a sequence is repeated more than {MAX_ELEMENTS} times; use torch.full"
                yield Finding("literal", node.lineno, advice)


def _check_elements(node: ast.expr, elements: list[ast.expr]) -> Iterator[Finding]:
    constants = sum(isinstance(element, ast.Constant | ast.UnaryOp) for element in elements)
    if constants > MAX_ELEMENTS:
        advice = f"{constants} constants in one place, at most {MAX_ELEMENTS}; compute them"
        yield Finding("literal", node.lineno, advice)


def _is_within(number: int | None) -> bool:
    return number is None or abs(number) <= MAX_INTEGER
