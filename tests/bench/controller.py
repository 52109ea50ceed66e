"""What the controller itself costs per candidate, as the database grows.

The pool answers at once and the proposer makes up a learning rate, so what remains is choosing
parents, patching, preflight, deciding, and writing everything to SQL and git. Every candidate is
raced and loses at the first look: four training runs each.

    python -m tests.bench controller
"""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from agent.proposals import Brief, ProposedPatch
from agent.session import (
    Session,
    SessionParts,
    create_run,
    open_session,
    rare_garbage_collections,
)
from agent.settings import load_settings
from sandbox.baseline import seed_program
from sandbox.executor import Running
from sandbox.jobs import Job, Outcome, Status, WorkerReady
from sandbox.knobs import read_knobs
from sandbox.patches import Block, Patch
from tests.bench.figures import Figure, spread

__all__ = ["controller_cost", "measure"]

SIZES = (100, 10_000)
WINDOW = 100  # candidates timed at each size
REACH_MS = 5.0
RUNS_EACH = 5  # smoke, screen, two pairs, and the share of a season's new reference runs
STEPS = 400

READY = WorkerReady(
    profile="cpu",
    steps=STEPS,
    tokens_per_step=1024,
    parameters=150_000,
    corpus="null",
    corpus_digest="0" * 64,
    validation_bytes=200_000,
    sandbox_level=2,
    capabilities=(),
    compile=False,
    device="cpu",
    versions={},
)


class NullPool:
    """Answers at once: the seed program scores 2, every other program a little worse."""

    def __init__(self, seed_source: str) -> None:
        self._seed_source = seed_source

    @property
    def ready(self) -> WorkerReady:
        """What workers would report."""
        return READY

    def running(self) -> Sequence[Running]:
        """Nothing ever takes time."""
        return ()

    async def run(self, job: Job) -> Outcome:
        """Score without training."""
        digest = hashlib.sha256(f"{job.seed}/{job.source}".encode()).digest()
        worse = 0.0 if job.source == self._seed_source else 0.001 + digest[0] / 1e5
        return Outcome(
            status=Status.OK,
            reason="",
            bpb=2.0 + worse,
            curve=tuple((step, 3.0) for step in range(0, job.steps, 10)),
            fingerprint=digest.hex(),
        )


class NullProposer:
    """Proposes another learning rate, never the same twice."""

    name = "null"

    async def propose(self, brief: Brief) -> ProposedPatch:
        """Replace the line of the learning rate."""
        line = read_knobs(brief.parent.source)["MUON.lr"].line
        lines = brief.parent.source.splitlines(keepends=True)
        before, old = lines[line - 2], lines[line - 1]
        new = f"    lr={0.01 + brief.ordinal * 1e-5:.5f},\n"
        return ProposedPatch(
            patch=Patch((Block(before + old, before + new),)),
            description="null",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


def controller_cost() -> list[Figure]:
    """Time a candidate at 100 and at 10,000 programs in one search."""
    figures = []
    for programs, samples_ms in measure(SIZES).items():
        figure = Figure(
            what=f"controller, null evaluator, per candidate at {programs} programs",
            reach=f"<= {REACH_MS:g} ms",
            measured=spread(samples_ms, " ms"),
            met=statistics.median(samples_ms) <= REACH_MS,
        )
        figures.append(figure)
    return figures


def measure(sizes: Sequence[int]) -> Mapping[int, Sequence[float]]:
    """Search until there are as many programs as the largest size.

    Returns:
        For each size the wall time, in milliseconds, of the candidates that led up to it.
    """
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(_measure(Path(folder) / "run", sizes))


async def _measure(folder: Path, sizes: Sequence[int]) -> Mapping[int, Sequence[float]]:
    source = seed_program("cpu")
    settings = load_settings({"workers": 1, "budget_evals": (max(sizes) + 2) * RUNS_EACH})
    parts = SessionParts(
        pool=NullPool(source), proposer=NullProposer(), seed_source=source, clock=_now
    )
    with (
        rare_garbage_collections(),
        create_run(folder, settings, READY, _now) as store,
        open_session(store, folder, settings, parts) as session,
    ):
        marks = await _marks(session)
    took_ms = [(after - before) * 1e3 for before, after in itertools.pairwise(marks)]
    return {size: took_ms[max(0, size - WINDOW) : size] for size in sizes}


async def _marks(session: Session) -> list[float]:
    """Search, noting the time whenever a candidate is done with."""
    marks: list[float] = []
    forget = session.evaluator.forget

    def noted(program_id: str) -> None:
        forget(program_id)
        marks.append(time.perf_counter())

    session.evaluator.forget = noted  # type: ignore[method-assign]  # a probe, nothing replaced
    await session.search(1)
    return marks


def _now() -> datetime:
    return datetime.now(UTC)
