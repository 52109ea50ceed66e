"""Training throughput of the full model, and where the time goes."""

from __future__ import annotations

import statistics
import time

import torch

from nanochat.allocator import keep_freed_memory
from nanochat.contract import Horizon
from nanochat.loop import ForwardBackward, InProcess, compile_model, eager_model, train
from nanochat.throughput import measure_peak_flops, model_flops_utilisation
from sandbox.baseline import seed_program
from sandbox.evaluator import WarmModel
from sandbox.jobs import WorkerSpec
from tests.bench.figures import Figure, spread
from tests.bench.sandbox_cost import _load

__all__ = ["throughput"]

_BLOCKS = 9
_BLOCK_STEPS = 40
_REACH = {"eager": 45_000, "compiled": 60_000}


def throughput() -> list[Figure]:
    """Train blocks of steps, eager and compiled in turns, in this process on one thread."""
    torch.set_num_threads(1)
    keep_freed_memory()
    warm = WarmModel(WorkerSpec(profile="cpu"))
    ways = {"eager": eager_model(warm.model), "compiled": compile_model(warm.model)}
    samples: dict[str, list[float]] = {name: [] for name in ways}
    for way in ways.values():
        _block_s(warm, way)
    peaks = []
    for _ in range(_BLOCKS):
        peaks.append(measure_peak_flops(torch.device("cpu"), torch.float32))
        for name, way in ways.items():
            tokens = _BLOCK_STEPS * warm.profile.tokens_per_step
            samples[name].append(tokens / _block_s(warm, way))
    return [_figure(name, samples[name], peaks, warm) for name in ways] + _shares(warm)


def _block_s(warm: WarmModel, way: ForwardBackward) -> float:
    warm.initialise(1)
    horizon = Horizon(
        total_steps=_BLOCK_STEPS,
        tokens_per_step=warm.profile.tokens_per_step,
        model_width=warm.profile.width,
    )
    service = InProcess(_load(seed_program("cpu")).build_optimizer(warm.infos, horizon))
    batches = warm.batches(1)
    started = time.perf_counter()
    train(warm.model, batches, service, steps=_BLOCK_STEPS, forward_backward=way)
    return time.perf_counter() - started


def _figure(name: str, tokens_per_s: list[float], peaks: list[float], warm: WarmModel) -> Figure:
    median = statistics.median(tokens_per_s)
    peak = statistics.median(peaks)
    share = model_flops_utilisation(warm.model.flops_per_token(), median, peak)
    thousands = [sample / 1e3 for sample in tokens_per_s]
    return Figure(
        what=f"training throughput, 2 x 64, T 128, B 8, one thread, {name}",
        reach=f"{_REACH[name] / 1e3:.0f}k tok/s",
        measured=f"{spread(thousands, 'k tok/s')}, MFU {share:.0%} of {peak / 1e9:.0f} GFLOP/s",
        met=median >= _REACH[name],
    )


def _shares(warm: WarmModel) -> list[Figure]:
    """Split an eager step into its parts."""
    warm.initialise(1)
    steps = _BLOCKS * _BLOCK_STEPS
    horizon = Horizon(
        total_steps=steps,
        tokens_per_step=warm.profile.tokens_per_step,
        model_width=warm.profile.width,
    )
    spent = {"batch": 0.0, "forward": 0.0, "backward": 0.0, "optimizer": 0.0}
    service = _TimedService(
        InProcess(_load(seed_program("cpu")).build_optimizer(warm.infos, horizon))
    )
    batches = warm.batches(1)

    def forward_backward(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        loss: torch.Tensor = warm.model(x, y)
        middle = time.perf_counter()
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        spent["forward"] += middle - started
        spent["backward"] += time.perf_counter() - middle
        return loss.detach()

    started = time.perf_counter()
    train(warm.model, batches, service, steps=steps, forward_backward=forward_backward)
    total = time.perf_counter() - started
    spent["optimizer"] = service.spent_s
    spent["batch"] = total - sum(spent.values())
    parts = ", ".join(f"{name} {part / total:.0%}" for name, part in spent.items())
    return [
        Figure(
            what="where an eager step goes (batch: with zeroing and checks)",
            reach="-",
            measured=f"{parts} of {total / steps * 1e3:.1f} ms",
            met=None,
        )
    ]


class _TimedService:
    """Adds up the time an optimizer service takes."""

    def __init__(self, inner: InProcess) -> None:
        self._inner = inner
        self.spent_s = 0.0
        self.enter_eval = inner.enter_eval
        self.leave_eval = inner.leave_eval

    def step(self, state: object) -> None:
        started = time.perf_counter()
        self._inner.step(state)  # type: ignore[arg-type]  # handed through unseen
        self.spent_s += time.perf_counter() - started
