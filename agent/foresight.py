"""Keep count of how well each stage foretells what the next one will say.

A stage may reject for a score only once it is shown to rank programs as the next stage does. Shown
by a sample that went on whatever it scored: everyone as long as the stage had not earned the right
to reject, and a few drawn by lot ever after, so that the right can be lost again.

What is compared are differences to the champion of the time, from the stored verdicts alone: a
resumed run knows what it knew before.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from agent.stage import Stage
from agent.statistics.rank_correlation import (
    RankCorrelation,
    TooFewProgramsError,
    may_prune,
    rank_correlation,
)
from db.records import Verdict

__all__ = ["SAMPLE_SHARE", "STEPS", "THRESHOLD", "Foresight", "Step", "foresight_of"]

# One program in ten goes on whatever its screen said. The race of one that is far behind takes two
# or three pairs, so the sample costs about as much as a quarter of a pair by candidate.
SAMPLE_SHARE = 0.1

# The least that the lower end of a 90 % interval must reach. Looked at after each of 60 programs
# (simulated, normal scores), a screen that ranks at random has earned the right at some time in 2
# of 100 runs; one with a correlation of .3, .5, .7 or .85 in 21, 68, 100 and 100, those after 12,
# 18, 11 and 8 programs in the median.
THRESHOLD = 0.3


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """Two stages, one of which may foretell the other."""

    cheap: Stage
    dear: Stage


# The smoke test rejects for no score, so every program it passes is a sample.
STEPS = (
    Step(cheap=Stage.SMOKE, dear=Stage.SCREEN),
    Step(cheap=Stage.SMOKE, dear=Stage.RACE),
    Step(cheap=Stage.SCREEN, dear=Stage.RACE),
)


class Foresight:
    """What verdicts, taken in one by one, show of the stages they come from."""

    def __init__(self) -> None:
        self._effects: dict[Stage, dict[str, float]] = {
            stage: {} for stage in (Stage.SMOKE, Stage.SCREEN, Stage.RACE)
        }
        # Who went through the screen whatever it said, in order: sums must not depend on hashes.
        self._sampled: dict[str, None] = {}
        self._known: dict[Step, RankCorrelation | None] = {}

    def add(self, verdict: Verdict) -> None:
        """Take in a verdict; those without a difference to a champion say nothing here."""
        effects = self._effects.get(Stage(verdict.stage))
        if effects is None or verdict.effect_bpb is None:
            return
        # Raced again, against a newer champion, it is another comparison than its screen's.
        effects.setdefault(verdict.program_id, verdict.effect_bpb)
        if verdict.stage == Stage.SCREEN and verdict.is_sample:
            self._sampled[verdict.program_id] = None
        self._forget(verdict)

    def correlation(self, step: Step) -> RankCorrelation | None:
        """Return how well a step's first stage foretells its second; None if too few are known."""
        if step not in self._known:
            self._known[step] = self._correlated(step)
        return self._known[step]

    def may_prune(self, stage: Stage) -> bool:
        """Whether a stage has earned the right to reject for a score."""
        step = Step(cheap=stage, dear=Stage.RACE)
        return may_prune(self.correlation(step), threshold=THRESHOLD)

    def programs(self, step: Step) -> int:
        """Return how many programs a step's correlation rests on, or would."""
        return len(self._shared(step))

    def _forget(self, verdict: Verdict) -> None:
        """Drop the correlations that a verdict changes.

        A program that is no sample changes none with the race, so that what a search asks for is
        worked out anew for few of its programs.
        """
        if verdict.stage != Stage.RACE or verdict.program_id in self._sampled:
            changed = [step for step in self._known if verdict.stage == step.dear]
            for step in changed:
                del self._known[step]

    def _shared(self, step: Step) -> list[str]:
        cheap, dear = self._effects[step.cheap], self._effects[step.dear]
        # Who reaches the race was chosen by the screen, unless it is a sample.
        programs = self._sampled if step.dear is Stage.RACE else cheap
        return [program for program in programs if program in cheap and program in dear]

    def _correlated(self, step: Step) -> RankCorrelation | None:
        shared = self._shared(step)
        cheap, dear = self._effects[step.cheap], self._effects[step.dear]
        try:
            return rank_correlation([cheap[p] for p in shared], [dear[p] for p in shared])
        except TooFewProgramsError:
            return None


def foresight_of(verdicts: Iterable[Verdict]) -> Foresight:
    """Return what a run's verdicts show, in the order they were given."""
    foresight = Foresight()
    for verdict in verdicts:
        foresight.add(verdict)
    return foresight
