"""What a gate is: a question to a program, answered by training it under changed conditions.

A gate is an async function of a `Case`. It returns None if the program may pass, or else why not,
as a reason that begins with its category and a colon and that a proposer can act on.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from agent.evaluations import Measured, Training
from agent.stage import Stage
from agent.stages.bench import Bench
from db.records import Program
from sandbox.jobs import Evidence, Gradients, Status

__all__ = ["Case", "Failed", "Finished", "Gate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """A run at a gate that came to its end."""

    bpb: float
    evidence: Evidence


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """A run at a gate that did not come to its end."""

    status: Status
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A program at the gates.

    All its runs here are on one seed that is drawn for the purpose, so they differ in nothing but
    what a gate changes.
    """

    bench: Bench
    candidate: Program
    incumbent: Program
    seed: int

    async def train(
        self,
        *,
        steps: int | None = None,
        horizon: int | None = None,
        gradients: Gradients = Gradients.TRUE,
    ) -> Finished | Failed:
        """Train the candidate; for the full horizon and with true gradients unless said otherwise.

        Args:
            steps: how far to train.
            horizon: how many steps the candidate is told there will be; `steps` by default.
            gradients: what it is given for gradients.

        Raises:
            BudgetSpentError: the run could not be paid for.
            LookupError: the run has a score and no evidence, so a gate would stand open.
        """
        training = Training(
            program=self.candidate,
            stage=Stage.GATES,
            steps=steps or self.bench.steps,
            seed=self.seed,
            horizon=horizon,
            gradients=gradients,
            evidence=True,
        )
        measured = await self.bench.evaluator.measure(training)
        if measured.bpb is None:
            return Failed(status=measured.status, reason=measured.reason)
        if measured.evidence is None:
            raise LookupError(f"a run at the gates has a score and no evidence: {training.key}")
        return Finished(bpb=measured.bpb, evidence=measured.evidence)

    async def train_incumbent(self, steps: int) -> Measured:
        """Train the incumbent on the same seed, as a reference.

        Raises:
            BudgetSpentError: the run could not be paid for.
        """
        return await self.bench.evaluator.measure(
            Training(
                program=self.incumbent,
                stage=Stage.GATES,
                steps=steps,
                seed=self.seed,
            )
        )


Gate = Callable[[Case], Awaitable[str | None]]
