"""Count what came of the proposals so far: for people watching, and as feedback to proposers."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from agent.stage import Decided, Stage
from db.records import Proposal, Verdict

__all__ = ["ACCEPTED", "NOTHING", "Note", "Tally"]

ACCEPTED = "accepted"  # the status of a proposal that became a program
NOTHING = "nothing"  # that of one the proposer had no patch for
RECENT_NOTES = 8
RECENT_FAILURES = 12
EARLY_STAGES = frozenset({Stage.SMOKE, Stage.SCREEN})


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """One decision in a line, for display."""

    ordinal: int
    stage: str
    decision: str
    text: str
    effect_bpb: float | None = None


class Tally:
    """Running counts over a lineage; the same records in the same order give the same counts.

    Attributes:
        proposals: how many candidates were proposed, the seed program not counted.
        programs: how many of them became programs.
        failures: how many failed, by `stage: category`.
        promotions: how many became champion.
        barren: how many proposals in a row led to no program.
        notes: the latest decisions, newest last.
        feedback: the latest failures in words, newest last.
    """

    def __init__(self) -> None:
        self.proposals = 0
        self.programs = 0
        self.promotions = 0
        self.barren = 0
        self.failures: Counter[str] = Counter()
        self.notes: deque[Note] = deque(maxlen=RECENT_NOTES)
        self.feedback: deque[str] = deque(maxlen=RECENT_FAILURES)

    def count_proposal(self, proposal: Proposal) -> None:
        """Take in a proposal, whatever came of it."""
        if not proposal.parents:
            return  # the seed program is nobody's attempt
        self.proposals += 1
        if proposal.status == ACCEPTED:
            self.programs += 1
            self.barren = 0
            return
        self.barren += 1
        if proposal.status == NOTHING:
            self.failures[NOTHING] += 1  # no attempt, so nothing to learn from
            return
        self._fail(proposal.status, proposal.description, proposal.reason)
        note = Note(
            ordinal=proposal.ordinal,
            stage="proposal",
            decision=Decided.REJECT,
            text=f"{proposal.description}: {proposal.reason}",
        )
        self.notes.append(note)

    def count_verdict(self, verdict: Verdict, description: str) -> None:
        """Take in a verdict on a program that was proposed as `description`."""
        if verdict.decision == Decided.REJECT:
            self._fail(verdict.stage, description, verdict.reason)
        if verdict.decision == Decided.PROMOTE and verdict.reference_id is not None:
            self.promotions += 1
        if verdict.decision == Decided.PASS and verdict.stage in EARLY_STAGES:
            return  # on the way, and nothing to see yet
        note = Note(
            ordinal=verdict.ordinal,
            stage=verdict.stage,
            decision=verdict.decision,
            text=_named(description, verdict.reason),
            effect_bpb=verdict.effect_bpb,
        )
        self.notes.append(note)

    def _fail(self, stage: str, description: str, reason: str) -> None:
        # Every reason begins with its category and a colon.
        self.failures[f"{stage}: {reason.partition(':')[0]}"] += 1
        self.feedback.append(f"{description}: {reason}")


def _named(description: str, reason: str) -> str:
    """Put what was tried before what came of it, once."""
    return reason if reason.startswith(f"{description}:") else f"{description}: {reason}"
