"""Shrink a confirmed effect towards what the candidates of its run usually amount to.

The program is the best of many, which is why it is confirmed on fresh seeds; their mean is free of
that selection. What the run's other candidates came to is knowledge all the same: where real gains
of that size are unheard of, a part of the measured one is likely noise.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from agent.stage import Stage
from agent.statistics.moderation import measure
from agent.statistics.shrinkage import Shrunken, fit_prior, shrink
from db.records import Score
from db.store import Store
from sandbox.jobs import Gradients, Split

__all__ = ["races_of", "shrunken_effect"]


def races_of(store: Store) -> tuple[tuple[float, ...], ...]:
    """Return the differences of every candidate's race that has two pairs or more."""
    scores = {_key(score): score.bpb for score in store.scores() if _is_full(score, store)}
    races = []
    for verdict in store.verdicts():
        if verdict.stage != Stage.RACE or verdict.reference_id is None:
            continue
        halves = [
            (scores.get((verdict.program_id, seed)), scores.get((verdict.reference_id, seed)))
            for seed in verdict.seeds
        ]
        differences = tuple(a - b for a, b in halves if a is not None and b is not None)
        if len(differences) > 1:
            races.append(differences)
    return tuple(races)


def shrunken_effect(
    confirmed: Sequence[float], races: Sequence[Sequence[float]]
) -> Shrunken | None:
    """Return what a confirmed effect amounts to, given how a run's candidates usually do.

    Args:
        confirmed: the differences of the confirmation.
        races: those of every candidate of the run.

    Returns:
        None where nothing can be learnt: too few differences, or none that vary.
    """
    everything = [confirmed, *races]
    if len(confirmed) < 2 or not races or not _varies(everything):  # noqa: PLR2004 - a spread
        return None
    ours, *others = measure(everything)
    return shrink(ours, fit_prior([ours, *others]))


def _varies(comparisons: Sequence[Sequence[float]]) -> bool:
    return any(a != b for found in comparisons for a, b in pairwise(found))


def _is_full(score: Score, store: Store) -> bool:
    """Whether a run had the run's own length and true gradients, on the search's text."""
    steps = store.run().facts.get("steps")
    return (
        score.steps == score.horizon == steps
        and score.gradients == Gradients.TRUE
        and score.split == Split.SEARCH
    )


def _key(score: Score) -> tuple[str, int]:
    return score.program_id, score.seed
