"""Train a few steps with an edited optimizer, in this process, and see which code of it ran."""

from __future__ import annotations

import ast
import sys
from dataclasses import dataclass
from types import FrameType, ModuleType
from typing import Any

import numpy as np
import torch

from nanochat.batches import BatchSource
from nanochat.contract import Horizon
from nanochat.loop import InProcess, flat_size, flatten_parameters, train
from nanochat.model import GPT, GPTConfig

__all__ = ["Trained", "functions_of", "train_with"]

STEPS = 12  # past every "each ten steps" of the corpus
TOTAL_STEPS = 60  # more than the shipped warm-up
NAME = "harmless_optim"
TOKENS = np.tile(np.arange(40, dtype=np.uint16), 40)


@dataclass(frozen=True, slots=True)
class Trained:
    """What came of a few steps: their losses, and the functions of the file that were entered."""

    losses: tuple[float, ...]
    entered: frozenset[str]


def train_with(source: str) -> Trained:
    """Train the smallest model there is with the optimizer of `source`.

    The source is executed here: for programs of this corpus only.
    """
    torch.manual_seed(0)
    torch.set_num_threads(1)  # on tensors this small a second one does nothing but wait
    entered: set[str] = set()
    model = GPT(GPTConfig(depth=2, width=32, head_dim=16, vocab_size=40, sequence_length=16))
    model.init_weights(torch.Generator().manual_seed(0))
    size = flat_size(model)
    flatten_parameters(model, torch.zeros(size), torch.zeros(size))
    batches = BatchSource(TOKENS, 4, 16, seed=0)
    horizon = Horizon(
        total_steps=TOTAL_STEPS, tokens_per_step=batches.tokens_per_batch, model_width=32
    )

    def note(frame: FrameType, _event: str, _argument: Any) -> None:
        if frame.f_code.co_filename == NAME:
            entered.add(frame.f_code.co_name)

    sys.settrace(note)
    try:
        module = _load(source)
        service = InProcess(module.build_optimizer(model.param_infos(), horizon))
        result = train(model, batches, service, steps=STEPS, horizon=TOTAL_STEPS)
        service.enter_eval()
        service.leave_eval()
    finally:
        sys.settrace(None)
    return Trained(tuple(loss for _, loss in result.curve), frozenset(entered))


def functions_of(source: str) -> frozenset[str]:
    """Return the names of all functions of a source, methods and nested ones included."""
    return frozenset(
        node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)
    )


def _load(source: str) -> ModuleType:
    module = ModuleType(NAME)
    sys.modules[NAME] = module  # dataclasses look their module up by name
    exec(compile(source, NAME, "exec"), module.__dict__)  # noqa: S102 - the corpus is ours
    return module
