"""The records of a lineage, as plain frozen data.

Everything needed to repeat a decision is in one of these. They say nothing about how they are
stored; `db.store` keeps them in SQL, `db.history` in git.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

__all__ = ["Evaluation", "Event", "Look", "Program", "Proposal", "Run", "Score", "Verdict"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One search.

    `settings` is everything given on the command line and in the config file; `facts` is
    what the workers reported (corpus digest, versions, sandbox level, steps).
    """

    id: str
    created_at: datetime
    seed: int
    settings: Mapping[str, Any]
    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A full optimizer source.

    `id` is the sha256 of the text; `normalised` that of its normalised form, equal for programs
    that differ in comments and layout only. `ordinal` is that of the
    proposal which first produced it; the seed program has ordinal 0.
    """

    id: str
    ordinal: int
    source: str
    normalised: str
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """One attempt to change a program: who made it, the patch, what came of it.

    `status` is `accepted` (became `program_id`, to be judged), `preflight_reject` or
    `duplicate` (of `program_id`); `reason` says why, in a sentence the proposer can act on.
    `parents` are program ids, the patched one first. `patch` is JSON.
    """

    ordinal: int
    proposer: str
    description: str
    patch: str
    parents: tuple[str, ...]
    status: str
    reason: str
    program_id: str | None
    created_at: datetime
    cost: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """One training run of a program.

    Unique per program, split, steps, horizon, gradients and seed; `stage` is the stage that asked
    first. Schedules were laid out for `horizon` steps. `gradients` is `true` unless the program
    was given altered ones, which makes the score one of the test and not of the program. `bpb`
    is None unless `status` is `ok`. `evidence` is what the run showed besides, if asked.
    """

    program_id: str
    stage: str
    split: str
    steps: int
    horizon: int
    gradients: str
    seed: int
    status: str
    reason: str
    line: int | None
    bpb: float | None
    curve: tuple[tuple[int, float], ...]
    fingerprint: str | None
    jail_cpu_s: float
    train_cpu_s: float
    wall_s: float
    peak_memory_bytes: int
    output_tail: str
    sandbox_level: int
    unsafe: bool
    finished_at: datetime
    evidence: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Score:
    """What comparisons need of an evaluation that ended well: the score and its cost.

    A small part of an evaluation's record, so that those of a whole run can be held at once.
    """

    program_id: str
    stage: str
    split: str
    steps: int
    horizon: int
    gradients: str
    seed: int
    bpb: float
    jail_cpu_s: float
    peak_memory_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was decided about a program in one stage, and on what evidence.

    `decision` is `pass`, `reject` or `promote`. For paired stages `effect_bpb` is the mean of
    candidate minus reference (negative is better) over `pairs` seeds, with its interval.
    `log_e` is the logarithm of the e-value of those pairs against "no better"; `stopped` says why
    there were no more of them. Both are None where nothing was tested. `is_sample` marks a program
    that would have gone on from this stage whatever it scored here: those alone show, without
    selection, what the stage foresees.
    """

    program_id: str
    stage: str
    ordinal: int
    decision: str
    reason: str
    reference_id: str | None
    effect_bpb: float | None
    interval_low: float | None
    interval_high: float | None
    pairs: int
    seeds: tuple[int, ...]
    decided_at: datetime
    log_e: float | None = None
    stopped: str | None = None
    is_sample: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to the run itself: started, resumed, stopped, retried, paused."""

    at: datetime
    kind: str
    detail: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """A line in the ledger of looks: a program was measured on a split, for a stage.

    The store writes one with every evaluation. Whoever reports a result on sealed text can
    count how often that text was looked at before.
    """

    at: datetime
    program_id: str
    split: str
    stage: str
    steps: int
    seed: int
