"""How long a jail takes from the request to its first optimizer step done."""

from __future__ import annotations

import statistics
import time

import torch

from nanochat.allocator import keep_freed_memory
from nanochat.contract import TrainingState
from sandbox.baseline import seed_program
from sandbox.evaluator import WarmModel
from sandbox.jailed import JailedOptimizer, ParameterLayout, jail_order
from sandbox.jobs import Limits, WorkerSpec
from sandbox.probe import probe
from sandbox.zygote_process import Outer, Zygote
from tests.bench.figures import Figure, spread

__all__ = ["jail_start"]

_PROFILE = "cpu"
_REPEATS = 40
_WARM_UP = 3
_REACH_MS = {2: 40.0, 3: 80.0, 4: 80.0}


def jail_start() -> list[Figure]:
    """Time starts at level S2 and at the highest level of this machine, in turns."""
    torch.set_num_threads(1)
    keep_freed_memory()
    zygotes = [Zygote(Outer.NONE), Zygote()]
    try:
        levels = [probe(zygote).level for zygote in zygotes]
        warm = WarmModel(WorkerSpec(profile=_PROFILE))
        samples: list[list[float]] = [[], []]
        for repeat in range(_REPEATS + _WARM_UP):
            for zygote, found in zip(zygotes, samples, strict=True):
                start_ms = _start_ms(zygote, warm)
                if repeat >= _WARM_UP:
                    found.append(start_ms)
    finally:
        for zygote in zygotes:
            zygote.close()
    return [
        Figure(
            what=f"jail start, fork to first step done, level S{level} ({_PROFILE})",
            reach=f"<= {_REACH_MS[level]:.0f} ms",
            measured=spread(found, " ms"),
            met=statistics.median(found) <= _REACH_MS[level],
        )
        for level, found in zip(levels, samples, strict=True)
    ]


def _start_ms(zygote: Zygote, warm: WarmModel) -> float:
    warm.initialise(1)
    horizon = {
        "total_steps": warm.profile.steps,
        "tokens_per_step": warm.profile.tokens_per_step,
        "model_width": warm.profile.width,
    }
    order = jail_order(
        source=seed_program(_PROFILE),
        source_name="optim.py",
        layout=ParameterLayout(params=warm.param_fields(), elements=warm.elements),
        horizon=horizon,
        limits=Limits(),
    )
    started = time.perf_counter()
    jailed = JailedOptimizer(zygote.fork(order, warm.params_fd, warm.grads_fd), Limits())
    try:
        jailed.build()
        jailed.step(TrainingState(step=0, total_steps=warm.profile.steps, loss=5.0, tokens=1024))
        return (time.perf_counter() - started) * 1e3
    finally:
        jailed.end()
