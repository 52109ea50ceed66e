"""Train two programs on the same seeds and take the differences."""

from __future__ import annotations

import logging
from collections.abc import Iterator

from agent.evaluations import Training
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
    """

    def __init__(
        self, bench: Bench, candidate: Program, reference: Program, seeds: Iterator[int]
    ) -> None:
        self.reference = reference
        self.seeds: list[int] = []
        self.differences: list[float] = []
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
            # The candidate first: its rivals wait for the same run of the reference, and two
            # candidates at the same seed would otherwise keep one worker between them.
            candidate = await self._bench.evaluator.measure(
                Training(program=self._candidate, stage=stage, steps=steps, seed=seed)
            )
            if candidate.bpb is None:
                raise PairingError(f"{candidate.status}: {candidate.reason}")
            reference = await self._bench.evaluator.measure(
                Training(program=self.reference, stage=stage, steps=steps, seed=seed)
            )
            if reference.bpb is None:
                self._pass_over(seed, reference.reason)
                continue
            self.seeds.append(seed)
            self.differences.append(candidate.bpb - reference.bpb)

    def _pass_over(self, seed: int, reason: str) -> None:
        self._failures += 1
        short_id = self.reference.id[:12]
        logger.warning("reference %s failed on seed %d: %s", short_id, seed, reason)
        if self._failures > REFERENCE_FAILURES:
            raise PairingError(
                f"reference: {short_id} failed on {self._failures} seeds, so there are no pairs"
            )
