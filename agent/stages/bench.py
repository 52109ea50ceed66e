"""What every stage works with: the run's horizon and seeds, and a way to measure programs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from agent.budget import Clock
from agent.evaluations import Evaluator
from agent.foresight import SAMPLE_SHARE
from agent.guardrails import Guardrails
from agent.stage import Decided, Stage
from agent.statistics.paired_test import Design, Effect
from db.records import Program, Verdict

__all__ = ["Bench", "Comparison", "conclude"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The means of judging, common to all candidates of a run.

    `steps` is the full horizon of a training run, `design` the test that ends a race, and
    `sample_share` the share of programs that go on whatever their screen says.
    """

    run_seed: int
    steps: int
    seed_program: Program
    evaluator: Evaluator
    clock: Clock
    design: Design = field(default_factory=Design)
    guardrails: Guardrails = field(default_factory=Guardrails)
    sample_share: float = SAMPLE_SHARE


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The evidence of a paired stage.

    `log_e` and `stopped` are for pairs that were tested; `is_sample` for a program that went on
    whatever it scored.
    """

    reference_id: str
    effect: Effect | None = None
    seeds: Sequence[int] = ()
    log_e: float | None = None
    stopped: str | None = None
    is_sample: bool = False


def conclude(
    bench: Bench,
    program: Program,
    stage: Stage,
    finding: tuple[Decided, str],
    comparison: Comparison | None = None,
) -> Verdict:
    """Write a stage's finding as a verdict.

    Args:
        bench: tells the time.
        program: what was judged.
        stage: where.
        finding: the decision and its reason. A reason begins with its category and a colon, so
            that failures can be counted by category: `worse: 0.05 bpb behind on seed 7`.
        comparison: the pairs it rests on, if any.
    """
    effect = comparison.effect if comparison else None
    return Verdict(
        program_id=program.id,
        stage=stage,
        ordinal=program.ordinal,
        decision=finding[0],
        reason=finding[1],
        reference_id=comparison.reference_id if comparison else None,
        effect_bpb=effect.mean if effect else None,
        interval_low=_finite(effect.low) if effect else None,
        interval_high=_finite(effect.high) if effect else None,
        pairs=effect.pairs if effect else 0,
        seeds=tuple(comparison.seeds) if comparison else (),
        decided_at=bench.clock(),
        log_e=comparison.log_e if comparison else None,
        stopped=comparison.stopped if comparison else None,
        is_sample=comparison is not None and comparison.is_sample,
    )


def _finite(bound: float) -> float | None:
    """Return the bound of an interval, or None where there is none."""
    return bound if math.isfinite(bound) else None
