"""Making candidates: what becomes of patches that preflight refuses or cannot look at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from agent.controller import EndingKind
from agent.proposals import Brief, ProposedPatch
from agent.session import create_run, open_session
from sandbox.patches import Block, Patch, to_json
from tests.agent.fakes import SEED_SOURCE, FakePool, clock, parts, settings

HUGE = Patch((Block("lr=0.02", "x" * 1_000_000),))
HOSTILE = Patch((Block("MUON = Knobs(", "\x1b[31m" + "(" * 10_000),))


class OnePatch:
    """Proposes the same patch again and again."""

    name = "one"

    def __init__(self, patch: Patch) -> None:
        self._patch = patch

    async def propose(self, brief: Brief) -> ProposedPatch:
        return ProposedPatch(
            patch=self._patch,
            description="the same",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


async def search(folder: Path, patch: Patch) -> tuple[EndingKind, str, list[tuple[str, str, str]]]:
    """Search with one patch; return how it ended and what became of the proposals."""
    pool, asked = FakePool(), settings(budget_evals=40)
    with (
        create_run(folder, asked, pool.ready, clock()) as store,
        open_session(store, folder, asked, parts(pool, OnePatch(patch))) as session,
    ):
        ending = await session.search(1)
        stored = [(p.status, p.reason, p.patch) for p in store.proposals() if p.ordinal > 0]
    return ending.kind, ending.message, stored


async def test_a_patch_that_is_too_large_is_refused_and_not_stored(tmp_path: Path) -> None:
    kind, _, stored = await search(tmp_path / "run", HUGE)

    assert kind is EndingKind.EXHAUSTED
    status, reason, patch = stored[0]
    assert status == "preflight_reject"
    assert reason == (
        "patch: the patch has 1000007 characters, at most 524288; "
        "quote only the lines that change and a few around them"
    )
    assert patch == to_json(Patch(()))


async def test_a_hostile_text_is_refused_with_a_reason_that_can_be_printed(tmp_path: Path) -> None:
    _, _, stored = await search(tmp_path / "run", HOSTILE)

    status, reason, patch = stored[0]
    assert status == "preflight_reject"
    assert reason.startswith("characters: line ")
    assert reason.isprintable()
    assert patch == to_json(HOSTILE)


async def test_without_its_process_the_run_pauses_and_no_proposal_is_blamed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")

    kind, message, stored = await search(tmp_path / "run", Patch((Block("lr=0.02", "lr=0.03"),)))

    assert "lr=0.02" in SEED_SOURCE
    assert kind is EndingKind.PAUSED
    assert message.startswith("the preflight process does not start: exit code 1")
    assert stored == []
