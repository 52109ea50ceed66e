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
from sandbox.examination import Accepted, Request, why_too_large
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.patches import Patch, to_json
from sandbox.source_form import digest, normalised_digest

__all__ = ["Intake", "plant"]

TEXT_LENGTH = 1000  # of a description or reason; a model may write a page, nobody reads it
MAX_REASONS = 5  # of a refused candidate

PROPOSAL_S = 900.0  # a model that thinks for a quarter of an hour has lost its connection


@dataclass(frozen=True, slots=True, kw_only=True)
class _Checked:
    """What came of a proposal: its status, the reason, and the program if it became one."""

    status: str
    reason: str
    accepted: Accepted | None = None
    program_id: str | None = None


class Intake:
    """Turns ordinals into candidates.

    Args:
        lineage: where parents come from and records go.
        proposer: makes the patches.
        preflight: applies the patches and reads what comes out; the caller ends it.
        scopes: the regions a patch may touch.
        run_seed: the seed of the run.
        clock: dates the records.
    """

    def __init__(
        self,
        lineage: Lineage,
        proposer: Proposer,
        preflight: GuardedPreflight,
        *,
        scopes: frozenset[str],
        run_seed: int,
        clock: Clock,
    ) -> None:
        self._lineage = lineage
        self._proposer = proposer
        self._preflight = preflight
        self._scopes = scopes
        self._run_seed = run_seed
        self._clock = clock

    async def candidate(self, ordinal: int) -> Candidate | None:
        """Propose candidate number `ordinal` and record what came of it.

        Returns:
            The candidate to judge; None if it was refused or nothing was proposed.

        Raises:
            PreflightLostError: the machine does not let preflight run.
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
        return self._record(brief, proposed, await self._check(brief, proposed.patch))

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

    async def _check(self, brief: Brief, patch: Patch) -> _Checked:
        """Apply the patch, run preflight and look for duplicates."""
        request = Request(patch=patch, parent=brief.parent.source, scopes=self._scopes)
        examination = await self._preflight.examine(request)
        accepted = examination.accepted
        if accepted is None:
            first = examination.violations[0]
            messages = "; ".join(v.message for v in examination.violations[:MAX_REASONS])
            return _Checked(status="preflight_reject", reason=f"{first.rule}: {messages}")
        # From here to the record nothing waits: of two equal candidates, one finds the other.
        owner = self._lineage.owner_of(accepted.normalised)
        if owner is not None:
            reason = f"same source: as program {owner[:12]}, but for comments and layout"
            return _Checked(status="duplicate", reason=reason, program_id=owner)
        return _Checked(status=ACCEPTED, reason="ok: passed preflight", accepted=accepted)

    def _record(self, brief: Brief, proposed: ProposedPatch, checked: _Checked) -> Candidate | None:
        now = self._clock()
        program = None
        if checked.accepted is not None:
            program = Program(
                id=checked.accepted.digest,
                ordinal=brief.ordinal,
                source=checked.accepted.source,
                normalised=checked.accepted.normalised,
                created_at=now,
            )
        # The reason names the size of a patch that is too large to be kept.
        is_kept = why_too_large(proposed.patch) is None
        proposal = Proposal(
            ordinal=brief.ordinal,
            proposer=proposed.proposer,
            description=_one_line(proposed.description),
            patch=to_json(proposed.patch if is_kept else Patch(())),
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
