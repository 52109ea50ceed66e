"""Take a program through the stages, in order, until one of them is final."""

from __future__ import annotations

import asyncio

from agent.lineage import Candidate, Lineage
from agent.seeds import is_drawn
from agent.stage import Decided, Stage
from agent.stages.baseline import crown_seed_program
from agent.stages.bench import Bench
from agent.stages.gating import pass_gates
from agent.stages.quarantine import quarantine, suspicion
from agent.stages.race import race, season_of
from agent.stages.replicate import replicate
from agent.stages.screen import screen
from agent.stages.smoke import smoke
from db.records import Verdict

__all__ = ["Judge"]


class Judge:
    """Judges candidates; each verdict is stored before it has any effect.

    Stages that a candidate passed in an earlier session are not taken again, and its training
    runs are remembered, so judging can be interrupted anywhere and taken up later.
    """

    def __init__(self, bench: Bench, lineage: Lineage) -> None:
        self._bench = bench
        self._lineage = lineage
        # One promotion at a time: fresh seeds are fresh once.
        self._promotion = asyncio.Lock()

    async def judge_seed_program(self, candidate: Candidate) -> None:
        """Measure the seed program, which becomes the first champion.

        Raises:
            SeedProgramError: it does not train.
            BudgetSpentError: the budget does not even reach this far.
        """
        smoked, promotion = await crown_seed_program(self._bench)
        if not candidate.has_passed(Stage.SMOKE):
            self._lineage.add_verdict(smoked)
        self._lineage.add_verdict(promotion)

    async def judge(self, candidate: Candidate) -> None:
        """Bring a candidate to its final verdict.

        Raises:
            BudgetSpentError: a training run could not be paid for; the candidate stays pending.
        """
        if not await self._is_fit(candidate) or not await self._is_plausible(candidate):
            return
        while True:
            champion_id = self._lineage.champion_id
            if not await self._beats(candidate, champion_id):
                return
            if not await self._is_plausible(candidate) or not await self._is_sound(candidate):
                return
            async with self._promotion:
                # Whoever was promoted since the race began has to be beaten as well.
                if self._lineage.champion_id == champion_id:
                    await self._replicate(candidate)
                    return

    async def _is_fit(self, candidate: Candidate) -> bool:
        """Take the smoke test and the screen; True if both are passed."""
        if not candidate.has_passed(Stage.SMOKE):
            champion = self._lineage.program(self._lineage.champion_id)
            if not self._add(await smoke(self._bench, candidate.program, champion)):
                return False
        return candidate.has_passed(Stage.SCREEN) or await self._is_near(candidate)

    async def _is_near(self, candidate: Candidate) -> bool:
        """Take the screen, which may reject for a score only what the lot does not spare."""
        bench, lineage, program = self._bench, self._lineage, candidate.program
        champion = lineage.program(lineage.champion_id)
        is_spared = is_drawn(bench.run_seed, program.id, share=bench.sample_share)
        may_prune = not is_spared and lineage.foresight.may_prune(Stage.SCREEN)
        verdict = await screen(bench, program, champion, lineage.behaviours, may_prune=may_prune)
        return self._add(verdict)

    async def _is_plausible(self, candidate: Candidate) -> bool:
        """Put a candidate with too good a score into quarantine; True if it comes out of it."""
        suspect = suspicion(candidate.verdicts)
        if suspect is None or suspect.reference_id is None:
            return True
        if not candidate.has_passed(Stage.QUARANTINE):
            reference = self._lineage.program(suspect.reference_id)
            if not self._add(await quarantine(self._bench, candidate.program, reference, suspect)):
                return False
        return await self._is_sound(candidate)

    async def _is_sound(self, candidate: Candidate) -> bool:
        """Take the candidate through the gates, once; True if it passes all of them."""
        if candidate.has_passed(Stage.GATES):
            return True
        champion = self._lineage.program(self._lineage.champion_id)
        parent = self._lineage.program(candidate.proposal.parents[0])
        return self._add(await pass_gates(self._bench, candidate.program, champion, parent))

    async def _beats(self, candidate: Candidate, champion_id: str) -> bool:
        """Race against a champion; True if the candidate wins."""
        if candidate.has_passed(Stage.RACE, champion_id):
            return True  # in an earlier session
        champion = self._lineage.program(champion_id)
        season = season_of(self._lineage.challengers(champion_id))
        return self._add(await race(self._bench, candidate.program, champion, season=season))

    async def _replicate(self, candidate: Candidate) -> None:
        incumbent = self._lineage.program(self._lineage.champion_id)
        replication = await replicate(self._bench, candidate.program, incumbent)
        if replication.against_baseline and not candidate.has_passed(Stage.BASELINE):
            self._lineage.add_verdict(replication.against_baseline)
        self._lineage.add_verdict(replication.against_incumbent)

    def _add(self, verdict: Verdict) -> bool:
        self._lineage.add_verdict(verdict)
        return verdict.decision == Decided.PASS
