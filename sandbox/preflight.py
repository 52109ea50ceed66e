"""Judge a candidate program by its text, before any process is started for it.

This is hygiene and feedback, not safety: it tells a proposer within milliseconds, and in words it
can act on, what is wrong with a patch. Whatever slips through meets the jail.

Only what a candidate *adds* to its parent is judged. The rules on code run over the top-level
statements that the parent does not have word for word, and over those of the parent that are
gone; an objection counts if the candidate raises it more often than the parent did. A program is
therefore always an acceptable child of itself, whatever it contains.

No text, however hostile, makes this slow or crash: size is looked at before anything is parsed,
and nesting before anything recursive runs. A run does not rely on that: it has texts read in a
process of their own, with limits (`sandbox.guarded_preflight`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache

from sandbox.regions import RegionError
from sandbox.rules.budgets import check_budgets
from sandbox.rules.contract import check_callables, check_knobs, check_table_reads
from sandbox.rules.literals import check_literals
from sandbox.rules.loops import check_loops
from sandbox.rules.names import check_names, check_undefined
from sandbox.rules.program import Finding, Program, added_statements
from sandbox.rules.structure import (
    check_definitions_only,
    check_owners,
    check_scopes,
)
from sandbox.rules.text import check_text
from sandbox.rules.writes import check_classes, check_writes
from sandbox.source_form import SourceError, Statement

__all__ = ["Violation", "preflight"]

MAX_VIOLATIONS = 20  # a proposer fixes a few at a time; a hostile text could raise thousands
MAX_QUOTE = 120  # characters of the offending line

_STATEMENT_RULES: tuple[Callable[[Statement, Program], Iterator[Finding]], ...] = (
    check_definitions_only,
    check_names,
    check_writes,
    check_classes,
    check_loops,
    check_literals,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One reason why a candidate is refused.

    `rule` is a short fixed name, `line` counts from 1 in the candidate, `text` quotes that line,
    and `message` is the whole sentence for a proposer: where, what, and what would be accepted.
    """

    rule: str
    line: int
    text: str
    message: str


def preflight(candidate: str, parent: str, scopes: frozenset[str]) -> tuple[Violation, ...]:
    """Return every reason to refuse `candidate`, in the order of its lines; none if it may run.

    Args:
        candidate: the full text of the program.
        parent: the full text of the program it was made from, which is taken to be acceptable.
        scopes: names of the regions that may differ from the parent.

    Raises:
        SourceError, RegionError: `parent` is not a program.
    """
    findings = list(check_text(candidate, parent))
    if findings:
        return _report(findings, candidate)
    base = _parent_program(parent)
    try:
        program = Program(candidate, parent)
    except SourceError as error:
        return _report([Finding("syntax", error.line, error.reason)], candidate)
    except RegionError as error:
        return _report([Finding("scope", error.line, error.reason)], candidate)
    findings = list(check_budgets(program, base))
    if findings:
        return _report(findings, candidate)
    findings = list(check_scopes(program, base, scopes))
    added, gone = added_statements(program, base), added_statements(base, program)
    findings += _more_often(
        [*_code_findings(added, program), *_file_findings(program)],
        [*_code_findings(gone, base), *_file_findings(base)],
        unchanged_lines=frozenset(base.lines),
        lines=program.lines,
    )
    findings += [*check_knobs(program, base), *check_callables(program, base, gone)]
    return _report(findings, candidate)


@lru_cache(maxsize=16)
def _parent_program(source: str) -> Program:
    return Program(source)


def _code_findings(added: Iterable[Statement], program: Program) -> Iterator[Finding]:
    for statement in added:
        for rule in _STATEMENT_RULES:
            for finding in rule(statement, program):
                yield replace(finding, line=finding.line + statement.shift)


def _file_findings(program: Program) -> Iterator[Finding]:
    yield from check_owners(program)
    yield from check_undefined(program)
    yield from check_table_reads(program)


def _more_often(
    ours: list[Finding], before: list[Finding], *, unchanged_lines: frozenset[str], lines: list[str]
) -> Iterator[Finding]:
    """Yield the findings beyond the number the parent has of each, new lines blamed first."""
    allowed = Counter((finding.rule, finding.advice) for finding in before)
    for finding in sorted(ours, key=lambda f: lines[f.line - 1] not in unchanged_lines):
        key = finding.rule, finding.advice
        if allowed[key] > 0:
            allowed[key] -= 1
        else:
            yield finding


def _report(findings: Iterable[Finding], candidate: str) -> tuple[Violation, ...]:
    lines = candidate.split("\n")
    ordered = sorted(set(findings), key=lambda f: (f.line, f.rule, f.advice))
    return tuple(_violation(finding, lines) for finding in ordered[:MAX_VIOLATIONS])


def _violation(finding: Finding, lines: list[str]) -> Violation:
    line = max(1, min(finding.line, len(lines)))
    text = lines[line - 1].strip()[:MAX_QUOTE]
    text = "".join(character if character.isprintable() else "�" for character in text)
    quoted = f" `{text}`:" if text else ""
    return Violation(
        rule=finding.rule, line=line, text=text, message=f"line {line}:{quoted} {finding.advice}"
    )
