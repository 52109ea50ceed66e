"""Put one plant through the whole pipeline: a run of its own, with one candidate.

Proposal, patch, preflight, smoke test, screen, race, gates and replication are those of a search,
and so are the database and the git repository that it keeps. A run of its own has seeds of its
own, which makes trials independent: candidates of one run share their champion's luck.

What was promoted is confirmed as a claim would be: on fresh seeds, their number fixed in advance,
with the error that the first claim of a run may spend. The text it is validated on is the
search's, since sealed text is not to be used up by a calibration.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from agent.calibration.claims import CONFIRMATION_PAIRS
from agent.calibration.lone_errors import lone_errors
from agent.calibration.plants import Plant
from agent.controller import EndingKind
from agent.evaluations import EvaluatorPool, SandboxError
from agent.proposals import Brief, NothingToPropose, ProposedPatch
from agent.seeds import pair_seeds
from agent.session import SessionParts, create_run, open_session
from agent.settings import Settings
from agent.stage import Decided, Stage
from agent.statistics.multiplicity import claim
from db.records import Verdict
from db.store import Store
from sandbox.jobs import Job, Limits, Status
from sandbox.patches import make_patch

__all__ = ["Trial", "TrialError", "differences_of", "put_through"]

ENOUGH_RUNS = 10_000  # no candidate takes so many
CLAIM_PURPOSE = "calibrate-claim"
LIMITS = Limits(cpu_s=3600.0, wall_s=36_000.0)


class TrialError(Exception):
    """A plant could not be put through the pipeline, and no candidate is to blame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """What the pipeline made of one plant.

    Attributes:
        plant: its name.
        number: which trial of its plant, from 0.
        ended_at: the stage that had the last word; `intake` where it was not even trained.
        reason: of the last word.
        promoted: whether the candidate became champion.
        race_pairs: how many pairs the race took, 0 without one.
        race_effect_bpb: the difference the race reported.
        runs: training runs that all of it took.
        claimed: whether a promoted candidate was confirmed; None if it was not promoted.
    """

    plant: str
    number: int
    ended_at: str
    reason: str
    promoted: bool
    race_pairs: int
    race_effect_bpb: float | None
    runs: int
    claimed: bool | None


class _Planter:
    """A proposer with one proposal; asked again, it stops the search."""

    name = "planter"

    def __init__(self, candidate: str) -> None:
        self._candidate = candidate
        self._is_done = False
        self.stop: Callable[[], None] = lambda: None

    async def propose(self, brief: Brief) -> ProposedPatch:
        """Answer the first brief with the candidate.

        Raises:
            NothingToPropose: it was proposed already.
        """
        if self._is_done:
            self.stop()
            raise NothingToPropose("a calibration has one candidate")
        self._is_done = True
        return ProposedPatch(
            patch=make_patch(brief.parent.source, self._candidate),
            description="planted",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


async def put_through(
    pool: EvaluatorPool, plant: Plant, number: int, *, settings: Settings, folder: Path
) -> Trial:
    """Judge one plant in a run of its own.

    Args:
        pool: the workers.
        plant: what is judged.
        number: which trial of its plant this is.
        settings: of the run; its seed must be another one for every trial.
        folder: where the run is kept; it must be empty.

    Raises:
        TrialError: the run did not come to a verdict.
        SandboxError: the sandbox failed while a promotion was confirmed.
        PoolError: no worker can be had any more.
    """
    settings = settings.model_copy(update={"budget_evals": ENOUGH_RUNS, "budget_hours": None})
    planter = _Planter(plant.candidate)
    parts = SessionParts(pool=pool, proposer=planter, seed_source=plant.incumbent, clock=_now)
    with create_run(folder, settings, pool.ready, _now) as store:
        with open_session(store, folder, settings, parts) as session:
            planter.stop = session.controller.stop
            ending = await session.search(1)
        if ending.kind is not EndingKind.STOPPED:
            raise TrialError(f"{plant.name}: the run ended before its candidate: {ending.message}")
        trial = _read(store, plant.name, number)
    if not trial.promoted:
        return trial
    seeds = list(itertools.islice(pair_seeds(settings.seed, CLAIM_PURPOSE), CONFIRMATION_PAIRS))
    differences = await differences_of(pool, plant, seeds)
    return _claimed(trial, differences)


async def differences_of(
    pool: EvaluatorPool, plant: Plant, seeds: Sequence[int]
) -> tuple[float, ...]:
    """Train candidate and incumbent on every seed and return candidate minus incumbent.

    Raises:
        TrialError: one of them failed, so that there is no difference.
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """

    async def score(source: str, seed: int) -> float:
        job = Job(source=source, seed=seed, steps=pool.ready.steps, limits=LIMITS)
        outcome = await pool.run(job)
        if outcome.status is Status.SANDBOX_ERROR:
            raise SandboxError(outcome.reason)
        if outcome.bpb is None:
            raise TrialError(f"{plant.name} failed on seed {seed}, {outcome.status}")
        return outcome.bpb

    with lone_errors():
        async with asyncio.TaskGroup() as group:
            tasks = [
                [
                    group.create_task(score(source, seed))
                    for source in (plant.candidate, plant.incumbent)
                ]
                for seed in seeds
            ]
    return tuple(ours.result() - theirs.result() for ours, theirs in tasks)


def _claimed(trial: Trial, differences: Sequence[float]) -> Trial:
    runs = trial.runs + 2 * len(differences)
    return replace(trial, runs=runs, claimed=claim(differences, number=1).holds)


def _read(store: Store, name: str, number: int) -> Trial:
    """Find out what became of proposal number 1."""
    proposal = next(one for one in store.proposals() if one.ordinal == 1)
    verdicts: tuple[Verdict, ...] = ()
    if proposal.status == "accepted" and proposal.program_id is not None:
        verdicts = store.verdicts(proposal.program_id)
    race = next((one for one in verdicts if one.stage == Stage.RACE), None)
    last = verdicts[-1] if verdicts else None
    return Trial(
        plant=name,
        number=number,
        ended_at=last.stage if last else "intake",
        reason=last.reason if last else proposal.reason,
        promoted=any(one.decision == Decided.PROMOTE for one in verdicts),
        race_pairs=race.pairs if race else 0,
        race_effect_bpb=race.effect_bpb if race else None,
        runs=store.counts()["evaluations"],
        claimed=None,
    )


def _now() -> datetime:
    return datetime.now(UTC)
