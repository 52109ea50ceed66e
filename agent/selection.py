"""Choose parents: a bounded population, tournaments, and a champion that cannot be lost.

The population keeps estimates only, sorted and bounded, so that choosing a parent costs the same
after ten candidates and after ten thousand.
"""

from __future__ import annotations

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Member", "Parents", "Population", "choose_parents", "shrunk"]

CAPACITY = 24
TOURNAMENT_SIZE = 3
CHAMPION_SHARE = 0.3  # of candidates descend from the champion outright: elitism
SECOND_PARENT_SHARE = 0.2  # of candidates may recombine two programs


@dataclass(frozen=True, slots=True, order=True)
class Member:
    """A program that may have children.

    `effect_bpb` is its estimated difference to the seed program, negative is better, and `pairs`
    how many paired runs the estimate rests on. Ties go to the older program, which fewer
    differences to the seed program explain.
    """

    effect_bpb: float
    ordinal: int
    program_id: str
    pairs: int = 0


@dataclass(frozen=True, slots=True)
class Parents:
    """Whose child the next candidate will be; `second` is there for recombination."""

    first: Member
    second: Member | None


class Population:
    """The best programs known, best first, and the champion wherever it ranks."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._members: list[Member] = []
        self._champion: Member | None = None

    @property
    def champion(self) -> Member:
        """The reigning champion.

        Raises:
            LookupError: nobody has been crowned yet.
        """
        if self._champion is None:
            raise LookupError("the population has no champion yet")
        return self._champion

    @property
    def members(self) -> tuple[Member, ...]:
        """All members, best estimate first."""
        return tuple(self._members)

    def add(self, member: Member) -> None:
        """Take in a program; the worst one leaves when there is no room, unless it reigns."""
        bisect.insort(self._members, member)
        if len(self._members) > self._capacity:
            worst = self._members[-1]
            del self._members[-2 if worst == self._champion else -1]

    def crown(self, member: Member) -> None:
        """Add a program as the new champion; the old one stays as an ordinary member."""
        self._champion = member
        self.add(member)


def shrunk(mean_bpb: float, pairs: int) -> float:
    """Pull a mean difference towards zero, the more the fewer pairs it rests on.

    This is the posterior mean when differences between programs spread as much as the paired
    differences of one program over seeds: a factor of n / (n + 1).
    """
    return mean_bpb * pairs / (pairs + 1)


def choose_parents(population: Population, rng: random.Random) -> Parents:
    """Draw the parents of the next candidate.

    The first is the champion or the winner of a tournament; now and then a second one, never the
    same, comes from another tournament.
    """
    members = population.members
    elite = rng.random() < CHAMPION_SHARE
    first = population.champion if elite else _tournament(members, rng)
    wants_second = rng.random() < SECOND_PARENT_SHARE
    others = [member for member in members if member != first]
    second = _tournament(others, rng) if wants_second and others else None
    return Parents(first, second)


def _tournament(members: Sequence[Member], rng: random.Random) -> Member:
    return min(rng.sample(members, min(TOURNAMENT_SIZE, len(members))))
