"""Add the minimal program to the lineage of its run, as a child of the winner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from agent.tally import ACCEPTED
from db.records import Program, Proposal
from db.store import Store
from sandbox.patches import make_patch, to_json
from sandbox.source_form import digest, normalised_digest

__all__ = ["PROPOSER", "AlreadyThereError", "Offspring", "add_child"]

PROPOSER = "ablate"


class AlreadyThereError(Exception):
    """The run has this program already, but for comments and layout."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offspring:
    """A program made of a parent by leaving parts out.

    `left_out` are the parts in words, `evidence` says how it did against its parent.
    """

    parent: Program
    source: str
    left_out: Sequence[str]
    evidence: str


def add_child(store: Store, offspring: Offspring, now: datetime) -> Program:
    """Record a program in the lineage; the run judges it when it goes on.

    Args:
        store: the run's, opened for this process alone.
        offspring: the program.
        now: dates the records.

    Raises:
        AlreadyThereError: nothing is added.
        StoreError: the database cannot be written.
    """
    parent, source = offspring.parent, offspring.source
    normalised = normalised_digest(source)
    for known in store.programs():
        if known.normalised == normalised:
            raise AlreadyThereError(f"the minimal program is #{known.ordinal}, {known.id[:12]}")
    ordinal = 1 + max((proposal.ordinal for proposal in store.proposals()), default=-1)
    program = Program(
        id=digest(source), ordinal=ordinal, source=source, normalised=normalised, created_at=now
    )
    proposal = Proposal(
        ordinal=ordinal,
        proposer=PROPOSER,
        description=f"without {'; '.join(offspring.left_out)}",
        patch=to_json(make_patch(parent.source, source)),
        parents=(parent.id,),
        status=ACCEPTED,
        reason=f"ok: passed preflight; {offspring.evidence}",
        program_id=program.id,
        created_at=now,
    )
    store.add_proposal(proposal, program)
    return program
