"""One sitting of a confirmation: begin it or go on with it, train, tell what is known."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from agent.confirmation.admission import (
    baseline_of,
    plain_facts,
    require_budget,
    require_fresh,
    require_same_facts,
    require_unchanged,
)
from agent.confirmation.campaign import Campaign, Entrants
from agent.confirmation.plan import Part, Plan, fresh_seeds
from agent.confirmation.remembered_runs import RememberedRuns
from agent.confirmation.report import Subject, as_fields
from agent.confirmation.selection_bias import races_of, shrunken_effect
from agent.effects import Effect, effect_of
from agent.guardrails import Guardrails
from agent.settings import Settings
from agent.stage import Stage
from db.confirmations import Confirmation, Confirmations
from db.records import Program
from db.store import Store
from sandbox.jobs import WorkerReady

__all__ = ["Entry", "Sitting", "draw_seeds", "sit_down"]

Seeds = Mapping[Part, tuple[int, ...]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What to confirm and how: `begun` is an earlier sitting's, to go on with."""

    program: Program
    plan: Plan
    begun: Confirmation | None
    seeds: Seeds


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """A confirmation under way: its number, what it trains, and its records."""

    number: int
    entry: Entry
    campaign: Campaign
    runs: RememberedRuns
    store: Store
    facts: Mapping[str, Any]
    guardrails: Guardrails

    def fields(self) -> dict[str, Any]:
        """Return what is known as JSON values."""
        findings = self.campaign.findings
        sealed = findings.sealed
        differences = () if sealed is None else sealed.differences
        subject = Subject(
            run_id=self.store.run().id,
            program_id=self.entry.program.id,
            number=self.number,
            search=_search_effect(self.store, self.entry.program),
            shrunken=shrunken_effect(differences, races_of(self.store)),
            facts=self.facts,
        )
        return as_fields(subject, findings, self.guardrails, self.entry.seeds)


def draw_seeds(store: Store, begun: Confirmation | None, plan: Plan, seed: int | None) -> Seeds:
    """Return the seeds of a confirmation: those it was begun with, or fresh ones.

    Raises:
        ConfirmationRefusedError: the looks are spent, or a seed was used before.
    """
    confirmations = Confirmations(store)
    if begun is not None:
        recorded = confirmations.seeds(begun.number)
        return {part: recorded[part] for part in plan.seeds_needed()}
    require_budget(confirmations)
    number = 1 + len(confirmations.all())
    drawn = (
        fresh_seeds(plan, store.run().seed, number)
        if seed is None
        else fresh_seeds(plan, seed, 0)  # the user's own: the same ones whenever it is given
    )
    require_fresh(confirmations, drawn)
    return drawn


def sit_down(
    store: Store,
    entry: Entry,
    ready: WorkerReady,
    settings: Settings,
    clock: Callable[[], datetime],
) -> Sitting:
    """Write a new confirmation down, or take up an old one, and get ready to train.

    Of the run's settings, the number of workers and the guardrails count.

    Raises:
        ConfirmationRefusedError: the workers are unlike those of the search, or of the sitting
            before.
        StoreError: the database cannot be written.
    """
    require_same_facts(store.run().facts, ready)
    confirmations, facts = Confirmations(store), plain_facts(ready)
    if entry.begun is None:
        number = 1 + len(confirmations.all())
        begun = Confirmation(
            number=number,
            program_id=entry.program.id,
            begun_at=clock(),
            plan=entry.plan.as_record(),
            facts=facts,
        )
        confirmations.begin(begun, {part.value: seeds for part, seeds in entry.seeds.items()})
        entry = replace(entry, begun=begun)
    else:
        require_unchanged(entry.begun, ready)
        number = entry.begun.number
    runs = RememberedRuns(confirmations, number, entry.program.id, clock)
    entrants = Entrants(program=entry.program.source, baseline=baseline_of(store).source)
    campaign = Campaign(entry.plan, entrants, entry.seeds, runs, settings.workers)
    return Sitting(
        number=number,
        entry=entry,
        campaign=campaign,
        runs=runs,
        store=store,
        facts=facts,
        guardrails=settings.guardrails,
    )


def _search_effect(store: Store, program: Program) -> Effect | None:
    """Return what the search said of a program against the seed program, if it did."""
    measured = [v for v in store.verdicts(program.id) if v.stage == Stage.BASELINE]
    return effect_of(measured[-1]) if measured else None
