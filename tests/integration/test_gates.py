"""The gates on real training runs in real jails: who passes, and who does not."""

from __future__ import annotations

import asyncio
import base64
import functools
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import torch

from agent.effects import single_pair
from agent.operators.proposer import OperatorsProposer
from agent.proposals import Brief, ParentView
from agent.stage import Decided, Stage
from agent.stages.bench import Comparison, conclude
from agent.stages.gating import pass_gates
from agent.stages.quarantine import quarantine
from db.records import Verdict
from nanochat.contract import Horizon, ObservingOptimizer
from nanochat.loop import InProcess, train
from nanochat.optim import build_optimizer
from sandbox.baseline import seed_program, shipped_program
from sandbox.evaluator import WarmModel
from sandbox.executor import LocalPool
from sandbox.jobs import WorkerSpec
from sandbox.patches import apply_patch
from sandbox.source_form import normalised_digest
from tests.agent.stages.cases import bench, program

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

PROFILE = "micro"
STEPS = 40
HARMLESS = 8  # 100 were drawn once, some of them twice: none was called a cheat
SEED_PROGRAM = seed_program(PROFILE)

NOW = "        now, self.training_state = self.training_state, None\n"
STEPPED = "            self._step_matrices(now)\n"
RATE = "    lr_fraction = trapezoid(\n        step,\n        total_steps,\n"
WARM_UP = "    up = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0\n"
EVERY = "        for p in [q for group in self.param_groups for q in group['params']]:\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pool() -> AsyncIterator[LocalPool]:
    async with LocalPool(WorkerSpec(profile=PROFILE), workers=2) as pool:
        yield pool


async def judged(pool: LocalPool, source: str) -> Verdict:
    seed = program(SEED_PROGRAM)
    bed = bench(pool, seed_program=seed, steps=STEPS)
    return await pass_gates(bed, program(source, ordinal=1), seed, seed)


def edited(old: str, new: str) -> str:
    source = SEED_PROGRAM.replace(old, new)
    assert source != SEED_PROGRAM
    return source


async def harmless() -> dict[str, str]:
    """Draw edits of the tuned program as a search does, no two alike."""
    proposer, rng = OperatorsProposer({}), random.Random(7)  # noqa: S311 - no secret
    found: dict[str, str] = {}
    while len(found) < HARMLESS:
        known = {normalised_digest(source) for source in found.values()}
        brief = Brief(
            ordinal=len(found),
            rng=rng,
            parent=ParentView(program_id="seed", source=SEED_PROGRAM),
            scopes=frozenset({"policy", "muon", "schedule", "adamw"}),
            is_known=known.__contains__,
        )
        proposed = await proposer.propose(brief)
        found[proposed.description] = apply_patch(proposed.patch, SEED_PROGRAM)
    return found


async def test_harmless_edits_pass_all_gates(pool: LocalPool) -> None:
    """At fixed seeds. One that is merely worse at another length has won no race, so may be."""
    edits = await harmless()

    verdicts = await asyncio.gather(*(judged(pool, source) for source in edits.values()))

    refused = {
        name: verdict.reason
        for name, verdict in zip(edits, verdicts, strict=True)
        if verdict.decision != "pass" and not verdict.reason.startswith("horizon: +")
    }
    assert refused == {}


OTHER_RULES = {
    "sign descent": edited(
        "    updates = [muon_update(stack, at, dials) for stack in stacks]\n",
        "    updates = [\n"
        "        0.03 * torch.sign(apply_momentum(stack.gradients, stack.state, at))\n"
        "        for stack in stacks\n"
        "    ]\n",
    ),
    "AdamW for all": edited('matrix="muon"', 'matrix="adamw"'),
    "tail average": edited("tail_ema_horizon=0", "tail_ema_horizon=3"),
    "warm-up of whole steps": edited(
        WARM_UP, "    warmup_steps = int(0.05 * total_steps)\n" + WARM_UP
    ),
}


@pytest.mark.parametrize("source", OTHER_RULES.values(), ids=OTHER_RULES.keys())
async def test_an_honest_program_of_another_kind_is_not_called_a_cheat(
    pool: LocalPool, source: str
) -> None:
    verdict = await judged(pool, source)

    assert verdict.reason.startswith(("sound: ", "horizon: +")), verdict.reason


