"""Rules on how much a program may hold: syntax, nesting, and constants.

Constants are counted because weights can be smuggled in them, a few with every generation. So
there are two budgets: what one patch may add, and what the editable regions may hold in all.
"""

from __future__ import annotations

from collections.abc import Iterator

from sandbox.rules.program import Constants, Finding, Program, added_statements

__all__ = ["MAX_ADDED_NODES", "MAX_ADDED_NUMBERS", "MAX_CONSTANTS", "MAX_DEPTH", "check_budgets"]

# The shipped file has about 5,700 nodes and a depth of 14.
MAX_ADDED_NODES = 3000
MAX_DEPTH = 40
MAX_ADDED_NUMBERS = 64

# The regions of the shipped file hold 89 numbers of 308 characters, and 438 characters of strings.
# Beyond that a lineage may write 256 numbers, 2 kB of digits and 3 kB of strings.
MAX_CONSTANTS = Constants(numbers=345, number_characters=2400, string_characters=3500)


def check_budgets(candidate: Program, parent: Program) -> Iterator[Finding]:
    """Yield a finding for each budget that is overdrawn."""
    line = _largest_addition(candidate, parent)
    added_nodes = _total_nodes(candidate) - _total_nodes(parent)
    if added_nodes > MAX_ADDED_NODES:
        advice = (
            f"the patch adds {added_nodes} nodes to the syntax tree, at most {MAX_ADDED_NODES}; "
            "change less at a time"
        )
        yield Finding("budget", line, advice)
    limit = max([MAX_DEPTH, *(part.facts.depth for part in parent.parts)])
    for statement, _, facts in candidate.parts:
        if facts.depth > limit:
            advice = (
                f"this statement is nested {facts.depth} levels deep, at most {limit}; "
                "split it into functions"
            )
            yield Finding("budget", statement.first_line, advice)
    for advice in _overdrawn(_constants_of(candidate), _constants_of(parent)):
        yield Finding("budget", line, advice)


def _overdrawn(ours: Constants, before: Constants) -> Iterator[str]:
    added = ours.numbers - before.numbers
    if added > MAX_ADDED_NUMBERS:
        yield (
            f"the patch adds {added} numbers, at most {MAX_ADDED_NUMBERS}; "
            "compute them, or name one and use it again"
        )
    for what, now, limit, then in (
        ("numbers", ours.numbers, MAX_CONSTANTS.numbers, before.numbers),
        (
            "characters of numbers",
            ours.number_characters,
            MAX_CONSTANTS.number_characters,
            before.number_characters,
        ),
        (
            "characters of strings",
            ours.string_characters,
            MAX_CONSTANTS.string_characters,
            before.string_characters,
        ),
    ):
        if now > max(limit, then):
            yield (
                f"the editable regions would hold {now} {what}, at most {limit} in any program; "
                "remove some that earlier patches left, or compute them"
            )


def _largest_addition(candidate: Program, parent: Program) -> int:
    """Return the first line of the largest statement that the parent does not have."""
    added = added_statements(candidate, parent)
    sizes = {part.statement.first_line: part.facts.nodes for part in candidate.parts}
    lines = [statement.first_line for statement in added]
    return max(lines, key=lambda line: sizes[line], default=1)


def _total_nodes(program: Program) -> int:
    return sum(part.facts.nodes for part in program.parts)


def _constants_of(program: Program) -> Constants:
    """Add up what the editable regions write out; the rest of the file cannot change."""
    editable = (part.facts.constants for part in program.parts if part.owner is not None)
    return sum(editable, start=Constants(0, 0, 0))
