"""Rules on imports, names and attributes: what the added code may reach.

What a patch imports, the built-ins it uses and what it takes from a module are held against a
list of what is allowed; attributes of other objects against a list of what is not. Getting
around the second list is possible, and useless: the jail holds whatever comes out.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator, Mapping

from sandbox.rules.program import Finding, Program, bound_names
from sandbox.rules.vocabulary import (
    ALLOWED,
    BUILTINS,
    DENIED_ATTRIBUTES,
    DENIED_NAMES,
    why_not_allowed,
    why_not_imported,
)
from sandbox.source_form import Statement, nodes_of

__all__ = ["check_names", "check_undefined"]

_DUNDER = re.compile(r"__\w+")
# A template whose fields are only filled in, as in "{} of {1:.3f}": nothing is looked up.
_PLAIN_TEMPLATE = re.compile(r"(?:[^{}]|\{\w*(?:![rsa])?(?::[^{}]*)?\})*+")
_ALLOWED_DUNDERS = frozenset({"__init__", "__slots__", "__name__"})
_METHODS = (
    "__init__",
    "__post_init__",
    "__call__",
    "__len__",
    "__iter__",
    "__getitem__",
    "__repr__",
)
_METHODS_LIST = ", ".join(_METHODS)

# Built-ins with a harmless form, and the only form they may have.
_ONLY_CALLED = {
    "getattr": 'getattr(x, "name") with a plain attribute name written out',
    "hasattr": 'hasattr(x, "name") with a plain attribute name written out',
    "type": "type(x) with one argument",
    "super": "super()",
}


def check_names(statement: Statement, program: Program) -> Iterator[Finding]:
    """Yield what the statement reaches for and may not have."""
    inner = {
        id(node.value) for node in nodes_of(statement.nodes) if isinstance(node, ast.Attribute)
    }
    called = {
        id(node.func): node for node in nodes_of(statement.nodes) if isinstance(node, ast.Call)
    }
    for node in nodes_of(statement.nodes):
        yield from _check_bindings(node, program.imports)
        match node:
            case ast.Import() | ast.ImportFrom():
                yield from _check_import(node)
            case ast.Attribute(value=ast.Constant(value=str(text)), attr="format") if (
                _PLAIN_TEMPLATE.fullmatch(text)
            ):
                continue
            case ast.Attribute():
                yield from _check_attribute(node.attr, node.lineno)
                if id(node) not in inner:
                    yield from _check_reach(node, program.imports)
            case ast.MatchClass(kwd_attrs=names):
                for name in names:
                    yield from _check_attribute(name, node.lineno)
            case ast.Name(ctx=ast.Load()):
                yield from _check_name(node, called.get(id(node)))
                if id(node) not in inner:
                    yield from _check_reach(node, program.imports)


def check_undefined(program: Program) -> Iterator[Finding]:
    """Yield each name that is read somewhere, bound nowhere and no allowed built-in."""
    known = program.binds | BUILTINS | DENIED_NAMES
    for part in program.parts:
        missing = {name for name in part.facts.loads - known if not _DUNDER.fullmatch(name)}
        for top in part.statement.nodes if missing else ():
            for node in ast.walk(top):
                if isinstance(node, ast.Name) and node.id in missing:
                    missing.discard(node.id)
                    advice = (
                        f"{node.id} is a built-in that an optimizer may not use; do without"
                        if hasattr(builtins, node.id)
                        else f"{node.id} is not defined in this file; define it, or correct it"
                    )
                    yield Finding("name", part.statement.line_of(node), advice)


def _check_import(node: ast.Import | ast.ImportFrom) -> Iterator[Finding]:
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name not in ALLOWED:
                yield Finding("import", node.lineno, why_not_imported(alias.name))
        return
    module = node.module or ""
    if node.level or module not in ALLOWED:
        yield Finding("import", node.lineno, why_not_imported(module or "this package"))
        return
    for alias in node.names:
        name = f"{module}.{alias.name}"
        reason = None if name in ALLOWED else why_not_allowed(name)
        if reason:
            yield Finding("import", node.lineno, reason)


def _check_bindings(node: ast.AST, imports: Mapping[str, str]) -> Iterator[Finding]:
    line = getattr(node, "lineno", 1)
    if isinstance(node, ast.Import | ast.ImportFrom):
        for alias in node.names:
            origin = imports.get(alias.asname or alias.name)
            expected = {alias.name, f"{getattr(node, 'module', '')}.{alias.name}"}
            if origin is not None and origin not in expected:
                name = alias.asname or alias.name
                advice = f"{name} already means {origin} in this file; import it under another name"
                yield Finding("name", line, advice)
        return
    for name in bound_names(node):
        if name in imports:
            advice = f"{name} is the name of an import of this file; choose another name"
            yield Finding("name", line, advice)
        if name in DENIED_NAMES:
            advice = f"{name} is the name of a built-in with side effects; choose another name"
            yield Finding("name", line, advice)
        if _DUNDER.fullmatch(name) and not _is_allowed_dunder(name, node):
            advice = (
                f"{name} may not be defined; of the special methods only {_METHODS_LIST} may be"
            )
            yield Finding("name", line, advice)


def _check_attribute(name: str, line: int) -> Iterator[Finding]:
    if _DUNDER.fullmatch(name) and name not in _ALLOWED_DUNDERS:
        advice = f".{name} may not be used: it leads into the interpreter; do without"
        yield Finding("attribute", line, advice)
    elif name in DENIED_ATTRIBUTES:
        yield Finding("attribute", line, f".{name} {DENIED_ATTRIBUTES[name]}")


def _check_reach(node: ast.expr, imports: Mapping[str, str]) -> Iterator[Finding]:
    """Yield a finding where a chain such as `F.pad` leads to what a module may not lend out."""
    names: list[str] = []
    root = node
    while isinstance(root, ast.Attribute):
        names.append(root.attr)
        root = root.value
    if not isinstance(root, ast.Name) or root.id not in imports:
        return
    origin = imports[root.id]
    if origin.partition(".")[0] not in ALLOWED:
        return  # the import itself is refused; one reason is enough
    reason = why_not_allowed(".".join([origin, *reversed(names)]))
    if reason:
        yield Finding("attribute", node.lineno, reason)


def _check_name(node: ast.Name, call: ast.Call | None) -> Iterator[Finding]:
    if node.id in DENIED_NAMES:
        advice = (
            f"{node.id} is not allowed: an optimizer neither runs text, nor reads, nor prints; "
            "leave it out"
        )
        yield Finding("name", node.lineno, advice)
    elif _DUNDER.fullmatch(node.id):
        advice = f"{node.id} may not be used: it leads into the interpreter; do without"
        yield Finding("name", node.lineno, advice)
    elif node.id in _ONLY_CALLED and not _is_harmless_call(node.id, call):
        yield Finding("name", node.lineno, f"{node.id} may only be used as {_ONLY_CALLED[node.id]}")


def _is_harmless_call(name: str, call: ast.Call | None) -> bool:
    if call is None or call.keywords or any(isinstance(a, ast.Starred) for a in call.args):
        return False
    if name in {"getattr", "hasattr"}:
        match call.args:
            case [_, ast.Constant(value=str(attribute)), *_]:
                return attribute.isidentifier() and not any(_check_attribute(attribute, 1))
        return False
    return len(call.args) == (1 if name == "type" else 0)


def _is_allowed_dunder(name: str, node: ast.AST) -> bool:
    """Return whether `name` is a plain method such as `__call__`, or the list of slots."""
    return name in _METHODS if isinstance(node, ast.FunctionDef) else name == "__slots__"
