"""Rules on loops: each must be seen to end, and soon.

They look at what is written out. A loop over the parameters is always fine; what takes too long
in spite of these rules is stopped by the clock of the jail.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.rules.literals import constant_integer
from sandbox.rules.program import Finding, Program
from sandbox.source_form import Statement

__all__ = ["MAX_ITERATIONS", "check_loops"]

# Products of nested counted loops. The iterations of a step, such as Newton-Schulz, number five
# to ten; two orders of magnitude above that is a mistake.
MAX_ITERATIONS = 1000


def check_loops(statement: Statement, program: Program) -> Iterator[Finding]:  # noqa: ARG001 (all rules take both)
    """Yield the loops of the statement that do not end, or only after too many rounds."""
    waiting: list[tuple[ast.AST, int]] = [(node, 1) for node in statement.nodes]
    while waiting:
        node, rounds = waiting.pop()
        if isinstance(node, ast.While) and not _can_end(node):
            advice = "nothing in this loop is seen to end it; use `for _ in range(...)`"
            yield Finding("loop", node.lineno, advice)
        own = rounds * _counted_rounds(node)
        if own > MAX_ITERATIONS and own > rounds:
            line = getattr(node, "lineno", 1)
            advice = (
                f"the loops here run more than {MAX_ITERATIONS} rounds in all; "
                "use fewer, or one operation on the whole tensor"
            )
            yield Finding("loop", line, advice)
        match node:
            case ast.Call(func=ast.Name(id="iter"), args=[_, _]):
                yield Finding(
                    "loop", node.lineno, "iter with a sentinel may never end; use a `for` loop"
                )
        waiting.extend((child, own) for child in ast.iter_child_nodes(node))


def _counted_rounds(node: ast.AST) -> int:
    """Return how often a loop over written-out ranges runs; 1 for anything else."""
    iterables: list[ast.expr] = []
    if isinstance(node, ast.For):
        iterables = [node.iter]
    elif isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        iterables = [generator.iter for generator in node.generators]
    rounds = 1
    for iterable in iterables:
        rounds *= max(1, _range_length(iterable))
    return rounds


def _range_length(node: ast.expr) -> int:
    match node:
        case ast.Call(func=ast.Name(id="range"), args=arguments) if arguments:
            numbers = [constant_integer(argument) for argument in arguments]
            if len(numbers) == 1:
                return numbers[0] or 0
            if None not in numbers[:2]:
                start, stop, step = ([n or 0 for n in numbers] + [1])[:3]
                return abs(stop - start) // max(1, abs(step))
    return 0


def _can_end(loop: ast.While) -> bool:
    """Return whether the body leaves the loop, or changes something its condition looks at."""
    tested = {node.id for node in ast.walk(loop.test) if isinstance(node, ast.Name)}
    for statement in loop.body:
        for node in ast.walk(statement):
            match node:
                case ast.Break() | ast.Return() | ast.Raise():
                    return True
                case ast.Name(id=name, ctx=ast.Store()) if name in tested:
                    return True
                case ast.Attribute(ctx=ast.Store()) | ast.Subscript(ctx=ast.Store()):
                    if _root(node) in tested:
                        return True
                case ast.Call(func=ast.Attribute() as method) if _root(method) in tested:
                    return True
    return False


def _root(node: ast.expr) -> str | None:
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None
