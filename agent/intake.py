"""Make the next candidate: choose parents, have a patch proposed, apply and check it, record it.

Nothing here trains anything. What comes out is stored before it is judged, and so is what does
not come out, with its reason.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from agent.budget import Clock
from agent.lineage import Candidate, Lineage
from agent.proposals import Brief, NothingToPropose, ParentView, ProposedPatch, Proposer
from agent.seeds import candidate_rng
from agent.selection import Member, choose_parents
from agent.tally import ACCEPTED, NOTHING
from db.records import Program, Proposal
from sandbox.patches import Patch, PatchError, apply_patch, to_json
from sandbox.preflight import preflight
from sandbox.source_form import digest, normalised_digest

__all__ = ["Intake", "plant"]

TEXT_LENGTH = 1000  # of a description or reason; a model may write a page, nobody reads it

PROPOSAL_S = 900.0  # a model that thinks for a quarter of an hour has lost its connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """What came of a proposal: its status, the reason, and the source if it became one."""

    status: str
    reason: str
    source: str | None = None
    program_id: str | None = None


class Intake:
    """Turns ordinals into candidates.

    Args:
        lineage: where parents come from and records go.
        proposer: makes the patches.
        scopes: the regions a patch may touch.
        run_seed: the seed of the run.
        clock: dates the records.
    """

    def __init__(
        self,
        lineage: Lineage,
        proposer: Proposer,
        *,
        scopes: frozenset[str],
        run_seed: int,
        clock: Clock,
    ) -> None:
        self._lineage = lineage
        self._proposer = proposer
        self._scopes = scopes
        self._run_seed = run_seed
        self._clock = clock

    async def candidate(self, ordinal: int) -> Candidate | None:
        """Propose candidate number `ordinal` and record what came of it.

        Returns:
            The candidate to judge; None if it was refused or nothing was proposed.
        """
        rng = candidate_rng(self._run_seed, ordinal)
        parents = choose_parents(self._lineage.population, rng)
        brief = Brief(
            ordinal=ordinal,
            rng=rng,
            parent=self._view(parents.first),
            second=self._view(parents.second) if parents.second else None,
            scopes=self._scopes,
            failures=tuple(self._lineage.tally.feedback),
            is_known=self._is_known,
        )
        try:
            async with asyncio.timeout(PROPOSAL_S):
                proposed = await self._proposer.propose(brief)
        except NothingToPropose as error:
            self._record_nothing(brief, str(error))
            return None
        except TimeoutError:
            self._record_nothing(brief, f"no answer within {PROPOSAL_S:.0f} s")
            return None
        return self._record(brief, proposed, self._check(brief, proposed.patch))

    def _view(self, member: Member) -> ParentView:
        program = self._lineage.program(member.program_id)
        return ParentView(
            program_id=program.id,
            source=program.source,
            effect_bpb=member.effect_bpb if member.pairs else None,
            pairs=member.pairs,
        )

    def _is_known(self, normalised: str) -> bool:
        return self._lineage.owner_of(normalised) is not None

    def _check(self, brief: Brief, patch: Patch) -> _Checked:
        """Apply the patch, run preflight and look for duplicates."""
        parent = brief.parent.source
        try:
            source = apply_patch(patch, parent)
        except PatchError as error:
            return _Checked(status="preflight_reject", reason=f"patch: {error}")
        violations = preflight(source, parent=parent, scopes=self._scopes)
        if violations:
            first = violations[0]
            reason = f"{first.rule}: {'; '.join(v.message for v in violations[:5])}"
            return _Checked(status="preflight_reject", reason=reason)
        owner = self._lineage.owner_of(normalised_digest(source))
        if owner is not None:
            reason = f"same source: as program {owner[:12]}, but for comments and layout"
            return _Checked(status="duplicate", reason=reason, program_id=owner)
        return _Checked(status=ACCEPTED, reason="ok: passed preflight", source=source)

    def _record(self, brief: Brief, proposed: ProposedPatch, checked: _Checked) -> Candidate | None:
        now = self._clock()
        program = None
        if checked.source is not None:
            program = Program(
                id=digest(checked.source),
                ordinal=brief.ordinal,
                source=checked.source,
                normalised=normalised_digest(checked.source),
                created_at=now,
            )
        proposal = Proposal(
            ordinal=brief.ordinal,
            proposer=proposed.proposer,
            description=_one_line(proposed.description),
            patch=to_json(proposed.patch),
            parents=proposed.parents,
            status=checked.status,
            reason=_one_line(checked.reason),
            program_id=program.id if program else checked.program_id,
            created_at=now,
            cost=proposed.cost,
        )
        return self._lineage.add_proposal(proposal, program)

    def _record_nothing(self, brief: Brief, reason: str) -> None:
        proposal = Proposal(
            ordinal=brief.ordinal,
            proposer=self._proposer.name,
            description="nothing",
            patch=to_json(Patch(())),
            parents=(brief.parent.program_id,),
            status=NOTHING,
            reason=f"no proposal: {reason}",
            program_id=None,
            created_at=self._clock(),
        )
        self._lineage.add_proposal(proposal)


def plant(lineage: Lineage, source: str, clock: Clock) -> None:
    """Record the program a new run starts from, as its candidate number 0."""
    program = Program(
        id=digest(source),
        ordinal=0,
        source=source,
        normalised=normalised_digest(source),
        created_at=clock(),
    )
    proposal = Proposal(
        ordinal=0,
        proposer="seed",
        description="seed program",
        patch=to_json(Patch(())),
        parents=(),
        status=ACCEPTED,
        reason="ok: where the run starts",
        program_id=program.id,
        created_at=program.created_at,
    )
    lineage.add_proposal(proposal, program)


def _one_line(text: str) -> str:
    """Make a stranger's text safe to print: one line, no control characters, not too long."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return " ".join(printable.split())[:TEXT_LENGTH]
