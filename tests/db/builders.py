"""Records to store, with everything that does not matter filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Any

from db.records import Evaluation, Program, Proposal, Run, Verdict

START = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


def after(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def run() -> Run:
    return Run(
        id="run", created_at=START, seed=7, settings={"profile": "micro"}, facts={"steps": 8}
    )


def program(ordinal: int = 0, source: str | None = None) -> Program:
    text = f"lr = {ordinal}\n" if source is None else source
    return Program(
        id=sha256(text.encode()).hexdigest(),
        ordinal=ordinal,
        source=text,
        normalised=sha256(text.strip().encode()).hexdigest(),
        created_at=after(ordinal),
    )


def proposal(ordinal: int = 0, **changes: Any) -> Proposal:
    fields: dict[str, Any] = {
        "proposer": "operators",
        "description": f"set the learning rate to {ordinal}",
        "patch": "[]",
        "parents": (),
        "status": "accepted",
        "reason": "",
        "program_id": program(ordinal).id,
        "created_at": after(ordinal),
        "cost": {"usd": 0.25},
    }
    return Proposal(ordinal=ordinal, **(fields | changes))


def evaluation(program_id: str, **changes: Any) -> Evaluation:
    fields: dict[str, Any] = {
        "stage": "screen",
        "split": "search",
        "steps": 400,
        "horizon": 400,
        "gradients": "true",
        "seed": 1,
        "status": "ok",
        "reason": "",
        "line": None,
        "bpb": 1.0625,
        "curve": ((0, 5.5), (399, 1.7)),
        "fingerprint": "abc",
        "jail_cpu_s": 1.5,
        "train_cpu_s": 4.5,
        "wall_s": 6.25,
        "peak_memory_bytes": 3 << 30,
        "output_tail": "",
        "sandbox_level": 2,
        "unsafe": False,
        "finished_at": after(60),
    }
    return Evaluation(program_id=program_id, **(fields | changes))


def verdict(program_id: str, **changes: Any) -> Verdict:
    fields: dict[str, Any] = {
        "stage": "race",
        "ordinal": 0,
        "decision": "reject",
        "reason": "no better on 4 pairs",
        "reference_id": program_id,
        "effect_bpb": 0.002,
        "interval_low": -0.001,
        "interval_high": 0.005,
        "pairs": 4,
        "seeds": (1, 2, 3, 2**40),
        "decided_at": after(90),
    }
    return Verdict(program_id=program_id, **(fields | changes))
