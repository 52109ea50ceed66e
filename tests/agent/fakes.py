"""A small optimizer file, a pool that scores it without training, and a proposer that edits it."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import io
import math
import os
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from agent.proposals import Brief, NothingToPropose, ProposedPatch
from agent.session import SessionParts
from agent.settings import Settings, load_settings
from sandbox.executor import Running
from sandbox.jobs import Evidence, Gradients, Job, Outcome, Status, WorkerReady
from sandbox.knobs import read_knobs, set_knobs
from sandbox.patches import make_patch

STEPS = 40
UNTRAINED_BPB = 8.0

SEED_SOURCE = '''"""A small optimizer."""

import torch

from nanochat.contract import Bounds, Knobs

BOUNDS = {"MUON.lr": Bounds(1e-4, 0.5, "log"), "MUON.weight_decay": Bounds(0.0, 1.0)}
FAMILIES = {"_lr": Bounds(1e-5, 10.0, "log")}

# EVOLVE-BLOCK-START muon
MUON = Knobs(
    lr=0.02,
    weight_decay=0.1,
)
# EVOLVE-BLOCK-END


class Optimizer(torch.optim.Optimizer):
    """Plain gradient descent."""

    def observe(self, state):
        """Take note of the training state."""
        self.state_now = state

    def step(self):
        """Update all parameters."""
        for group in self.param_groups:
            for tensor in group["params"]:
                tensor.data.add_(tensor.grad, alpha=-MUON.lr)


def build_optimizer(params, horizon):
    """Return the optimizer."""
    return Optimizer([p.tensor for p in params], {"lr": MUON.lr})
'''

READY = WorkerReady(
    profile="micro",
    steps=STEPS,
    tokens_per_step=128,
    parameters=1000,
    corpus="fake",
    corpus_digest="0" * 64,
    validation_bytes=8192,
    sandbox_level=2,
    capabilities=("no_net",),
    compile=False,
    device="cpu",
    versions={"torch": "0"},
)


def clock() -> Callable[[], datetime]:
    """Return a clock that advances by a second whenever it is read."""
    start = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    ticks = iter(range(10**9))
    return lambda: start + timedelta(seconds=next(ticks))


def noise(*labels: object) -> float:
    """Return a standard normal number that depends on the labels only."""
    text = "/".join(map(str, labels))
    return random.Random(hashlib.sha256(text.encode()).hexdigest()).gauss(0.0, 1.0)  # noqa: S311 - noise, not cryptography


def quality(source: str) -> float:
    """Return the true score of a program: best where the learning rate is 0.1."""
    return 2.0 + 0.03 * abs(math.log(float(read_knobs(source)["MUON.lr"].value) / 0.1))


def outcome(status: Status = Status.OK, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "status": status,
        "reason": "",
        "bpb": None,
        "curve": (),
        "fingerprint": None,
        "jail_cpu_s": 0.01,
        "wall_s": 0.1,
        "sandbox_level": 2,
    }
    return Outcome(**(fields | changes))


def scored(job: Job) -> Outcome:
    """Score like a training run would: quality, a part common to all programs, a part of its own.

    The weight decay does nothing, so programs that differ in it alone behave the same.
    """
    lr = float(read_knobs(job.source)["MUON.lr"].value)
    if lr > 0.4:
        return outcome(Status.DIVERGED, reason="the loss grew to 9.0 at step 3", line=14)
    if job.gradients is not Gradients.TRUE:
        return outcome(bpb=UNTRAINED_BPB, fingerprint=job.gradients, evidence=evidence(job))
    common = 0.02 * noise("common", job.seed)
    own = 0.002 * noise("own", lr, job.seed)
    bpb = quality(job.source) + common + own + 1.0 / job.steps
    return outcome(bpb=bpb, fingerprint=f"{lr}/{job.seed}/{job.steps}", evidence=evidence(job))


def evidence(job: Job, *labels: object, size: int = 32) -> Evidence | None:
    """Let two parameters move as an honest program would: by the gradients, nowhere without them.

    Args:
        job: what was asked for.
        labels: on what else the movement depends.
        size: how many elements the parameters have, up to that of a sketch.
    """
    if not job.evidence:
        return None
    moved = 0.0 if job.gradients is Gradients.ZERO else 1.0
    movement = tuple(
        (
            name,
            tuple(moved * noise(name, job.seed, job.gradients, *labels, i) for i in range(size)),
        )
        for name in ("wte", "lm_head")
    )
    return Evidence(untrained_bpb=UNTRAINED_BPB, movement=movement)


class FakePool:
    """An `EvaluatorPool` that computes scores instead of training.

    Args:
        score: what a job comes to.

    Attributes:
        jobs: all jobs so far.
        before_job: called with the number of earlier jobs; may raise.
        facts: changes to what the workers report.
    """

    def __init__(self, score: Callable[[Job], Outcome] = scored) -> None:
        self.jobs: list[Job] = []
        self.before_job: Callable[[int], None] = lambda _: None
        self.facts: dict[str, Any] = {}
        self._score = score

    @property
    def ready(self) -> WorkerReady:
        return replace(READY, **self.facts)

    def running(self) -> Sequence[Running]:
        return ()

    async def run(self, job: Job) -> Outcome:
        self.before_job(len(self.jobs))
        self.jobs.append(job)
        await asyncio.sleep(0)
        return self._score(job)


class KnobProposer:
    """Proposes new learning rates; at times one out of bounds, a known one, or nothing."""

    name = "knobs"

    async def propose(self, brief: Brief) -> ProposedPatch:
        source, dice = brief.parent.source, brief.rng.random()
        if dice < 0.05:
            raise NothingToPropose("no idea")
        if dice < 0.15:
            new = set_knobs(source, {"MUON.weight_decay": round(brief.rng.random(), 2)})
        elif dice < 0.25:
            new = source.replace("weight_decay=0.1", "weight_decay=7.0")
        elif dice < 0.35:
            new = source.replace("MUON = Knobs(", "MUON = Knobs(  # the same")
        else:
            lr = float(read_knobs(source)["MUON.lr"].value) * math.exp(brief.rng.gauss(0.2, 0.5))
            new = set_knobs(source, {"MUON.lr": round(min(lr, 0.5), 4)})
        return ProposedPatch(
            patch=make_patch(source, new),
            description=f"idea {brief.ordinal}",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


class ScriptedProposer:
    """Proposes the learning rate given for each ordinal, from 1; nothing after the last."""

    name = "script"

    def __init__(self, *rates: float) -> None:
        self._rates = rates

    async def propose(self, brief: Brief) -> ProposedPatch:
        if brief.ordinal > len(self._rates):
            raise NothingToPropose("the script is over")
        rate, source = self._rates[brief.ordinal - 1], brief.parent.source
        return ProposedPatch(
            patch=make_patch(source, re.sub(r"lr=[0-9.]+", f"lr={rate}", source)),
            description=f"lr {rate}",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


class FullStream(io.StringIO):
    """A stream to a full disk."""

    def write(self, _text: str) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def settings(**values: Any) -> Settings:
    """Return settings for the micro profile with one worker."""
    return load_settings({"profile": "micro", "workers": 1, "seed": 1} | values)


def parts(pool: FakePool, proposer: Any = None) -> SessionParts:
    return SessionParts(
        pool=pool,
        proposer=proposer or KnobProposer(),
        seed_source=SEED_SOURCE,
        clock=clock(),
    )


class StartingPool(FakePool):
    """A fake pool that is started and closed like a `LocalPool`."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        pass
