"""A small jail to test with: one 32 x 32 parameter, an optimizer whose step is given as text."""

from __future__ import annotations

import contextlib
import mmap
import os
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from nanochat.contract import TrainingState
from sandbox.jailed import JailedOptimizer, ParameterLayout, jail_order
from sandbox.jobs import Limits
from sandbox.zygote_process import Zygote, memory_file

SIDE = 32
ELEMENTS = SIDE * SIDE
# Loose enough for a busy machine, tight enough for a test.
LIMITS = Limits(cpu_s=1.0, wall_s=20.0, memory_bytes=512 << 20)

_FILE = """
import torch

class Optimizer(torch.optim.SGD):
    def observe(self, state):
        self.seen = state

    def step(self):
{step}
        return super().step()

def build_optimizer(params, horizon):
    return Optimizer([p.tensor for p in params], lr=0.5)
"""


def optimizer_file(step: str) -> str:
    """Return an optimizer file whose `step` begins with the given statements."""
    return _FILE.format(step=textwrap.indent(textwrap.dedent(step), " " * 8))


@dataclass(frozen=True, slots=True)
class Rig:
    """A jailed optimizer with the trusted side's view of its maps."""

    optimizer: JailedOptimizer
    params: torch.Tensor
    grads: torch.Tensor

    def step(self, number: int = 0) -> None:
        """Have one step done."""
        self.optimizer.step(TrainingState(step=number, total_steps=10, loss=2.0, tokens=64))


@contextlib.contextmanager
def jailed(zygote: Zygote, source: str, limits: Limits = LIMITS) -> Iterator[Rig]:
    """Start a jail for `source`; it is gone when the context ends."""
    params_fd = memory_file("params", bytes(4 * ELEMENTS))
    grads_fd = memory_file("grads", bytes(4 * ELEMENTS))
    params = torch.frombuffer(mmap.mmap(params_fd, 4 * ELEMENTS), dtype=torch.float32)
    grads = torch.frombuffer(mmap.mmap(grads_fd, 4 * ELEMENTS), dtype=torch.float32)
    order = jail_order(
        source=source,
        source_name="optim.py",
        layout=ParameterLayout(
            params=[
                {"name": "w", "role": "matrix", "layer": 0, "shape": [SIDE, SIDE], "offset": 0},
            ],
            elements=ELEMENTS,
        ),
        horizon={"total_steps": 10, "tokens_per_step": 64, "model_width": SIDE},
        limits=limits,
    )
    jail = zygote.fork(order, params_fd, grads_fd)
    os.close(params_fd)
    os.close(grads_fd)
    optimizer = JailedOptimizer(jail, limits)
    try:
        yield Rig(optimizer, params, grads)
    finally:
        optimizer.end()
