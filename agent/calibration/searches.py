"""Let rules steer whole searches on equal compute, and see what a confirmation leaves of them.

A search draws candidates whose true effects on the champion come from a stated list, shows each
to its rule, and moves on to the candidate if the rule accepts. When its training runs are used
up, its gain is the true one: what an endless confirmation would find. A candidate's effect is
taken to be the same for every champion, and finding one gain leaves the next as likely as it was:
good enough to compare rules, not to forecast a search.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.calibration.claims import CONFIRMATION_PAIRS, is_claimed
from agent.calibration.noise import Noise, draw
from agent.calibration.operating import Rate, rate_of
from agent.calibration.rules import Outcome, Rule

__all__ = ["Searches", "World", "search"]

Array = NDArray[np.float64]

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What searches meet.

    Attributes:
        noises: the noise of comparisons.
        effects_bpb: true effects of candidates, each as likely as any other; negative is a gain.
        budget_runs: how many training runs a search may begin its last decision with.
        cpu_s_per_run: what a training run costs.
    """

    noises: Sequence[Noise]
    effects_bpb: Sequence[float]
    budget_runs: int
    cpu_s_per_run: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Searches:
    """What many searches under one rule came to.

    Attributes:
        rule: its name.
        fooled: how many promotions were of candidates that are no better; None without any.
        promotions: mean number per search.
        reported_gain_bpb: mean of the gains the rule reported, added up over its promotions.
        true_gain_bpb: mean true gain of the final champion over the first.
        true_gain_error: its standard error over searches.
        claims: how many searches ended in a claim.
        false_claims: how many claimed a champion that is no better than the first.
        confirmed_gain_bpb: mean gain that was confirmed and claimed, 0 where nothing was.
        confirmed_gain_per_core_hour: the same by mean compute, confirmations included.
    """

    rule: str
    fooled: Rate | None
    promotions: float
    reported_gain_bpb: float
    true_gain_bpb: float
    true_gain_error: float
    claims: Rate
    false_claims: Rate
    confirmed_gain_bpb: float
    confirmed_gain_per_core_hour: float


@dataclass(slots=True, kw_only=True)
class _State:
    """All searches at once, one entry each."""

    level: Array
    recorded: Array
    reported: Array
    used: NDArray[np.int64]
    champion_runs: NDArray[np.int64]
    promoted: NDArray[np.int64]
    fooled: int = 0


def search(rule: Rule, world: World, *, searches: int, rng: np.random.Generator) -> Searches:
    """Run many searches of the same budget under a rule.

    The last decision of a search may exceed the budget; its runs are charged too.
    """
    first = draw(world.noises, np.zeros(searches), 1, rng).reference[:, 0]
    state = _State(
        level=np.zeros(searches),
        recorded=first,
        reported=np.zeros(searches),
        used=np.zeros(searches, dtype=np.int64),
        champion_runs=np.zeros(searches, dtype=np.int64),
        promoted=np.zeros(searches, dtype=np.int64),
    )
    while len(going := np.flatnonzero(state.used < world.budget_runs)):
        effects = rng.choice(np.asarray(world.effects_bpb, dtype=np.float64), size=len(going))
        draws = draw(world.noises, effects, rule.pairs, rng)
        # A rule sees scores about the champion's true level.
        outcome = rule.decide(draws, state.recorded[going] - state.level[going])
        _move_on(state, going, effects, outcome)
    confirmed = _confirmed(state, world, rng)
    return _summary(rule.name, state, confirmed, world)


def _move_on(state: _State, going: NDArray[np.intp], effects: Array, outcome: Outcome) -> None:
    accepted = outcome.accepted
    winners = going[accepted]
    fresh = np.maximum(outcome.champion_runs - state.champion_runs[going], 0)
    state.used[going] += outcome.candidate_runs + fresh
    state.champion_runs[going] += fresh
    state.champion_runs[winners] = 0
    state.recorded[winners] = state.level[winners] + outcome.on_record[accepted]
    state.level[winners] += effects[accepted]
    state.reported[winners] += outcome.measured[accepted]
    state.promoted[winners] += 1
    state.fooled += int((effects[accepted] >= 0.0).sum())


def _confirmed(state: _State, world: World, rng: np.random.Generator) -> Array:
    """Return the claimed gains, 0 where there is no claim; a first champion is not confirmed."""
    differences = draw(world.noises, state.level, CONFIRMATION_PAIRS, rng).differences
    holds = (state.promoted > 0) & is_claimed(differences, 1)
    state.used[state.promoted > 0] += 2 * CONFIRMATION_PAIRS
    return np.where(holds, -differences.mean(axis=1), 0.0)


def _summary(name: str, state: _State, confirmed: Array, world: World) -> Searches:
    searches = len(state.level)
    promotions = int(state.promoted.sum())
    core_hours = float(state.used.mean()) * world.cpu_s_per_run / SECONDS_PER_HOUR
    claimed = confirmed > 0.0
    return Searches(
        rule=name,
        fooled=rate_of(state.fooled, promotions) if promotions else None,
        promotions=promotions / searches,
        reported_gain_bpb=-float(state.reported.mean()),
        true_gain_bpb=0.0 - float(state.level.mean()),
        true_gain_error=float(state.level.std()) / math.sqrt(searches),
        claims=rate_of(int(claimed.sum()), searches),
        false_claims=rate_of(int((claimed & (state.level >= 0.0)).sum()), searches),
        confirmed_gain_bpb=float(confirmed.mean()),
        confirmed_gain_per_core_hour=float(confirmed.mean()) / core_hours,
    )
