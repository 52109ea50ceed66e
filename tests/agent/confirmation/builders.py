"""Findings to judge, with everything that does not matter filled in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from agent.confirmation.findings import Findings, RatePoint, Rates, Tested, count_pairs
from agent.confirmation.plan import Condition, Plan, make_plan
from agent.duel import Contender, Course, Duel, Ending, Matchup, Pair
from sandbox.jobs import Outcome, Status, Vitals
from tests.agent.fakes import outcome

PLAN = make_plan(6, is_quick=False)
MATCHUP = Matchup(
    candidate=Contender(name="program.py", source="new"),
    incumbent=Contender(name="baseline.py", source="old"),
    course=Course(steps=40),
)
# Clear gains, none of them the same.
GAINS = tuple(-0.02 - 0.001 * (k % 3) for k in range(6))


def trained(bpb: float | None = 2.0, **changes: Any) -> Outcome:
    status = Status.OK if bpb is not None else Status.NAN
    fields: dict[str, Any] = {
        "bpb": bpb,
        "curve": tuple((step, 5.0 - 0.05 * step) for step in range(40)),
        "peak_memory_bytes": 100 << 20,
        "vitals": Vitals(gradient_norms=tuple((s, 1.0) for s in range(40)), resident_bytes=1000),
    }
    return outcome(status, **(fields | changes))


def duel_of(differences: Sequence[float | None], **program: Any) -> Duel:
    """A duel with these differences; None for a pair of which the program has no score."""
    pairs = tuple(
        Pair(
            seed=seed,
            candidate=trained(None if d is None else 2.0 + d, **program),
            incumbent=trained(2.0),
        )
        for seed, d in enumerate(differences)
    )
    scores = [pair.difference for pair in pairs if pair.difference is not None]
    return Duel(
        matchup=MATCHUP,
        pairs=pairs,
        decision=count_pairs(scores) if scores else None,
        ending=Ending.OUT_OF_SEEDS if len(scores) == len(pairs) else Ending.FAILED,
    )


def same_duel(seeds: int = 4) -> Duel:
    """A program against itself."""
    one = trained(2.0, fingerprint="same")
    pairs = tuple(Pair(seed=seed, candidate=one, incumbent=one) for seed in range(seeds))
    return Duel(matchup=MATCHUP, pairs=pairs, decision=count_pairs([0.0] * seeds))


def rates_of(*gains: float, factors: Sequence[float] = (0.5, 1.0, 2.0)) -> Rates:
    """A sweep on so many seeds, in which the program gains so much on each at every multiple."""

    def side(ahead: Sequence[float]) -> tuple[RatePoint, ...]:
        return tuple(
            RatePoint(
                factor=factor,
                source=f"x {factor}",
                runs=tuple(trained(2.0 + abs(factor - 1.0) + gain) for gain in ahead),
            )
            for factor in factors
        )

    return Rates(ours=side(gains), theirs=side([0.0] * len(gains)))


def found_on(condition: Condition, differences: Sequence[float | None] | None = None) -> Tested:
    found = GAINS[: condition.pairs] if differences is None else differences
    return Tested(condition=condition, duel=duel_of(found))


def confirmed(plan: Plan = PLAN) -> Findings:
    """Findings in which everything held."""
    return Findings(
        plan=plan,
        neutral=same_duel(),
        bad=duel_of([1.0, 1.1, 1.05, 1.02]),
        rates=rates_of(-0.02, -0.021, -0.019, -0.022),
        stateless=trained(vitals=Vitals(gradient_norms=(), resident_bytes=400)),
        tested=tuple(found_on(condition) for condition in plan.conditions),
    )


def with_tested(findings: Findings, changed: Tested) -> Findings:
    """Put one condition's result in the place of another."""
    return replace(
        findings,
        tested=tuple(
            changed if t.condition.part is changed.condition.part else t for t in findings.tested
        ),
    )
