"""What a run knows: its records in memory, and the only way to add to them.

SQL is the authority. Memory is what the records say when read in order, whether they were just
added or replayed after a resume; git follows SQL and is repaired from it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

from agent.effects import effect_of
from agent.evaluations import Evaluator
from agent.foresight import Foresight
from agent.selection import Member, Population, shrunk
from agent.stage import Decided, Stage, Stopped
from agent.stages.screen import Behaviours
from agent.statistics.paired_test import Effect
from agent.tally import ACCEPTED, Tally
from db.records import Program, Proposal, Verdict
from db.store import Store

__all__ = ["Candidate", "Lineage"]

logger = logging.getLogger(__name__)

SOURCES_KEPT = 64  # more than the population holds; a source is about 25 KB


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A program under judgement: where it came from and the verdicts on it so far."""

    program: Program
    proposal: Proposal
    verdicts: list[Verdict] = field(default_factory=list)

    def has_passed(self, stage: Stage, reference_id: str | None = None) -> bool:
        """Whether it passed a stage before, against the given reference if one is named."""
        return any(
            verdict.stage == stage
            and verdict.decision == Decided.PASS
            and reference_id in {None, verdict.reference_id}
            for verdict in self.verdicts
        )


class Lineage:
    """The records of one run.

    Args:
        store: the run's database, opened for this process alone.
        settle: called with each candidate whose last verdict was just stored, to commit it to
            git. Not called while replaying.

    Attributes:
        population: who may have children.
        behaviours: which program first showed which behaviour in the screen.
        foresight: how well each stage foretells the next.
        tally: counts for display and feedback.
        next_ordinal: the first ordinal without a proposal.
    """

    def __init__(self, store: Store, settle: Callable[[Candidate], None]) -> None:
        self.population = Population()
        self.behaviours: Behaviours = {}
        self.foresight = Foresight()
        self.tally = Tally()
        self.next_ordinal = 0
        self.program = lru_cache(maxsize=SOURCES_KEPT)(store.program)
        self._store = store
        self._settle = settle
        self._owner: dict[str, str] = {}  # normalised digest: program id
        self._pending: dict[str, Candidate] = {}
        self._effects: dict[str, Effect | None] = {}  # champions, old ones included
        self._challengers: Counter[str] = Counter()  # races against each of them
        self._seed_id: str | None = None

    @property
    def seed_program(self) -> Program:
        """The program the run began with."""
        if self._seed_id is None:
            raise LookupError("the run has no seed program yet")
        return self.program(self._seed_id)

    @property
    def has_champion(self) -> bool:
        """Whether the seed program was measured yet, which makes it the first champion."""
        return bool(self.population.members)

    @property
    def champion_id(self) -> str:
        """The id of the reigning champion."""
        return self.population.champion.program_id

    @property
    def champion_effect(self) -> Effect | None:
        """The champion's effect against the seed program on fresh seeds; None if it is that."""
        return self._effects.get(self.champion_id)

    @property
    def pending(self) -> tuple[Candidate, ...]:
        """Programs without a final verdict, lowest ordinal first."""
        return tuple(sorted(self._pending.values(), key=lambda c: c.program.ordinal))

    def owner_of(self, normalised: str) -> str | None:
        """Return the id of the program with this normalised source, if there is one."""
        return self._owner.get(normalised)

    def has_reigned(self, program_id: str) -> bool:
        """Whether a program is or was champion; if so it may be a reference at any time."""
        return program_id in self._effects

    def challengers(self, champion_id: str) -> int:
        """Return how many races against a champion have ended."""
        return self._challengers[champion_id]

    def add_proposal(self, proposal: Proposal, program: Program | None = None) -> Candidate | None:
        """Store a proposal; return the candidate it led to, if any."""
        self._store.add_proposal(proposal, program)
        logger.info(
            "#%d %s: %s (%s)",
            proposal.ordinal,
            proposal.description,
            proposal.status,
            proposal.reason,
        )
        return self._take_proposal(proposal, program)

    def add_verdict(self, verdict: Verdict) -> None:
        """Store a verdict and draw its consequences."""
        self._store.add_verdict(verdict)
        logger.info(
            "#%d %s %s: %s", verdict.ordinal, verdict.stage, verdict.decision, verdict.reason
        )
        candidate = self._take_verdict(verdict)
        if verdict.decision != Decided.PASS:
            self._settle(candidate)

    def replay(self, evaluator: Evaluator) -> tuple[Candidate, ...]:
        """Read the stored records into memory, and what may be needed again into `evaluator`.

        Returns:
            The candidates with a final verdict that git does not have yet, in order.
        """
        programs = {}
        for program in self._store.programs():
            self._owner.setdefault(program.normalised, program.id)
            programs[program.id] = program.ordinal
        unsettled = {program.id for program in self._store.programs_without_commit()}
        found: list[Candidate] = []
        proposals = list(reversed(self._store.proposals()))
        for verdict in self._store.verdicts():
            while proposals and proposals[-1].ordinal <= verdict.ordinal:
                self._replay_proposal(proposals.pop())
            candidate = self._take_verdict(verdict)
            if verdict.decision != Decided.PASS and candidate.program.id in unsettled:
                found.append(candidate)
        while proposals:
            self._replay_proposal(proposals.pop())
        self._replay_evaluations(evaluator)
        return tuple(found)

    def _replay_proposal(self, proposal: Proposal) -> None:
        program = None
        if proposal.status == ACCEPTED and proposal.program_id is not None:
            program = self.program(proposal.program_id)
        self._take_proposal(proposal, program)

    def _replay_evaluations(self, evaluator: Evaluator) -> None:
        needed = self._pending.keys() | self._effects.keys()
        for evaluation in self._store.evaluations():
            if evaluation.stage == Stage.SCREEN and evaluation.bpb is not None:
                behaviour = evaluation.seed, evaluation.fingerprint, evaluation.bpb
                self.behaviours.setdefault(behaviour, evaluation.program_id)
            if evaluation.program_id in needed:
                evaluator.remember(evaluation)

    def _take_proposal(self, proposal: Proposal, program: Program | None) -> Candidate | None:
        self.next_ordinal = max(self.next_ordinal, proposal.ordinal + 1)
        self.tally.count_proposal(proposal)
        if program is None:
            return None
        if not proposal.parents:
            self._seed_id = program.id
        self._owner.setdefault(program.normalised, program.id)
        candidate = Candidate(program=program, proposal=proposal)
        self._pending[program.id] = candidate
        return candidate

    def _take_verdict(self, verdict: Verdict) -> Candidate:
        candidate = self._pending[verdict.program_id]
        candidate.verdicts.append(verdict)
        self.tally.count_verdict(verdict, candidate.proposal.description)
        self.foresight.add(verdict)
        if verdict.stage == Stage.RACE and verdict.reference_id is not None:
            self._challengers[verdict.reference_id] += 1
        if verdict.stage == Stage.BASELINE:
            self._effects[verdict.program_id] = effect_of(verdict)
        if verdict.decision == Decided.PROMOTE:
            self.population.crown(self._member(candidate.program))
        elif verdict.decision == Decided.REJECT and verdict.effect_bpb is not None:
            self._keep_if_raced(verdict)
        if verdict.decision != Decided.PASS:
            del self._pending[verdict.program_id]
        return candidate

    def _member(self, program: Program) -> Member:
        effect = self._effects.get(program.id)
        mean = shrunk(effect.mean, effect.pairs) if effect else 0.0
        return Member(mean, program.ordinal, program.id, effect.pairs if effect else 0)

    def _keep_if_raced(self, verdict: Verdict) -> None:
        """Let a program that lost at the full horizon have children, ranked by its estimate.

        Not one that was refused for its price: its children would pay it too.
        """
        if verdict.stage not in {Stage.RACE, Stage.REPLICATE} or verdict.effect_bpb is None:
            return
        if verdict.stopped == Stopped.GUARDRAIL:
            return
        reference = self._effects[verdict.reference_id or ""]
        estimate = (shrunk(reference.mean, reference.pairs) if reference else 0.0) + shrunk(
            verdict.effect_bpb, verdict.pairs
        )
        member = Member(estimate, verdict.ordinal, verdict.program_id, verdict.pairs)
        self.population.add(member)
