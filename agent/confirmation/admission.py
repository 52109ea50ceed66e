"""Refuse a confirmation that could prove nothing, with the reason, before anything is trained."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from agent.confirmation.plan import LEAST_PAIRS, Part, Plan
from agent.session import DECISIVE_FACTS
from agent.summary import findings
from db.confirmations import Confirmation, Confirmations
from db.records import Program, Proposal
from db.store import Store, StoreError
from sandbox.examination import Request
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.jobs import WorkerReady
from sandbox.patches import PatchError, from_json

__all__ = [
    "SEALED_LOOKS",
    "ConfirmationRefusedError",
    "baseline_of",
    "chosen_program",
    "find_begun",
    "plain_facts",
    "require_budget",
    "require_fresh",
    "require_pairs",
    "require_preflight",
    "require_same_facts",
    "require_unchanged",
]

# The eighth look may spend .01 / 72 of the error: further ones could hardly claim anything, and a
# text that was looked at so often is no longer sealed.
SEALED_LOOKS = 8


class ConfirmationRefusedError(Exception):
    """The confirmation cannot be carried out; the message says why and what to do."""


def baseline_of(store: Store) -> Program:
    """Return what a run's wins are measured against: its tuned seed program.

    Raises:
        ConfirmationRefusedError: the run has none yet.
    """
    seed = findings(store).seed
    if seed is None:
        raise ConfirmationRefusedError("the run has no program yet: resume it first")
    return seed


def chosen_program(store: Store, name: str | None) -> Program:
    """Return the program to confirm: the one named, or the run's best.

    Args:
        store: the run's.
        name: the beginning of an id, or a number as in `#12`; None for the best.

    Raises:
        ConfirmationRefusedError: there is none such, or it is the baseline itself.
    """
    baseline = baseline_of(store)
    program = findings(store).best if name is None else _named(store, name)
    if program is None or (name is None and program.id == baseline.id):
        raise ConfirmationRefusedError(
            "the run found no improvement, so there is nothing to confirm: name another program "
            "with --program"
        )
    if program.normalised == baseline.normalised:
        raise ConfirmationRefusedError(
            f"program {program.id[:12]} is the baseline itself: there is no difference to confirm"
        )
    return program


def require_pairs(pairs: int) -> None:
    """Refuse fewer pairs than the test needs.

    Raises:
        ConfirmationRefusedError: they are fewer.
    """
    if pairs < LEAST_PAIRS:
        raise ConfirmationRefusedError(
            f"{pairs} pairs are fewer than the test of a claim needs: give --pairs {LEAST_PAIRS} "
            "or more"
        )


def require_budget(confirmations: Confirmations) -> None:
    """Refuse another look when the sealed text was looked at often enough.

    Raises:
        ConfirmationRefusedError: all looks are spent.
    """
    made = len(confirmations.all())
    if made >= SEALED_LOOKS:
        raise ConfirmationRefusedError(
            f"the sealed text is exhausted: this run has confirmed {made} times, at most "
            f"{SEALED_LOOKS} are allowed; start a new run on fresh text (--data)"
        )


def require_fresh(confirmations: Confirmations, seeds: Mapping[Part, tuple[int, ...]]) -> None:
    """Refuse seeds of which one was used before, by the search or by a confirmation.

    Raises:
        ConfirmationRefusedError: one was, or one is there twice.
    """
    drawn = [seed for values in seeds.values() for seed in values]
    again = sorted(confirmations.used_seeds().intersection(drawn))
    again += sorted({seed for seed in drawn if drawn.count(seed) > 1})
    if again:
        raise ConfirmationRefusedError(
            f"seed {again[0]} was used before, and a seed counts once: give another --seed"
        )


async def require_preflight(store: Store, program: Program, scopes: frozenset[str]) -> None:
    """Refuse a program that preflight would not let pass today.

    Its patch and those of its ancestors are examined again, each on the program it changed: that
    is how they were judged when they were proposed.

    Raises:
        ConfirmationRefusedError: one is refused now, or its record does not fit.
        PoolError: preflight cannot be run on this machine.
    """
    made_by = {p.program_id: p for p in reversed(store.proposals()) if p.status == "accepted"}
    current = program
    async with GuardedPreflight() as preflight:
        while (proposal := made_by.get(current.id)) is not None and proposal.parents:
            parent = store.program(proposal.parents[0])
            await _examine(preflight, current, parent, proposal, scopes)
            current = parent


def require_same_facts(recorded: Mapping[str, Any], ready: WorkerReady) -> None:
    """Refuse workers that score unlike those of the search.

    Raises:
        ConfirmationRefusedError: a decisive fact is missing or another one.
    """
    now = plain_facts(ready)
    for name in DECISIVE_FACTS:
        if name not in recorded:
            raise ConfirmationRefusedError(
                f"the run does not record its {name}, so nothing can be compared with it: start a "
                "new run"
            )
        if recorded[name] != now[name]:
            raise ConfirmationRefusedError(
                f"mixed settings: the run has {name} {recorded[name]!r}, the workers now have "
                f"{now[name]!r}; bring that back, or start a new run"
            )


def require_unchanged(begun: Confirmation, ready: WorkerReady) -> None:
    """Refuse to go on with a confirmation on another machine set-up than it was begun with.

    Raises:
        ConfirmationRefusedError: versions, device or anything else of decision differ.
    """
    now = plain_facts(ready)
    for name in (*DECISIVE_FACTS, "versions"):
        if begun.facts.get(name) != now[name]:
            raise ConfirmationRefusedError(
                f"mixed settings: confirmation {begun.number} was begun with {name} "
                f"{begun.facts.get(name)!r}, the workers now have {now[name]!r}; bring that back, "
                "or begin another one with --again"
            )


def plain_facts(ready: WorkerReady) -> dict[str, Any]:
    """Return what workers report as the database gives it back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(ready)))
    return plain


def find_begun(confirmations: Confirmations, program: Program, plan: Plan) -> Confirmation | None:
    """Return the last confirmation of this program by this plan, if there was one."""
    same = [
        begun
        for begun in confirmations.all()
        if begun.program_id == program.id and begun.plan == plan.as_record()
    ]
    return same[-1] if same else None


def _named(store: Store, name: str) -> Program:
    if name.startswith("#"):
        ids = {f"#{p.ordinal}": p.program_id for p in store.proposals()}
        prefix = ids.get(name)
        if prefix is None:
            raise ConfirmationRefusedError(
                f"no program {name}: see the numbers in `agent.inspect RUN tree`"
            )
        name = prefix
    try:
        return store.program(name)
    except StoreError as error:
        raise ConfirmationRefusedError(str(error)) from error


async def _examine(
    preflight: GuardedPreflight,
    program: Program,
    parent: Program,
    proposal: Proposal,
    scopes: frozenset[str],
) -> None:
    name = program.id[:12]
    try:
        request = Request(patch=from_json(proposal.patch), parent=parent.source, scopes=scopes)
    except PatchError as error:
        raise ConfirmationRefusedError(
            f"the patch of program {name} cannot be read any more ({error})"
        ) from error
    found = await preflight.examine(request)
    if found.accepted is None:
        first = found.violations[0]
        raise ConfirmationRefusedError(
            f"program {name} no longer passes preflight, line {first.line}, {first.rule}: "
            f"{first.message}"
        )
    if found.accepted.digest != program.id:
        raise ConfirmationRefusedError(
            f"the patch of program {name} does not make that program any more: the lineage is "
            "damaged"
        )