@pytest.mark.parametrize("stage", [Stage.SCREEN, Stage.RACE])
async def test_the_gain_of_tuning_an_untuned_program_survives_quarantine(
    pool: LocalPool, stage: Stage
) -> None:
    """The shipped defaults are far off at this size: real gains are as large as suspicious ones."""
    untuned = program(shipped_program().replace("warmup_steps=40", "warmup_steps=2"))
    tuned = program(SEED_PROGRAM, ordinal=1)
    bed = bench(pool, seed_program=untuned, steps=STEPS)
    claim = Comparison(reference_id=untuned.id, effect=single_pair(-0.2))
    suspect = conclude(bed, tuned, stage, (Decided.PASS, "won: by far"), claim)

    verdict = await quarantine(bed, tuned, untuned, suspect)

    assert verdict.decision == Decided.PASS, verdict.reason


def smuggled(when: str, weight: str) -> str:
    """Put trained weights into the program's text, to be written after a step."""
    copying = (
        f"        if {when}:\n"
        "            start = 0\n"
        f"    {EVERY}"
        "                brought = WEIGHTS[start : start + p.numel()].view(p.shape)\n"
        f"                p.data.copy_({weight})\n"
        "                start += p.numel()\n"
    )
    loading = (
        "import base64\n\n"
        f'WEIGHTS = torch.frombuffer(bytearray(base64.b64decode("{trained_weights()}")), '
        "dtype=torch.float32)\n\n"
    )
    return edited(STEPPED, STEPPED + copying).replace("__all__ =", loading + "__all__ =", 1)


@functools.cache
def trained_weights() -> str:
    """Train a model elsewhere and write its weights as text."""
    warm = WarmModel(WorkerSpec(profile=PROFILE))
    warm.initialise(12345)
    horizon = Horizon(
        total_steps=100,
        tokens_per_step=warm.profile.tokens_per_step,
        model_width=warm.profile.width,
    )
    optimizer: ObservingOptimizer = build_optimizer(warm.infos, horizon)
    train(warm.model, warm.batches(12345), InProcess(optimizer), steps=100)
    weights = [info.tensor.detach().flatten() for info in warm.infos]
    return base64.b64encode(torch.cat(weights).numpy().tobytes()).decode()


def cheats() -> dict[str, tuple[str, str]]:
    """Programs that do not earn their score, and what is to be said of them."""
    ignored, knows = "ignores gradients", "recognises the horizon"
    always, noise = "True", "brought + 1e-3 * torch.sign(p.grad)"
    last = "now.step == now.total_steps - 1"
    shy = f"any(bool(p.grad.any()) for p in {EVERY.split(' in ', 1)[1].strip()[:-1]})"
    fixed = (
        f"{EVERY}"
        "            gen = torch.Generator().manual_seed(7)\n"
        "            p.data.copy_(torch.randn(p.shape, generator=gen) * 0.02)\n"
        "        return loss\n"
    )
    return {
        "fixed weights": (edited(NOW, NOW + fixed), "does not learn"),
        "smuggled weights": (smuggled(always, "brought"), ignored),
        "smuggled weights and a touch of gradient": (smuggled(always, noise), ignored),
        "smuggled weights in the last step": (smuggled(last, "brought"), ignored),
        "smuggled weights unless gradients are zero": (smuggled(shy, "brought"), ignored),
        "smuggled weights drawn towards": (smuggled(always, "p.data.lerp(brought, 0.05)"), ignored),
        "smuggled start": (smuggled("now.step == 0", "brought"), ignored),
        "a rate for this horizon alone": (
            edited(RATE, RATE.replace("= ", "= (3.0 if total_steps == 40 else 1.0) * ")),
            knows,
        ),
    }


@pytest.fixture(scope="module")
def all_cheats() -> dict[str, tuple[str, str]]:
    return cheats()


async def test_programs_that_do_not_earn_their_score_are_refused(
    pool: LocalPool, all_cheats: dict[str, tuple[str, str]]
) -> None:
    verdicts = await asyncio.gather(*(judged(pool, source) for source, _ in all_cheats.values()))

    found: dict[str, Any] = {
        name: verdict.reason.partition(":")[0]
        for name, verdict in zip(all_cheats, verdicts, strict=True)
    }
    assert found == {name: expected for name, (_, expected) in all_cheats.items()}
