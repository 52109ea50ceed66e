"""Compare ways to share a champion's runs among its challengers.

Challengers raced on the same seeds share the champion's luck there. A lucky champion is then hard
to beat for all of them, and an unlucky one falls to several that are no better, so luck decides
who stays: the lucky stay. Fresh seeds for every challenger would end that, at the price of a run
of the champion for every pair. Here whole searches are simulated under policies in between.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from agent.calibration.noise import Draws, draw
from agent.calibration.operating import Rate, rate_of
from agent.calibration.rules import sequential
from agent.calibration.searches import World
from agent.statistics.paired_test import Design

__all__ = ["Policy", "Sharing", "simulate"]

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How a champion's runs are shared.

    Attributes:
        challengers: how many are raced on one list of seeds before the champion gets another;
            None for all.
        from_election: begin a champion's first list with the seeds that it was replicated on.
        replication_pairs: fresh pairs on which a race winner must be ahead on average.
    """

    challengers: int | None
    from_election: bool = False
    replication_pairs: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharing:
    """What many searches under a policy came to.

    Attributes:
        policy: how runs were shared.
        true_gain_bpb: mean true gain of the last champion over the first, with its standard error.
        fooled: how many promotions were of candidates that are no better; None without any.
        found: how many candidates with a gain were promoted; None if there were none.
        incumbent_luck_bpb: the champion's mean error on its shared seeds, averaged over races:
            negative is luck, and what a challenger has to gain on top of being better.
        runs_per_candidate: training runs of both programs, by candidate.
    """

    policy: Policy
    true_gain_bpb: float
    true_gain_error: float
    fooled: Rate | None
    found: Rate | None
    incumbent_luck_bpb: float
    runs_per_candidate: float


class _Searches:
    """Many searches at once; every array has an entry for each."""

    def __init__(
        self, policy: Policy, world: World, design: Design, count: int, rng: np.random.Generator
    ) -> None:
        self.policy, self.world, self.rng = policy, world, rng
        self.rule = sequential(design)
        self.pairs = design.max_pairs
        self.level = np.zeros(count)
        self.used = np.zeros(count, dtype=np.int64)
        self.shared = self._residuals(count)  # the champion's errors on its seeds
        self.begun = np.zeros(count, dtype=np.int64)  # on how many of them it was run
        self.raced = np.zeros(count, dtype=np.int64)  # challengers since its seeds were fresh
        self.tally = np.zeros(6)  # candidates, promotions, fooled, gains, found, sum of luck

    def _residuals(self, count: int) -> Array:
        nothing = np.zeros(count)
        return draw(self.world.noises, nothing, self.pairs, self.rng).differences

    def step(self, going: NDArray[np.intp]) -> None:
        """Judge one candidate in each of the searches that go on."""
        self._refresh(going)
        effects = self.rng.choice(np.asarray(self.world.effects_bpb), size=len(going))
        # The spread of a difference is shared evenly: either program contributes its own error.
        own = self._residuals(len(going)) / math.sqrt(2.0)
        theirs = self.shared[going] / math.sqrt(2.0)
        draws = Draws(candidate=own + effects[:, None], reference=theirs)
        outcome = self.rule.decide(draws, np.zeros(len(going)))
        self.used[going] += outcome.candidate_runs
        self.used[going] += np.maximum(outcome.champion_runs - self.begun[going], 0)
        self.begun[going] = np.maximum(self.begun[going], outcome.champion_runs)
        self.raced[going] += 1
        winners = outcome.accepted
        promoted = np.zeros(len(going), dtype=np.bool_)
        promoted[winners] = self._replicate(going[winners], effects[winners])
        gains = effects < 0.0
        luck = float(theirs[:, :6].mean(axis=1).sum())  # as many pairs as most races see
        self.tally += np.array(
            [
                len(going),
                promoted.sum(),
                (promoted & ~gains).sum(),
                gains.sum(),
                (promoted & gains).sum(),
                luck,
            ]
        )

    def _refresh(self, going: NDArray[np.intp]) -> None:
        if self.policy.challengers is None:
            return
        old = going[self.raced[going] >= self.policy.challengers]
        self.shared[old] = self._residuals(len(old))
        self.begun[old] = self.raced[old] = 0

    def _replicate(self, winners: NDArray[np.intp], effects: Array) -> NDArray[np.bool_]:
        """Promote those that are ahead on fresh pairs; say which."""
        pairs = self.policy.replication_pairs
        own = self._residuals(len(winners))
        theirs = self._residuals(len(winners))
        gap = effects + (own - theirs)[:, :pairs].mean(axis=1) / math.sqrt(2.0)
        self.used[winners] += 3 * pairs  # candidate, champion and seed program
        held: NDArray[np.bool_] = gap < 0.0
        new = winners[held]
        self.level[new] += effects[held]
        shared = self._residuals(len(new))
        if self.policy.from_election:
            shared[:, :pairs] = own[held][:, :pairs]
        self.shared[new] = shared
        self.begun[new] = pairs if self.policy.from_election else 0
        self.raced[new] = 0
        return held


def simulate(
    policy: Policy,
    world: World,
    *,
    searches: int,
    rng: np.random.Generator,
    design: Design | None = None,
) -> Sharing:
    """Run many searches of the world's budget under a policy.

    Differences have the noise of real comparisons, half of whose variance is taken to be the
    candidate's and half the champion's.
    """
    state = _Searches(policy, world, design or Design(), searches, rng)
    while len(going := np.flatnonzero(state.used < world.budget_runs)):
        state.step(going)
    candidates, promotions, fooled, gains, found, luck = state.tally
    return Sharing(
        policy=policy,
        true_gain_bpb=-float(state.level.mean()),
        true_gain_error=float(state.level.std()) / math.sqrt(searches),
        fooled=rate_of(int(fooled), int(promotions)) if promotions else None,
        found=rate_of(int(found), int(gains)) if gains else None,
        incumbent_luck_bpb=luck / candidates,
        runs_per_candidate=float(state.used.sum()) / candidates,
    )
