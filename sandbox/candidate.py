"""A candidate's optimizer over shared memory, as the jail's request loop drives it."""

from __future__ import annotations

import mmap
import random
from types import ModuleType
from typing import Any

import torch

from nanochat.contract import Horizon, ParamInfo, Role, TrainingState

__all__ = ["Candidate", "seed_random_numbers"]


def seed_random_numbers(seed: int) -> None:
    """Make what a candidate draws depend on the job alone, not on the process it runs in."""
    # Not torch.manual_seed, which notes for other devices where in the source it was called.
    torch.default_generator.manual_seed(seed)
    random.seed(seed)


class Candidate:
    """The optimizer a candidate's `build_optimizer` returned, with its parameters shared.

    Parameters and gradients are views of the two maps at the offsets the worker chose, so that
    nothing is copied and both sides compute on equally aligned memory.
    """

    def __init__(
        self, module: ModuleType, order: dict[str, Any], params: mmap.mmap, grads: mmap.mmap
    ) -> None:
        weights = torch.frombuffer(params, dtype=torch.float32)
        gradients = torch.frombuffer(grads, dtype=torch.float32)
        infos = [self._param_info(fields, weights, gradients) for fields in order["params"]]
        self._optimizer = module.build_optimizer(infos, Horizon(**order["horizon"]))

    def step(self, step: int, total_steps: int, loss: float, tokens: int) -> None:
        """Let the optimizer see the training state and update the parameters."""
        self._optimizer.observe(
            TrainingState(step=step, total_steps=total_steps, loss=loss, tokens=tokens)
        )
        self._optimizer.step()

    def enter_eval(self) -> None:
        """Put the weights to validate with in place, where the optimizer keeps such."""
        if hasattr(self._optimizer, "eval"):
            self._optimizer.eval()

    def leave_eval(self) -> None:
        """Put the training weights back."""
        if hasattr(self._optimizer, "train"):
            self._optimizer.train()

    @staticmethod
    def _param_info(
        fields: dict[str, Any], weights: torch.Tensor, gradients: torch.Tensor
    ) -> ParamInfo:
        shape, offset = fields["shape"], fields["offset"]
        count = 1
        for extent in shape:
            count *= extent
        tensor = torch.nn.Parameter(weights[offset : offset + count].view(shape))
        tensor.grad = gradients[offset : offset + count].view(shape)
        return ParamInfo(
            tensor=tensor, name=fields["name"], role=Role(fields["role"]), layer=fields["layer"]
        )
