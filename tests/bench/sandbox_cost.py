"""What the sandbox adds: to a candidate, to a step, and to the machine's memory."""

from __future__ import annotations

import asyncio
import contextlib
import mmap
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import torch

from nanochat.allocator import keep_freed_memory
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState
from nanochat.loop import InProcess, train
from sandbox.baseline import seed_program
from sandbox.evaluator import WarmModel
from sandbox.executor import LocalPool
from sandbox.jailed import JailedOptimizer, ParameterLayout, jail_order
from sandbox.jobs import Job, Limits, Split, WorkerSpec
from sandbox.preflight import preflight
from sandbox.zygote_process import Zygote, memory_file
from tests.bench.figures import Figure, spread

__all__ = ["candidate_overhead", "step_overhead", "worker_memory"]

_REPEATS = 25
_SHORT_STEPS = 8
_STEP_REPEATS = 100
_WARM_UP = 5
_SCOPES = frozenset({"policy", "muon", "schedule"})
_OVERHEAD_REACH_MS = 60.0
_STEP_REACH = 1.05
_MEMORY_REACH_MB = 700.0


def _load(source: str) -> ModuleType:
    module = ModuleType("bench_candidate")
    sys.modules[module.__name__] = module  # dataclasses look their module up by name
    exec(compile(source, "optim.py", "exec"), module.__dict__)  # noqa: S102 - our own optimizer
    return module


def candidate_overhead(profile: str) -> Figure:
    """Time a short job through preflight, pool and jail against the same run in this process."""
    return asyncio.run(_candidate_overhead(profile))


async def _candidate_overhead(profile: str) -> Figure:
    torch.set_num_threads(1)
    keep_freed_memory()
    source = seed_program(profile)
    spec = WorkerSpec(profile=profile)
    warm = WarmModel(spec)
    beyond_ms = []
    async with LocalPool(spec, workers=1) as pool:
        for repeat in range(_REPEATS + 1):
            in_process_s = _train_in_process(warm, source)
            # A changed candidate each time, so that nothing can be kept from the last one.
            candidate = source.replace("# EVOLVE-BLOCK-END", f"# {repeat}\n# EVOLVE-BLOCK-END", 1)
            started = time.perf_counter()
            preflight(candidate, source, _SCOPES)
            await pool.run(Job(source=candidate, seed=1, steps=_SHORT_STEPS))
            beyond_ms.append((time.perf_counter() - started - in_process_s) * 1e3)
    samples = beyond_ms[1:]  # the first one warms up both sides
    return Figure(
        what=f"ready candidate to verdict, beyond training compute ({profile})",
        reach=f"<= {_OVERHEAD_REACH_MS:.0f} ms",
        measured=spread(samples, " ms"),
        met=statistics.median(samples) <= _OVERHEAD_REACH_MS,
    )


def _train_in_process(warm: WarmModel, source: str) -> float:
    """Return the seconds the same training and validation take without any sandbox."""
    module = _load(source)
    warm.initialise(1)
    horizon = Horizon(
        total_steps=_SHORT_STEPS,
        tokens_per_step=warm.profile.tokens_per_step,
        model_width=warm.profile.width,
    )
    started = time.perf_counter()
    service = InProcess(module.build_optimizer(warm.infos, horizon))
    train(warm.model, warm.batches(1), service, steps=_SHORT_STEPS)
    service.enter_eval()
    warm.validate(Split.SEARCH)
    return time.perf_counter() - started


def step_overhead(role: Role, label: str) -> Figure:
    """Time optimizer steps on 1 M parameters, in a jail and in this process, in turns."""
    torch.set_num_threads(1)
    keep_freed_memory()
    zygote = Zygote()
    try:
        with _two_ways(zygote, role) as (jailed, in_process):
            for number in range(_WARM_UP):
                jailed(number)
                in_process(number)
            ratios, jailed_ms = [], []
            for number in range(_WARM_UP, _WARM_UP + _STEP_REPEATS):
                inside = _timed(in_process, number)
                outside = _timed(jailed, number)
                jailed_ms.append(outside * 1e3)
                ratios.append(outside / inside)
    finally:
        zygote.close()
    return Figure(
        what=f"jailed step / in-process step, 1 M parameters, {label}",
        reach=f"<= {_STEP_REACH}",
        measured=f"{spread(ratios, digits=2)}, jailed {statistics.median(jailed_ms):.1f} ms",
        met=statistics.median(ratios) <= _STEP_REACH,
    )


