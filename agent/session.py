"""Open a run's folder and put the parts of a search together, for a new run or an old one."""

from __future__ import annotations

import dataclasses
import gc
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.archive import Archive
from agent.budget import Budget, Clock, Meter
from agent.controller import Controller, Ending, EndingKind
from agent.evaluations import Evaluator, EvaluatorPool
from agent.intake import Intake, plant
from agent.judge import Judge
from agent.lineage import Lineage
from agent.proposals import Proposer
from agent.settings import Settings
from agent.stages.bench import Bench
from db.history import History
from db.records import Event, Run
from db.store import RecordError, Store, StoreError
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.jobs import WorkerReady

__all__ = [
    "RunMismatchError",
    "Session",
    "SessionParts",
    "create_run",
    "open_session",
    "rare_garbage_collections",
]

logger = logging.getLogger(__name__)

SECONDS_PER_HOUR = 3600.0

# Scores made under different values of these cannot be compared with each other.
DECISIVE_FACTS = (
    "profile",
    "steps",
    "tokens_per_step",
    "parameters",
    "corpus_digest",
    "validation_bytes",
    "compile",
    "device",
)


class RunMismatchError(Exception):
    """The workers started now would score differently from those the run began with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sitting of a run: its records, its search and what it works with."""

    run: Run
    store: Store
    history: History
    lineage: Lineage
    evaluator: Evaluator
    meter: Meter
    controller: Controller
    preflight: GuardedPreflight
    clock: Clock

    async def search(self, slots: int) -> Ending:
        """Search until the session ends, end the preflight process, and note how it ended.

        A disk too full for that note pauses the run like one too full for a result.
        """
        try:
            async with self.preflight:
                ending = await self.controller.run(slots)
        except Exception:
            # The one place that sees every defect; it says where the search was, and lets it pass.
            logger.exception("the search stopped at number %d", self.lineage.next_ordinal - 1)
            raise
        detail = {"kind": ending.kind.value, "message": ending.message}
        try:
            self.store.touch_session(self.clock())
            self.store.add_event(Event(at=self.clock(), kind="ended", detail=detail))
        except RecordError:  # nobody's disk: a defect
            raise
        except StoreError as error:
            if ending.kind not in {EndingKind.PAUSED, EndingKind.REFUSED}:
                return Ending(kind=EndingKind.PAUSED, message=str(error))
        return ending


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionParts:
    """What a search works with that does not come from its folder."""

    pool: EvaluatorPool
    proposer: Proposer
    seed_source: str
    clock: Clock


def create_run(folder: Path, settings: Settings, facts: WorkerReady, clock: Clock) -> Store:
    """Start the database of a new run in its folder.

    Raises:
        StoreError: the folder cannot be used.
    """
    run = Run(
        id=folder.name,
        created_at=clock(),
        seed=settings.seed,
        settings=settings.model_dump(mode="json"),
        facts=_plain(facts),
    )
    return Store.create(folder, run)


@contextmanager
def rare_garbage_collections() -> Iterator[None]:
    """Let Python look for reference cycles much less often.

    Syntax trees of candidates come and go by the hundred thousand nodes, none of them cyclic; at
    the default thresholds the collector took a quarter of the controller's time, in pauses of a
    quarter of a second.
    """
    before = gc.get_threshold()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)


@contextmanager
def open_session(
    store: Store, folder: Path, settings: Settings, parts: SessionParts
) -> Iterator[Session]:
    """Put a search together around an open store, with everything it already holds.

    Args:
        store: the run's database; stays open.
        folder: where it lies.
        settings: of this sitting; a budget in them counts from now.
        parts: what the search works with.

    Raises:
        RunMismatchError: the pool's workers are not like those the run began with.
        StoreError: the folder cannot be used.
    """
    run = store.run()
    _require_same(run.facts, _plain(parts.pool.ready))
    history = History.open(folder)
    if history.is_empty:
        store.forget_commits()  # somebody removed the repository: the replay makes it again
    try:
        yield _assemble(store, history, folder, settings, parts)
    finally:
        history.close()


def _assemble(
    store: Store, history: History, folder: Path, settings: Settings, parts: SessionParts
) -> Session:
    run, clock = store.run(), parts.clock
    meter = _meter(store, settings, clock)
    evaluator = Evaluator(parts.pool, store, meter, clock=clock)
    archive = Archive(store, history, folder)
    lineage = Lineage(store, archive.settle)
    for candidate in lineage.replay(evaluator):
        archive.settle(candidate)
    if lineage.next_ordinal == 0:
        plant(lineage, parts.seed_source, clock)
    if lineage.has_champion:
        archive.show_best(lineage.program(lineage.champion_id))
    bench = Bench(
        run_seed=run.seed,
        steps=parts.pool.ready.steps,
        seed_program=lineage.seed_program,
        evaluator=evaluator,
        clock=clock,
        design=settings.design,
        guardrails=settings.guardrails,
        sample_share=settings.sample_share,
    )
    preflight = GuardedPreflight()
    intake = Intake(
        lineage,
        parts.proposer,
        preflight,
        scopes=settings.scopes,
        run_seed=run.seed,
        clock=clock,
    )
    controller = Controller(lineage, Judge(bench, lineage), evaluator, intake, meter)
    return Session(
        run=run,
        store=store,
        history=history,
        lineage=lineage,
        evaluator=evaluator,
        meter=meter,
        controller=controller,
        preflight=preflight,
        clock=clock,
    )


def _meter(store: Store, settings: Settings, clock: Clock) -> Meter:
    """Begin a session in the store, on a new budget or on what is left of the recorded one."""
    evaluations, elapsed_s = store.counts()["evaluations"], store.elapsed_s()
    budgets = [event.detail for event in store.events() if "budget_evaluations" in event.detail]
    runs, hours = settings.budget_evals, settings.budget_hours
    if runs is not None or hours is not None or not budgets:
        budget = Budget(
            evaluations=None if runs is None else evaluations + runs,
            elapsed_s=None if hours is None else elapsed_s + hours * SECONDS_PER_HOUR,
        )
    else:
        budget = Budget(
            evaluations=budgets[-1]["budget_evaluations"],
            elapsed_s=budgets[-1]["budget_elapsed_s"],
        )
    now = clock()
    store.begin_session(now)
    detail = {
        "budget_evaluations": budget.evaluations,
        "budget_elapsed_s": budget.elapsed_s,
        "evaluations": evaluations,
    }
    store.add_event(Event(at=now, kind="resumed" if budgets else "started", detail=detail))
    return Meter(budget, clock=clock, evaluations=evaluations, elapsed_s=elapsed_s)


def _plain(facts: WorkerReady) -> dict[str, Any]:
    """Return the facts as the database gives them back: lists for tuples."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(facts)))
    return plain


def _require_same(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    for name in DECISIVE_FACTS:
        if recorded.get(name) != now.get(name):
            raise RunMismatchError(
                f"this run began with {name} {recorded.get(name)!r}, the workers now have "
                f"{now.get(name)!r}: bring that back, or start a new run"
            )
    if recorded.get("versions") != now.get("versions"):
        logger.warning(
            "library versions changed from %s to %s: scores may differ in the last digits",
            recorded.get("versions"),
            now.get("versions"),
        )
