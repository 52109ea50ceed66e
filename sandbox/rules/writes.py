"""Rules on what the added code may change: its own state and the tensors, nothing shared."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.rules.program import Finding, Program
from sandbox.source_form import Statement, nodes_of

__all__ = ["check_classes", "check_writes"]

_MUTATORS = frozenset(
    {"append", "clear", "extend", "insert", "pop", "popitem", "remove", "setdefault", "update"}
)
_TENSOR_CLASSES = frozenset({"torch.Tensor", "torch.nn.Parameter"})
_SHARED = "{} belongs to the whole module and may not be changed; keep state in the optimizer"
_UNUSABLE = {
    ast.Global: "global is not allowed; keep state in the optimizer, not in the module",
    ast.AsyncFunctionDef: "async: an optimizer does not wait for anything",
    ast.Await: "await: an optimizer does not wait for anything",
    ast.AsyncFor: "async for: an optimizer does not wait for anything",
    ast.AsyncWith: "async with: an optimizer does not wait for anything",
}


def check_writes(statement: Statement, program: Program) -> Iterator[Finding]:
    """Yield the places where the statement changes what is not its own."""
    shared = _shared_names(statement, program)
    for node in nodes_of(statement.nodes):
        line = getattr(node, "lineno", 1)
        if type(node) in _UNUSABLE:
            yield Finding("statement", line, _UNUSABLE[type(node)])
        match node:
            case (
                ast.Attribute(ctx=ast.Store() | ast.Del())
                | ast.Subscript(ctx=ast.Store() | ast.Del())
            ):
                yield from _check_target(node, shared)
            case ast.Call(func=ast.Attribute(value=ast.Name(id=name), attr=method)) if (
                name in shared and method in _MUTATORS
            ):
                yield Finding("write", line, _SHARED.format(name))
            case ast.ExceptHandler(type=None | ast.Name(id="BaseException")):
                advice = "name the exceptions to catch, as in `except ValueError`"
                yield Finding("statement", line, advice)


def check_classes(statement: Statement, program: Program) -> Iterator[Finding]:
    """Yield classes that are not plain: with a metaclass, or a kind of tensor."""
    for node in nodes_of(statement.nodes):
        if not isinstance(node, ast.ClassDef):
            continue
        if node.keywords:
            yield Finding(
                "class", node.lineno, "a class takes no metaclass and no keywords; leave them out"
            )
        for base in node.bases:
            if _dotted(base, program) in _TENSOR_CLASSES:
                yield Finding(
                    "class", node.lineno, "a class may not be a kind of tensor; write functions"
                )
            elif _dotted(base, program) == "type":
                yield Finding(
                    "class", node.lineno, "a class may not be a metaclass; write a plain class"
                )


def _shared_names(statement: Statement, program: Program) -> frozenset[str]:
    """Return the imports, tables, functions and classes that the statement can see as such."""
    own = {
        node.arg if isinstance(node, ast.arg) else node.id
        for node in nodes_of(statement.nodes)
        if isinstance(node, ast.arg)
        or (isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store))
    }
    locked: set[str] = set()
    for part in program.parts:
        if part.owner is None:
            locked |= part.facts.defines
    named = {*program.imports, *program.callables, *program.table_keys, *locked}
    return frozenset(named - own)


def _check_target(node: ast.Attribute | ast.Subscript, shared: frozenset[str]) -> Iterator[Finding]:
    if isinstance(node, ast.Attribute) and node.attr in {"data", "requires_grad"}:
        advice = f"do not assign .{node.attr}; write into the tensor, as in x.copy_(y)"
        yield Finding("write", node.lineno, advice)
    if isinstance(node, ast.Subscript) and _is_literal(node.slice, "params"):
        advice = "the parameters of a group are fixed; write into the tensors, as in p.copy_(q)"
        yield Finding("write", node.lineno, advice)
    root: ast.expr = node
    while isinstance(root, ast.Attribute | ast.Subscript):
        root = root.value
    if isinstance(root, ast.Name) and root.id in shared:
        yield Finding("write", node.lineno, _SHARED.format(root.id))


def _is_literal(node: ast.expr, text: str) -> bool:
    return isinstance(node, ast.Constant) and node.value == text


def _dotted(node: ast.expr, program: Program) -> str:
    names: list[str] = []
    while isinstance(node, ast.Attribute):
        names.append(node.attr)
        node = node.value
    root = program.imports.get(node.id, node.id) if isinstance(node, ast.Name) else ""
    return ".".join([root, *reversed(names)])
