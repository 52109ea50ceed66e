"""Run searches on a fake pool and write down what their lineages hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from agent.controller import Ending
from agent.session import SessionParts, create_run, open_session
from agent.settings import Settings
from db.store import Store
from tests.agent.fakes import READY


async def search(folder: Path, settings: Settings, parts: SessionParts) -> Ending:
    """Start a new run in `folder` and search until it ends."""
    with create_run(folder, settings, READY, parts.clock) as store:
        return await go_on(store, folder, settings, parts)


async def resume(folder: Path, settings: Settings, parts: SessionParts) -> Ending:
    """Go on with the run in `folder` on what is left of its budget, or on a new one."""
    with Store.open(folder) as store:
        return await go_on(store, folder, settings, parts)


async def go_on(store: Store, folder: Path, settings: Settings, parts: SessionParts) -> Ending:
    with open_session(store, folder, settings, parts) as session:
        return await session.search(settings.workers)


def lineage_of(folder: Path) -> dict[str, list[Any]]:
    """Return everything a lineage says, but for when and how long."""
    with Store.open(folder, exclusive=False) as store:
        return {
            "programs": [(p.ordinal, p.id) for p in store.programs()],
            "proposals": [
                (p.ordinal, p.status, p.reason, p.parents, p.patch) for p in store.proposals()
            ],
            "evaluations": [
                (e.program_id, e.stage, e.steps, e.horizon, e.gradients, e.seed, e.status, e.bpb)
                for e in store.evaluations()
            ],
            "verdicts": [
                (
                    *(v.program_id, v.stage, v.decision, v.reason, v.reference_id, v.effect_bpb),
                    *(v.seeds, v.log_e, v.stopped, v.is_sample),
                )
                for v in store.verdicts()
            ],
            "committed": [store.commit_of(p.id) is not None for p in store.programs()],
        }
