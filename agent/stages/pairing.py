"""Train two programs on the same seeds and take the differences."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from agent.evaluations import Measured, Training
from agent.guardrails import Spent
from agent.seeds import is_first
from agent.stage import Stage
from agent.stages.bench import Bench
from db.records import Program

__all__ = ["Pairing", "PairingError"]

logger = logging.getLogger(__name__)

# An incumbent that fails on this many seeds of one race cannot serve as its reference.
REFERENCE_FAILURES = 8


class PairingError(Exception):
    """A pair could not be completed; the message begins with the category of the failure."""


class Pairing:
    """Differences of a candidate to a reference, on a list of seeds that grows on demand.

    Attributes:
        reference: what the candidate is compared with.
        seeds: the seeds of the pairs so far.
        differences: candidate minus reference in bits per byte, one per seed.
        spent: what the candidate's runs cost, one per seed.
        reference_spent: what the reference's runs cost.
    """

    def __init__(
        self, bench: Bench, candidate: Program, reference: Program, seeds: Iterator[int]
    ) -> None:
        self.reference = reference
        self.seeds: list[int] = []
        self.differences: list[float] = []
        self.spent: list[Spent] = []
        self.reference_spent: list[Spent] = []
        self._bench = bench
        self._candidate = candidate
        self._upcoming = seeds
        self._failures = 0

    async def grow(self, pairs: int, *, stage: Stage, steps: int) -> None:
        """Train on further seeds until there are `pairs` pairs.

        A seed on which the reference fails makes no pair and is passed over: a failure has no
        score, so there is no difference to take.

        Raises:
            PairingError: the candidate failed, or the reference failed too often.
            BudgetSpentError: a training run could not be paid for.
        """
        while len(self.differences) < pairs:
            seed = next(self._upcoming)
            candidate, reference = await self._pair(seed, stage, steps)
            if candidate.bpb is None:
                raise PairingError(f"{candidate.status}: {candidate.reason}")
            if reference.bpb is None:
                self._pass_over(seed, reference.reason)
                continue
            self.seeds.append(seed)
            self.differences.append(candidate.bpb - reference.bpb)
            self.spent.append(candidate.spent)
            self.reference_spent.append(reference.spent)

    async def _pair(self, seed: int, stage: Stage, steps: int) -> tuple[Measured, Measured]:
        """Train both on a seed, in an order drawn by lot; known runs are not trained again.

        A machine that warms up or fills up then favours neither.
        """
        programs = self._candidate, self.reference
        found: dict[str, Measured] = {}
        for program in programs if is_first(seed, self._candidate.id) else programs[::-1]:
            found[program.id] = await self._bench.evaluator.measure(
                Training(program=program, stage=stage, steps=steps, seed=seed)
            )
        return found[self._candidate.id], found[self.reference.id]

    def _pass_over(self, seed: int, reason: str) -> None:
        self._failures += 1
        short_id = self.reference.id[:12]
        logger.warning("reference %s failed on seed %d: %s", short_id, seed, reason)
        if self._failures > REFERENCE_FAILURES:
            raise PairingError(
                f"reference: {short_id} failed on {self._failures} seeds, so there are no pairs"
            )
