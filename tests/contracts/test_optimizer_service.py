"""Every optimizer service keeps the promises of `nanochat.loop.OptimizerService`."""

from __future__ import annotations

import contextlib
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

import nanochat.optim
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState
from nanochat.loop import InProcess, OptimizerService
from sandbox.jailed import JailedOptimizer, ParameterLayout, jail_order
from sandbox.jobs import Limits
from sandbox.mirror import MirroredService
from sandbox.zygote_process import Zygote, memory_file

SIDE, COUNT, STEPS = 16, 3, 60
ELEMENTS = SIDE * SIDE * COUNT
HORIZON = {"total_steps": STEPS, "tokens_per_step": 64, "model_width": SIDE}
# The tail average makes the weights to validate with differ from those to train with.
SOURCE = (
    Path(nanochat.optim.__file__)
    .read_text(encoding="utf-8")
    .replace("tail_ema_horizon=0", "tail_ema_horizon=5")
)


@dataclass(frozen=True, slots=True)
class Rig:
    """A service with the flat tensors it works on, as the training loop sees them."""

    service: OptimizerService
    params: torch.Tensor
    grads: torch.Tensor

    def train(self, steps: int) -> None:
        generator = torch.Generator().manual_seed(1)
        for step in range(steps):
            self.grads.copy_(torch.randn(ELEMENTS, generator=generator))
            self.service.step(
                TrainingState(step=step, total_steps=STEPS, loss=2.0, tokens=64 * (step + 1))
            )


def _start_values() -> torch.Tensor:
    return torch.randn(ELEMENTS, generator=torch.Generator().manual_seed(0))


@contextlib.contextmanager
def _in_process(_: Zygote) -> Iterator[Rig]:
    params, grads = _start_values(), torch.zeros(ELEMENTS)
    infos = []
    for index in range(COUNT):
        part = slice(index * SIDE * SIDE, (index + 1) * SIDE * SIDE)
        tensor = torch.nn.Parameter(params[part].view(SIDE, SIDE))
        tensor.grad = grads[part].view(SIDE, SIDE)
        infos.append(ParamInfo(tensor=tensor, name=f"w{index}", role=Role.MATRIX, layer=index))
    module = ModuleType("contract_candidate")
    sys.modules[module.__name__] = module
    exec(compile(SOURCE, "optim.py", "exec"), module.__dict__)  # noqa: S102 - our own optimizer
    yield Rig(InProcess(module.build_optimizer(infos, Horizon(**HORIZON))), params, grads)
    del sys.modules[module.__name__]


@contextlib.contextmanager
def _jailed(zygote: Zygote) -> Iterator[Rig]:
    fds = [memory_file(name, bytes(4 * ELEMENTS)) for name in ("params", "grads")]
    params, grads = (
        torch.frombuffer(mmap.mmap(fd, 4 * ELEMENTS), dtype=torch.float32) for fd in fds
    )
    params.copy_(_start_values())
    order = jail_order(
        source=SOURCE,
        source_name="optim.py",
        layout=ParameterLayout(
            params=[
                {
                    "name": f"w{index}",
                    "role": "matrix",
                    "layer": index,
                    "shape": [SIDE, SIDE],
                    "offset": index * SIDE * SIDE,
                }
                for index in range(COUNT)
            ],
            elements=ELEMENTS,
        ),
        horizon=HORIZON,
        limits=Limits(),
    )
    jailed = JailedOptimizer(zygote.fork(order, fds[0], fds[1]), Limits())
    jailed.build()
    try:
        yield Rig(jailed, params, grads)
    finally:
        jailed.end()
        for fd in fds:
            os.close(fd)


@contextlib.contextmanager
def _mirrored(zygote: Zygote) -> Iterator[Rig]:
    with _jailed(zygote) as inner:
        params, grads = _start_values(), torch.zeros(ELEMENTS)
        service = MirroredService(
            inner.service,
            params=params,
            grads=grads,
            shared_params=inner.params,
            shared_grads=inner.grads,
        )
        yield Rig(service, params, grads)


MAKERS: dict[str, Callable[[Zygote], AbstractContextManager[Rig]]] = {
    "in process": _in_process,
    "jailed": _jailed,
    "mirrored": _mirrored,
}


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    zygote = Zygote()
    yield zygote
    zygote.close()


@pytest.fixture(params=list(MAKERS))
def rig(request: pytest.FixtureRequest, zygote: Zygote) -> Iterator[Rig]:
    with MAKERS[request.param](zygote) as rig:
        yield rig


def test_when_step_returns_the_parameters_are_updated(rig: Rig) -> None:
    before = rig.params.clone()

    rig.train(1)

    assert not torch.equal(before, rig.params)
    assert bool(rig.params.isfinite().all())


def test_eval_weights_differ_and_leaving_restores_every_bit(rig: Rig) -> None:
    rig.train(10)
    training = rig.params.clone()

    rig.service.enter_eval()
    validating = rig.params.clone()
    rig.service.leave_eval()

    assert not torch.equal(training, validating)
    assert torch.equal(training, rig.params)


def test_training_goes_on_after_validation(rig: Rig) -> None:
    rig.train(3)
    rig.service.enter_eval()
    rig.service.leave_eval()
    before = rig.params.clone()

    rig.train(1)

    assert not torch.equal(before, rig.params)


def test_every_implementation_computes_the_same_bits(zygote: Zygote) -> None:
    results = []
    for make in MAKERS.values():
        with make(zygote) as rig:
            rig.train(STEPS)
            results.append(rig.params.clone())

    assert all(torch.equal(results[0], other) for other in results[1:])
