"""Account for what judging in stages saved, and what it may have lost.

A stage saves the runs that what it rejected would have taken further on. What that lost is seen in
the sample that went on in spite of it: how many of those that were as far behind won their race.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

from agent.calibration.operating import Rate, rate_of
from agent.stage import Decided, Stage, Stopped
from agent.stages.screen import SCREEN_MARGIN_BPB
from db.records import Verdict

__all__ = ["Savings", "savings_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Savings:
    """What the screen and the sequential race saved, in training runs of the full horizon.

    Attributes:
        screened: candidates that the screen compared.
        pruned: those it rejected for being far behind.
        spared: those as far behind that were raced to their end all the same.
        won: how many of the spared won, with an interval for the share; None if none were spared.
        pairs_each: pairs that a spared candidate took, or any, if none were spared.
        races: races that came to an end by their test.
        pairs: pairs they took.
        pairs_fixed: pairs they would have taken if none had stopped early.
        futile: races given up for want of a chance. The test is designed so that this costs 4 of
            100 wins at a gain of one paired standard deviation.
    """

    screened: int
    pruned: int
    spared: int
    won: Rate | None
    pairs_each: float
    races: int
    pairs: int
    pairs_fixed: int
    futile: int

    @property
    def runs_saved_by_screen(self) -> float:
        """Runs of candidates that were not raced; their champion's are shared and not counted."""
        return self.pruned * self.pairs_each

    @property
    def wins_lost_by_screen(self) -> tuple[float, float, float] | None:
        """How many wins the pruned would have had, with the ends of a 95 % interval."""
        if self.won is None:
            return None
        share = self.won
        return share.share * self.pruned, share.low * self.pruned, share.high * self.pruned


def savings_of(verdicts: Sequence[Verdict], *, max_pairs: int) -> Savings:
    """Work out the savings from a run's verdicts.

    Args:
        verdicts: all of them.
        max_pairs: what a race may take at most.
    """
    screened = [v for v in verdicts if v.stage == Stage.SCREEN and v.effect_bpb is not None]
    behind = {v.program_id for v in screened if (v.effect_bpb or 0.0) > SCREEN_MARGIN_BPB}
    races = [v for v in verdicts if v.stage == Stage.RACE and v.effect_bpb is not None]
    spared = [race for race in races if race.program_id in behind]
    counted = [race.pairs for race in spared or races]
    won = sum(race.decision == Decided.PASS for race in spared)
    return Savings(
        screened=len(screened),
        pruned=sum(v.decision == Decided.REJECT for v in screened if v.program_id in behind),
        spared=len(spared),
        won=rate_of(won, len(spared)) if spared else None,
        pairs_each=fmean(counted) if counted else 0.0,
        races=len(races),
        pairs=sum(race.pairs for race in races),
        pairs_fixed=max_pairs * len(races),
        futile=sum(race.stopped == Stopped.FUTILE for race in races),
    )
