"""Verdicts of a search, with everything that does not matter filled in."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from agent.stage import Decided, Stage
from db.records import Score, Verdict

STEPS = 40
SEED_PROGRAM = "seed"


def verdict(program: str, stage: Stage, effect: float | None, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "ordinal": 1,
        "decision": Decided.PASS,
        "reason": "near: x",
        "reference_id": SEED_PROGRAM,
        "interval_low": None,
        "interval_high": None,
        "pairs": 0 if effect is None else 1,
        "seeds": (),
        "decided_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return Verdict(program_id=program, stage=stage, effect_bpb=effect, **(fields | changes))


def score(program: str, seed: int, bpb: float, **changes: Any) -> Score:
    fields: dict[str, Any] = {
        "stage": Stage.RACE,
        "split": "search",
        "steps": STEPS,
        "horizon": STEPS,
        "gradients": "true",
        "jail_cpu_s": 1.0,
        "peak_memory_bytes": 1,
    }
    return Score(program_id=program, seed=seed, bpb=bpb, **(fields | changes))


def raced(
    program: str, differences: Sequence[float], *, reference: str = SEED_PROGRAM, **changes: Any
) -> tuple[Verdict, list[Score]]:
    """A race on seeds of the reference's own, on which that one scores 2."""
    first = 1000 * sum(map(ord, reference))
    seeds = tuple(first + number for number in range(len(differences)))
    scores = [score(program, seed, 2.0 + d) for seed, d in zip(seeds, differences, strict=True)]
    mean = sum(differences) / len(differences)
    fields: dict[str, Any] = {"reference_id": reference, "pairs": len(seeds), "seeds": seeds}
    return verdict(program, Stage.RACE, mean, **(fields | changes)), scores


def reference_scores(*verdicts: Verdict, **changes: Any) -> list[Score]:
    """The scores of the programs that races were run against."""
    keys = {(v.reference_id or "", seed) for v in verdicts for seed in v.seeds}
    return [score(program, seed, 2.0, **changes) for program, seed in sorted(keys)]
