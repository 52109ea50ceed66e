"""Put judged programs where people find them: git commits, the branch `best`, and `best.py`.

All of it follows from the store and is brought up to date again when a run is opened.
"""

from __future__ import annotations

from pathlib import Path

from agent.lineage import Candidate
from agent.stage import Decided, Stage
from db.history import BEST, SEED, History
from db.records import Program, Verdict
from db.store import Store, StoreError

__all__ = ["BEST_FILE", "Archive"]

BEST_FILE = "best.py"


class Archive:
    """The files of a run that other tools read."""

    def __init__(self, store: Store, history: History, folder: Path) -> None:
        self._store = store
        self._history = history
        self._folder = folder

    def settle(self, candidate: Candidate) -> None:
        """Commit a program with its final verdict; show it as the best if that promotes it."""
        verdict = candidate.verdicts[-1]
        sha = self._history.commit(
            candidate.program,
            parents=candidate.proposal.parents,
            subject=candidate.proposal.description,
            trailers=_trailers(candidate, verdict),
        )
        self._store.set_commit(candidate.program.id, sha)
        if not candidate.proposal.parents:
            self._history.point(SEED, candidate.program.id)
        if verdict.decision == Decided.PROMOTE:
            self.show_best(candidate.program)

    def show_best(self, program: Program) -> None:
        """Point the branch `best` at a committed program and write its text to `best.py`.

        Raises:
            StoreError: one of them cannot be written.
        """
        self._history.point(BEST, program.id)
        path = self._folder / BEST_FILE
        temporary = path.with_suffix(".tmp")
        try:
            temporary.write_text(program.source, encoding="utf-8", newline="")
            temporary.replace(path)
        except OSError as error:
            raise StoreError(
                f"cannot write {path} ({error.strerror}): check the disk and your rights to the "
                "folder, then resume the run"
            ) from error


def _trailers(candidate: Candidate, last: Verdict) -> dict[str, str]:
    """Say in a commit who proposed a program and what it was found to do."""
    trailers = {
        "Proposer": candidate.proposal.proposer,
        "Verdict": f"{last.decision} ({last.stage}: {last.reason})",
    }
    # How far ahead it was after a few steps is no effect of a program.
    measured = [
        v for v in candidate.verdicts if v.effect_bpb is not None and v.stage != Stage.SMOKE
    ]
    against_seed = [v for v in measured if v.stage == Stage.BASELINE]
    if measured:
        shown = (against_seed or measured)[-1]
        trailers["Effect-Bpb"] = f"{shown.effect_bpb:+.5f}"
        trailers["Effect-Pairs"] = str(shown.pairs)
        trailers["Effect-Against"] = (shown.reference_id or "")[:12]
    return trailers
