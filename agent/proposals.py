"""What a proposer is given and what it gives back.

A proposer never sees the database, the population or a score it should not know: the brief is
all there is. Nor does it judge its own patch; preflight and the stages do.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from sandbox.patches import Patch

__all__ = ["Brief", "NothingToPropose", "ParentView", "ProposedPatch", "Proposer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParentView:
    """A program to start from, with what was measured of it.

    `effect_bpb` is its validation loss minus that of the seed program in bits per byte, over
    `pairs` paired runs: negative is better, None where nothing was measured yet.
    """

    program_id: str
    source: str
    effect_bpb: float | None = None
    pairs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """One request for a patch.

    Attributes:
        ordinal: number of the proposal in its run.
        rng: the only randomness a proposer may use, so that the same run proposes the same again.
        parent: the program to patch.
        second: another good program to take parts from, if there is one.
        scopes: names of the regions that may change.
        failures: what went wrong with recent proposals, newest last, in words for a proposer.
        is_known: tells by its normalised digest whether a program was tried in this run.
    """

    ordinal: int
    rng: random.Random
    parent: ParentView
    second: ParentView | None = None
    scopes: frozenset[str]
    failures: tuple[str, ...] = ()
    is_known: Callable[[str], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProposedPatch:
    """A change to `brief.parent`, who made it and what that cost.

    `parents` are the ids of the programs it draws on, the patched one first. `cost` maps units
    such as `usd` or `output_tokens` to amounts; a proposer that costs nothing leaves it empty.
    """

    patch: Patch
    description: str
    proposer: str
    parents: tuple[str, ...]
    cost: Mapping[str, float] = field(default_factory=dict)


class NothingToPropose(Exception):  # noqa: N818 (an outcome like StopIteration, not an error)
    """A proposer found no patch for this brief that would make an untried program."""


class Proposer(Protocol):
    """Makes patches.

    `propose` answers a brief with a patch to the brief's parent. Its answer depends on nothing
    but the brief, as far as that is in its power, and it changes nothing in the brief but the
    state of `rng`.
    """

    name: str

    async def propose(self, brief: Brief) -> ProposedPatch:
        """Answer `brief`.

        Raises:
            NothingToPropose: there is no patch to offer; another brief may fare better.
        """
