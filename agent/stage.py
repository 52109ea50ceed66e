"""The stages of a program's judging, by the names the database keeps."""

from __future__ import annotations

from enum import StrEnum

__all__ = ["Decided", "Stage", "Stopped"]


class Stage(StrEnum):
    """One test of a program, in the order they are taken.

    `quarantine` is for programs whose screen or race was too good to be true, and for no others.
    `baseline` is every comparison with the seed program: of the seed program itself, which needs
    none, and of a new champion.
    """

    SMOKE = "smoke"
    SCREEN = "screen"
    QUARANTINE = "quarantine"
    RACE = "race"
    GATES = "gates"
    REPLICATE = "replicate"
    BASELINE = "baseline"


class Decided(StrEnum):
    """What a stage may decide. `reject` and `promote` are final, `pass` leads to the next stage."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    REJECT = "reject"
    PROMOTE = "promote"


class Stopped(StrEnum):
    """Why a paired stage had no more pairs.

    The test found the candidate better, its gain negligible, or further pairs futile; the pairs
    it may use were used up; a run failed; or the candidate was better at too high a price.
    """

    BETTER = "better"
    NEGLIGIBLE = "negligible"
    FUTILE = "futile"
    OUT_OF_PAIRS = "out of pairs"
    FAILED = "failed"
    GUARDRAIL = "guardrail"
