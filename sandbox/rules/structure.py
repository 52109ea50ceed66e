"""Rules on where a program may differ from its parent."""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sandbox.regions import outside, region_at, text_of
from sandbox.rules.program import Finding, Program
from sandbox.source_form import Statement

__all__ = ["check_definitions_only", "check_owners", "check_scopes"]

_QUOTE = 100  # characters of a line

_DEFINITIONS = (
    ast.FunctionDef,
    ast.ClassDef,
    ast.Assign,
    ast.AnnAssign,
    ast.Import,
    ast.ImportFrom,
    ast.Pass,
)


def check_scopes(candidate: Program, parent: Program, scopes: frozenset[str]) -> Iterator[Finding]:
    """Yield a finding for each stretch outside the scopes that is not the parent's to the byte."""
    allowed = ", ".join(sorted(scopes))
    names = [region.name for region in parent.regions]
    if [region.name for region in candidate.regions] != names:
        advice = f"the regions must stay {', '.join(names) or 'none'}, in this order; "
        advice += "leave all EVOLVE-BLOCK lines as they are"
        yield Finding("scope", _first_marker_changed(candidate, names), advice)
        return
    starts = [1, *(region.last_line + 1 for region in candidate.regions)]
    locked = zip(starts, outside(candidate.source), outside(parent.source), strict=True)
    for start, new, old in locked:
        if new != old:
            line = start + _first_difference(new, old)
            advice = (
                f"this is outside the regions that may change ({allowed}); {_restore(new, old)}"
            )
            yield Finding("scope", line, advice)
    for region, before in zip(candidate.regions, parent.regions, strict=True):
        new, old = text_of(candidate.source, region), text_of(parent.source, before)
        if region.name not in scopes and new != old:
            advice = (
                f"region {region.name} may not change in this run, only {allowed}; "
                f"{_restore(new, old)}"
            )
            yield Finding("scope", region.first_line + _first_difference(new, old), advice)


def check_owners(program: Program) -> Iterator[Finding]:
    """Yield a finding where a name of the module is defined in more than one part of the file."""
    owner_of: dict[str, str | None] = {}
    for statement, owner, facts in program.parts:
        for name in sorted(facts.defines):
            if facts.imports.get(name, "") == program.imports.get(name):
                continue  # importing the same thing again changes nothing
            first = owner_of.setdefault(name, owner)
            if first != owner:
                place = f"region {first}" if first else "the locked part of the file"
                advice = f"{name} is already defined in {place}; choose another name for this one"
                yield Finding("redefinition", statement.first_line, advice)


def check_definitions_only(statement: Statement, program: Program) -> Iterator[Finding]:
    """Yield a finding where a statement of a region does something when the file is imported."""
    if region_at(program.regions, statement.first_line) is None:
        return
    for node in statement.nodes:
        is_string = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if not isinstance(node, _DEFINITIONS) and not is_string:
            advice = (
                "at the top level of a region only functions, classes, constants and imports may "
                "stand; put this into a function that is called"
            )
            yield Finding("top level", node.lineno, advice)


def _first_marker_changed(candidate: Program, names: list[str]) -> int:
    """Return the line of the first region that is not where it should be, or of the last one."""
    for index, region in enumerate(candidate.regions):
        if index >= len(names) or region.name != names[index]:
            return region.first_line - 1
    return candidate.regions[-1].last_line + 1 if candidate.regions else 1


def _restore(new: str, old: str) -> str:
    """Say what to do about the first line in which a text differs from what it has to be."""
    index = _first_difference(new, old)
    before = old.split("\n")
    if index >= len(before) or not before[index].strip():
        return "leave it as it was"
    return f"it was `{before[index].strip()[:_QUOTE]}`, leave it so"


def _first_difference(new: str, old: str) -> int:
    """Return the index of the first line in which two texts differ."""
    new_lines, old_lines = new.split("\n"), old.split("\n")
    for index, (ours, theirs) in enumerate(zip(new_lines, old_lines, strict=False)):
        if ours != theirs:
            return index
    return min(len(new_lines), len(old_lines)) - 1