def _timed(action: Callable[[int], None], number: int) -> float:
    started = time.perf_counter()
    action(number)
    return time.perf_counter() - started


@contextlib.contextmanager
def _two_ways(
    zygote: Zygote, role: Role
) -> Iterator[tuple[Callable[[int], None], Callable[[int], None]]]:
    """Set up the same four 512 x 512 parameters twice: shared with a jail, and private."""
    side, count = 512, 4
    elements = side * side * count
    steps = _WARM_UP + _STEP_REPEATS
    source = seed_program("cpu")
    maps = [memory_file(name, bytes(4 * elements)) for name in ("params", "grads")]
    shared = [torch.frombuffer(mmap.mmap(fd, 4 * elements), dtype=torch.float32) for fd in maps]
    own = [torch.zeros(elements) for _ in range(2)]
    generator = torch.Generator().manual_seed(0)
    for index in range(2):
        own[index].normal_(generator=generator)
        shared[index].copy_(own[index])
    infos = []
    for index in range(count):
        part = slice(index * side * side, (index + 1) * side * side)
        tensor = torch.nn.Parameter(own[0][part].view(side, side))
        tensor.grad = own[1][part].view(side, side)
        infos.append(ParamInfo(tensor=tensor, name=f"w{index}", role=role, layer=index))
    horizon = {"total_steps": steps, "tokens_per_step": 1024, "model_width": side}
    order = jail_order(
        source=source,
        source_name="optim.py",
        layout=ParameterLayout(
            params=[
                {
                    "name": info.name,
                    "role": role.value,
                    "layer": info.layer,
                    "shape": [side, side],
                    "offset": index * side * side,
                }
                for index, info in enumerate(infos)
            ],
            elements=elements,
        ),
        horizon=horizon,
        limits=Limits(),
    )
    jailed = JailedOptimizer(zygote.fork(order, maps[0], maps[1]), Limits())
    in_process = InProcess(_load(source).build_optimizer(infos, Horizon(**horizon)))
    jailed.build()

    def state(number: int) -> TrainingState:
        return TrainingState(step=number, total_steps=steps, loss=2.0, tokens=1024)

    try:
        yield lambda n: jailed.step(state(n)), lambda n: in_process.step(state(n))
    finally:
        jailed.end()
        for fd in maps:
            os.close(fd)


def worker_memory(profile: str) -> Figure:
    """Watch the memory of a worker, its zygote and its jail during a training run."""
    peak_mb = asyncio.run(_peak_memory_mb(profile))
    return Figure(
        what=f"memory of a worker with its jail ({profile}, proportional set size)",
        reach=f"<= {_MEMORY_REACH_MB:.0f} MB",
        measured=f"{peak_mb:.0f} MB",
        met=peak_mb <= _MEMORY_REACH_MB,
    )


async def _peak_memory_mb(profile: str) -> float:
    peak_kb = 0
    async with LocalPool(WorkerSpec(profile=profile), workers=1) as pool:
        job = Job(source=seed_program(profile), seed=1, steps=pool.ready.steps // 4)
        async with asyncio.TaskGroup() as group:
            run = group.create_task(pool.run(job))
            while not run.done():
                peak_kb = max(peak_kb, sum(map(_pss_kb, _descendants(os.getpid()))))
                await asyncio.sleep(0.05)
    return peak_kb / 1024


def _descendants(pid: int) -> list[int]:
    found = [pid]
    for parent in found:
        with contextlib.suppress(OSError):  # ended meanwhile
            for task in Path(f"/proc/{parent}/task").iterdir():
                found += map(int, (task / "children").read_text().split())
    return found[1:]


def _pss_kb(pid: int) -> int:
    with contextlib.suppress(OSError):  # ended meanwhile
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    return 0
