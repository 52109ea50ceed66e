"""The search itself: select, propose, check, judge, record, until the budget is spent.

Every choice for candidate number i comes from a generator seeded with the run's seed and i, and
everything a choice rests on is in the store before it is made. With one worker and a budget in
training runs the lineage is therefore a function of seed and settings alone, however often the
process is killed and resumed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from enum import StrEnum

from agent.budget import BudgetSpentError, Meter
from agent.evaluations import Evaluator, SandboxError
from agent.intake import Intake
from agent.judge import Judge
from agent.lineage import Candidate, Lineage
from agent.stages.baseline import SeedProgramError
from db.store import RecordError, StoreError
from sandbox.executor import PoolError

__all__ = ["Controller", "Ending", "EndingKind"]

# A proposer that has nothing new this many times in a row is taken to be at its end.
BARREN_LIMIT = 500


class EndingKind(StrEnum):
    """Why a session of a run ended."""

    SPENT = "budget spent"
    STOPPED = "stopped"
    EXHAUSTED = "nothing left to propose"
    PAUSED = "paused"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a session ended; every kind but `refused` can be resumed."""

    kind: EndingKind
    message: str


class _StopRequestedError(Exception):
    """Somebody asked the run to stop."""


class Controller:
    """Runs the candidates of a search through a number of slots.

    Args:
        lineage: the run's records, already replayed; holds at least the seed program.
        judge: takes candidates to their verdicts.
        evaluator: is told which programs are done with.
        intake: makes new candidates.
        meter: the budget.
    """

    def __init__(
        self, lineage: Lineage, judge: Judge, evaluator: Evaluator, intake: Intake, meter: Meter
    ) -> None:
        self._lineage = lineage
        self._judge = judge
        self._evaluator = evaluator
        self._intake = intake
        self._meter = meter
        self._stop = asyncio.Event()
        self._waiting: deque[Candidate] = deque()
        self._next_ordinal = lineage.next_ordinal

    def stop(self) -> None:
        """Ask the search to end now; training under way is abandoned and not charged."""
        self._stop.set()

    async def run(self, slots: int) -> Ending:
        """Search until the budget is spent, somebody stops it or workers cannot be had.

        Args:
            slots: how many candidates are worked on at the same time.

        Returns:
            How it ended. Defects are not endings: they are raised.
        """
        endings: list[Ending] = []
        try:
            async with asyncio.TaskGroup() as group:
                watcher = group.create_task(self._watch())
                endings.append(await self._search(slots))
                watcher.cancel()
        except* _StopRequestedError:
            endings.append(Ending(kind=EndingKind.STOPPED, message="stopped on request"))
        except* SeedProgramError as errors:
            endings.append(Ending(kind=EndingKind.REFUSED, message=_first_message(errors)))
        except* RecordError:  # a store error that is nobody's disk: a defect
            raise
        except* (PoolError, SandboxError, StoreError) as errors:
            endings.append(Ending(kind=EndingKind.PAUSED, message=_first_message(errors)))
        return endings[-1]

    async def _watch(self) -> None:
        # Without a timeout: it lasts as long as the search and is cancelled with it.
        await self._stop.wait()
        raise _StopRequestedError

    async def _search(self, slots: int) -> Ending:
        self._waiting.extend(self._lineage.pending)
        if self._waiting and self._waiting[0].program.ordinal == 0:
            try:
                await self._judge.judge_seed_program(self._waiting.popleft())
            except BudgetSpentError:
                return self._ending()
        async with asyncio.TaskGroup() as group:
            for _ in range(slots):
                group.create_task(self._slot())
        return self._ending()

    async def _slot(self) -> None:
        try:
            while (candidate := await self._next_candidate()) is not None:
                await self._judge.judge(candidate)
                if not self._lineage.has_reigned(candidate.program.id):
                    self._evaluator.forget(candidate.program.id)
        except BudgetSpentError:
            return

    async def _next_candidate(self) -> Candidate | None:
        """Return an interrupted candidate, a new one, or None when no more are to be tried."""
        if self._waiting:
            return self._waiting.popleft()
        while not self._meter.is_spent and self._lineage.tally.barren < BARREN_LIMIT:
            await asyncio.sleep(0)  # a proposer that never waits must not keep others waiting
            ordinal = self._next_ordinal
            self._next_ordinal += 1
            candidate = await self._intake.candidate(ordinal)
            if candidate is not None:
                return candidate
        return None

    def _ending(self) -> Ending:
        if self._lineage.tally.barren >= BARREN_LIMIT:
            message = f"the last {BARREN_LIMIT} proposals brought no new program"
            return Ending(kind=EndingKind.EXHAUSTED, message=message)
        return Ending(kind=EndingKind.SPENT, message="the budget is spent")


def _first_message(errors: BaseExceptionGroup[BaseException]) -> str:
    first = errors.exceptions[0]
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return str(first)
