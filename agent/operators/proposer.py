"""The proposer that needs nothing: it draws an operator and applies it to the parent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.operators.crossover import cross
from agent.operators.operator import Changes
from agent.operators.registry import OPERATORS, PRIOR_WEIGHTS
from agent.operators.tables import Tables
from agent.proposals import Brief, NothingToPropose, ParentView, ProposedPatch
from sandbox.knobs import Value, set_knobs
from sandbox.patches import make_patch
from sandbox.source_form import normalised_digest

__all__ = ["OperatorsProposer"]

# Draws before giving up. Every operator is drawn at most once in vain, so this bounds crossovers.
MAX_DRAWS = 100
CROSSOVER_SHARE = 0.5  # of the briefs that offer a second program


class OperatorsProposer:
    """Proposes bounded mutations of a program's knobs, and crossovers of two programs.

    Args:
        weights: how often each operator is drawn, relative to the others; operators that are not
            named have weight 1. Among the operators that would change something in the parent.
            `PRIOR_WEIGHTS` unless given.

    Raises:
        ValueError: a weight is negative, or given to no operator.
    """

    name = "operators"

    def __init__(self, weights: Mapping[str, float] | None = None) -> None:
        given = dict(PRIOR_WEIGHTS if weights is None else weights)
        unknown = sorted(given.keys() - OPERATORS.keys())
        if unknown:
            raise ValueError(f"no operator is called {unknown[0]!r}; expected {sorted(OPERATORS)}")
        if any(weight < 0 for weight in given.values()):
            raise ValueError(f"expected weights of 0 or more, found {given}")
        self._weights = {name: given.get(name, 1.0) for name in OPERATORS}

    async def propose(self, brief: Brief) -> ProposedPatch:
        """Draw until a program comes out that this run has not tried.

        Raises:
            NothingToPropose: no operator is live, or all draws led to known programs.
        """
        source = brief.parent.source
        tables = Tables.read(source, brief.scopes)
        candidates = [name for name, weight in self._weights.items() if weight > 0]
        is_exhausted = False
        for _ in range(MAX_DRAWS):
            second = brief.second if self._is_crossover(brief, candidates) else None
            if second is not None:
                name, options = "crossover", _cross(second, brief, tables)
            elif candidates:
                name, options = self._mutate(brief, tables, candidates)
            else:
                break
            is_exhausted = is_exhausted or bool(options)
            for changes in options:
                child = set_knobs(source, changes)
                if child == source or brief.is_known(normalised_digest(child)):
                    continue
                return ProposedPatch(
                    patch=make_patch(source, child),
                    description=_describe(name, tables, changes),
                    proposer=self.name,
                    parents=(brief.parent.program_id, *([second.program_id] if second else [])),
                )
        if is_exhausted:
            raise NothingToPropose("all draws led to programs that were tried before")
        raise NothingToPropose("no operator would change anything within these scopes")

    def _is_crossover(self, brief: Brief, candidates: list[str]) -> bool:
        if brief.second is None:
            return False
        return not candidates or brief.rng.random() < CROSSOVER_SHARE

    def _mutate(
        self, brief: Brief, tables: Tables, candidates: list[str]
    ) -> tuple[str, Sequence[Changes]]:
        """Draw an operator and return its changes in random order.

        It leaves `candidates`: either one of the changes is new, or the operator is not live or
        has nothing left. Taking such operators out as they are met gives the others the same
        chances as looking at all of them first.
        """
        [name] = brief.rng.choices(candidates, [self._weights[name] for name in candidates])
        candidates.remove(name)
        return name, OPERATORS[name].changes(tables, brief.rng)


def _cross(second: ParentView, brief: Brief, tables: Tables) -> Sequence[Changes]:
    changes = cross(tables, Tables.read(second.source, brief.scopes), brief.rng)
    return [changes] if changes else []


def _describe(name: str, tables: Tables, changes: Changes) -> str:
    """Say what changes, as in "adjust_ns_steps: POLICY.ns_steps 5 -> 4"."""
    parts = [
        f"{knob} {_spelled(tables.value(knob))} -> {_spelled(value)}"
        for knob, value in changes.items()
        if tables.value(knob) != value
    ]
    return f"{name}: {', '.join(parts)}"


def _spelled(value: Value | None) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
