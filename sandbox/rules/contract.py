"""Rules that keep a program working for those who call it.

The locked text calls functions of the regions, and the regions call each other. A patch may
rewrite what they do, but not how they are called.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterator
from dataclasses import replace

from sandbox.knobs import KnobError, family_endings, is_same, read_knobs, why_out_of_bounds
from sandbox.rules.program import Finding, Program
from sandbox.source_form import Statement

__all__ = ["check_callables", "check_knobs", "check_table_reads"]

_ENTRY_POINT = "build_optimizer"
_ENTRY_METHODS = frozenset({"observe", "step"})  # eval and train are optional


def check_knobs(candidate: Program, parent: Program) -> Iterator[Finding]:
    """Yield what is wrong with the tables: gone, not literal, unknown or out of bounds."""
    for table in sorted(parent.table_keys.keys() - candidate.table_keys.keys()):
        advice = f"the table {table} = Knobs(key=literal, ...) has to stay, other parts read it"
        yield Finding("knob", _home_of(table, candidate, parent), advice)
    try:
        knobs = read_knobs(candidate.source)
    except KnobError as error:
        yield Finding("knob", error.line, error.reason)
        return
    before = read_knobs(parent.source)
    for name, knob in knobs.items():
        if name in before and is_same(before[name].value, knob.value):
            continue
        if knob.bounds is None:
            endings = ", ".join(family_endings(parent.source)) or "none"
            advice = (
                f"{name} is a new knob of which no range is known; end its name in one of "
                f"{endings}, or write a plain constant outside the table"
            )
            yield Finding("knob", knob.line, advice)
            continue
        reason = why_out_of_bounds(knob.value, knob.bounds)
        if reason:
            yield Finding("knob", knob.line, f"{name} is out of bounds: {reason}")


def check_table_reads(program: Program) -> Iterator[Finding]:
    """Yield a finding where the code reads a knob that its table does not declare."""
    keys = program.table_keys
    for part in program.parts:
        missing = {
            (table, key)
            for table, key in part.facts.attributes
            if table is not None and key not in keys.get(table, (key,))
        }
        for top in part.statement.nodes if missing else ():
            for node in ast.walk(top):
                match node:
                    case ast.Attribute(value=ast.Name(id=table), attr=key) if (
                        table,
                        key,
                    ) in missing:
                        advice = (
                            f"{table}.{key} is read here, but the table does not declare it; add "
                            f"{key}=<number> to {table}, or correct the name"
                        )
                        yield Finding("knob", part.statement.line_of(node), advice)


def check_callables(
    candidate: Program, parent: Program, gone: Collection[Statement]
) -> Iterator[Finding]:
    """Yield functions and methods that other parts of the file can no longer call as before.

    `gone` are the statements of the parent that the candidate does not have word for word.
    """
    for name, (statement, old) in parent.callables.items():
        if statement not in gone:
            continue
        used, attributes = _used_elsewhere(candidate, parent, name)
        is_optimizer = isinstance(old, ast.ClassDef) and _methods(old).keys() >= _ENTRY_METHODS
        if not (used or is_optimizer or name == _ENTRY_POINT):
            continue
        if name not in candidate.callables:
            if name not in candidate.binds:
                line = _home_of(name, candidate, parent)
                advice = f"{name} is gone, but other parts of the file use it; keep it"
                yield Finding("contract", line, advice)
            continue
        place, new = candidate.callables[name]
        if isinstance(old, ast.FunctionDef) and isinstance(new, ast.FunctionDef):
            findings = _check_signature(name, old, new)
        elif isinstance(old, ast.ClassDef) and isinstance(new, ast.ClassDef):
            findings = _check_methods(old, new, attributes | _ENTRY_METHODS)
        else:
            continue
        for finding in findings:
            yield replace(finding, line=finding.line + place.shift)


def _home_of(name: str, candidate: Program, parent: Program) -> int:
    """Return where to put back what is gone: the first line of the region it was in."""
    owner = next(part.owner for part in parent.parts if name in part.facts.defines)
    return next((r.first_line for r in candidate.regions if r.name == owner), 1)


def _used_elsewhere(candidate: Program, parent: Program, name: str) -> tuple[bool, frozenset[str]]:
    """Return whether parts of the candidate that do not own `name` use it, and their attributes."""
    owner = next(part.owner for part in parent.parts if name in part.facts.defines)
    others = [part.facts for part in candidate.parts if part.owner != owner]
    attributes = frozenset(attribute for facts in others for _, attribute in facts.attributes)
    return any(name in facts.loads for facts in others), attributes


def _methods(node: ast.ClassDef) -> dict[str, ast.FunctionDef]:
    return {item.name: item for item in node.body if isinstance(item, ast.FunctionDef)}


def _check_methods(
    old: ast.ClassDef, new: ast.ClassDef, needed: frozenset[str]
) -> Iterator[Finding]:
    now = _methods(new)
    for name, method in _methods(old).items():
        if name not in needed:
            continue
        if name not in now:
            advice = f"{new.name}.{name} is gone, but other parts of the file use it; keep it"
            yield Finding("contract", new.lineno, advice)
        else:
            yield from _check_signature(f"{new.name}.{name}", method, now[name])


def _check_signature(name: str, old: ast.FunctionDef, new: ast.FunctionDef) -> Iterator[Finding]:
    if not _accepts_same_calls(old.args, new.args):
        advice = (
            f"other parts of the file call {name}({ast.unparse(old.args)}); keep that working: "
            "new parameters come last and have defaults"
        )
        yield Finding("contract", new.lineno, advice)


def _accepts_same_calls(old: ast.arguments, new: ast.arguments) -> bool:
    """Return whether every call that fits `old` fits `new`, with names and order unchanged."""
    before, after = _positional(old), _positional(new)
    if after[: len(before)] != before:
        return False
    if not all(has_default for _, has_default in after[len(before) :]):
        return False
    keywords, now = _keyword_only(old), _keyword_only(new)
    if any(now.get(name) != has_default for name, has_default in keywords.items()):
        return False
    if not all(has_default for name, has_default in now.items() if name not in keywords):
        return False
    return (old.vararg is None or new.vararg is not None) and (
        old.kwarg is None or new.kwarg is not None
    )


def _positional(arguments: ast.arguments) -> list[tuple[str, bool]]:
    """Return the positional parameters: name, and whether it has a default."""
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    required = len(names) - len(arguments.defaults)
    return [(name, index >= required) for index, name in enumerate(names)]


def _keyword_only(arguments: ast.arguments) -> dict[str, bool]:
    return {
        argument.arg: default is not None
        for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)
    }
