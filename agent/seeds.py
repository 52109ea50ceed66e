"""Derive every seed of a run from the run's own seed by hashing.

A seed depends only on what it is for, so a resumed run draws the same ones in the same order.
"""

from __future__ import annotations

import hashlib
import itertools
import random
from collections.abc import Iterator

__all__ = [
    "candidate_rng",
    "gate_seed",
    "is_drawn",
    "is_first",
    "pair_seeds",
    "quarantine_seeds",
    "race_seeds",
    "screen_seed",
    "secret_steps",
    "smoke_seed",
]

SEED_BITS = 31  # fits every generator's seed and a signed column


def smoke_seed(run_seed: int) -> int:
    """Return the one seed of all smoke tests, common so that fingerprints can be compared."""
    return _derive(run_seed, "smoke")


def screen_seed(run_seed: int, incumbent_id: str) -> int:
    """Return the seed on which every candidate is screened against this incumbent."""
    return _derive(run_seed, "screen", incumbent_id)


def race_seeds(run_seed: int, champion_id: str, season: int) -> Iterator[int]:
    """Yield the seeds on which a champion meets the challengers of one season, without end.

    The first of season 0 are fresh when the program is replicated before its promotion; its first
    challengers meet it on the same list, so those runs are used again. No seed is in two seasons.
    """
    labels = ("race", champion_id, *([str(season), "season"] if season else []))
    return (_derive(run_seed, *labels, str(k)) for k in itertools.count())


def pair_seeds(seed: int, purpose: str) -> Iterator[int]:
    """Yield the seeds of a comparison outside of a run, other ones for every purpose."""
    return (_derive(seed, "pairs", purpose, str(k)) for k in itertools.count())


def quarantine_seeds(run_seed: int, program_id: str) -> Iterator[int]:
    """Yield the fresh seeds on which a score too good to be true is taken again."""
    return (_derive(run_seed, "quarantine", program_id, str(k)) for k in itertools.count())


def gate_seed(run_seed: int, program_id: str) -> int:
    """Return the seed on which a program goes through the gates, used for nothing else."""
    return _derive(run_seed, "gates", program_id)


def secret_steps(
    run_seed: int, program_id: str, purpose: str, *, steps: int, share: tuple[float, float]
) -> int:
    """Return a number of steps between two shares of `steps`, unknown until there is a program."""
    low, high = (round(bound * steps) for bound in share)
    return low + _derive(run_seed, "steps", purpose, program_id) % (high - low + 1)


def is_drawn(run_seed: int, program_id: str, *, share: float) -> bool:
    """Draw by lot whether a program goes on whatever its screen says; `share` of them do."""
    return bool(_derive(run_seed, "sample", program_id) < share * 2**SEED_BITS)


def is_first(seed: int, program_id: str) -> bool:
    """Draw by lot which half of a pair is trained first: the candidate's, if this is true."""
    return _derive(seed, "order", program_id) % 2 == 0


def candidate_rng(run_seed: int, ordinal: int) -> random.Random:
    """Return the generator of every choice made for one candidate."""
    return random.Random(f"{run_seed}/{ordinal}")  # noqa: S311 - search, not cryptography


def _derive(run_seed: int, *labels: str) -> int:
    text = "/".join((str(run_seed), *labels))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> (64 - SEED_BITS)
