"""Rules on how much a patch may add to its parent: syntax, nesting, numbers."""

from __future__ import annotations

from collections.abc import Iterator

from sandbox.rules.program import Finding, Program

__all__ = ["MAX_ADDED_NODES", "MAX_ADDED_NUMBERS", "MAX_DEPTH", "check_budgets"]

# The shipped file has about 5,700 nodes, a depth of 14 and 240 numbers other than 0 and 1, most
# of them in the table of bounds. Numbers are counted because weights can be smuggled in them.
MAX_ADDED_NODES = 3000
MAX_DEPTH = 40
MAX_ADDED_NUMBERS = 64


def check_budgets(candidate: Program, parent: Program) -> Iterator[Finding]:
    """Yield a finding for each budget that is overdrawn."""
    added_nodes = _total_nodes(candidate) - _total_nodes(parent)
    if added_nodes > MAX_ADDED_NODES:
        advice = f"the patch adds {added_nodes} syntax nodes, at most {MAX_ADDED_NODES}; be briefer"
        yield Finding("budget", 1, advice)
    added_numbers = _total_numbers(candidate) - _total_numbers(parent)
    if added_numbers > MAX_ADDED_NUMBERS:
        advice = (
            f"the patch adds {added_numbers} numbers, at most {MAX_ADDED_NUMBERS}; "
            "compute them or name them once"
        )
        yield Finding("budget", 1, advice)
    limit = max([MAX_DEPTH, *(part.facts.depth for part in parent.parts)])
    for statement, _, facts in candidate.parts:
        if facts.depth > limit:
            advice = f"nested {facts.depth} levels deep, at most {limit}; split it into functions"
            yield Finding("budget", statement.first_line, advice)


def _total_nodes(program: Program) -> int:
    return sum(part.facts.nodes for part in program.parts)


def _total_numbers(program: Program) -> int:
    return sum(part.facts.numbers for part in program.parts)
