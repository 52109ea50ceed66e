"""The one training loop, used in-process and by the sandbox alike.

The loop owns the data order, the loss and the step count; the optimizer is reached through an
`OptimizerService`, which may live in this process or in another. Since everything else is the
same code on the same memory layout, where the optimizer lives does not change a bit of the
result.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from nanochat.batches import BatchSource
from nanochat.contract import ObservingOptimizer, ParamInfo, TrainingState
from nanochat.model import GPT

__all__ = [
    "Diverged",
    "ForwardBackward",
    "InProcess",
    "NonFiniteLoss",
    "NonFiniteParameters",
    "OptimizerService",
    "TrainingError",
    "TrainingResult",
    "compile_model",
    "eager_model",
    "flat_offsets",
    "flat_size",
    "flatten_parameters",
    "train",
]

ALIGNMENT = 16  # fp32 numbers in 64 bytes: a vector register, a cache line
# The first loss is that of a uniform guess. Twice as bad after the first steps, which may
# overshoot, is a run that will not come back.
DIVERGED_FACTOR = 2.0
DIVERGED_FROM_STEP = 20

ForwardBackward = Callable[[Tensor, Tensor], Tensor]
"""Adds the gradients of one batch to the parameters' `.grad` and returns the mean loss."""


class TrainingError(Exception):
    """A training run that cannot go on. `step` is where it ended."""

    def __init__(self, step: int, message: str) -> None:
        super().__init__(message)
        self.step = step


class NonFiniteLoss(TrainingError):  # noqa: N818 -- named for the verdict it becomes
    """The training loss became infinite or NaN."""

    def __init__(self, step: int) -> None:
        super().__init__(step, f"the loss of step {step} is not finite")


class NonFiniteParameters(TrainingError):  # noqa: N818 -- named for the verdict it becomes
    """The last update left an infinite or NaN parameter."""

    def __init__(self, step: int, name: str) -> None:
        super().__init__(step, f"parameter {name} is not finite after step {step}")
        self.name = name


class Diverged(TrainingError):  # noqa: N818 -- named for the verdict it becomes
    """The training loss rose far above that of an untrained model."""

    def __init__(self, step: int, loss: float, first_loss: float) -> None:
        super().__init__(
            step, f"the loss of step {step} is {loss:.3g} nats, it began at {first_loss:.3g}"
        )
        self.loss, self.first_loss = loss, first_loss


class OptimizerService(Protocol):
    """Updates the parameters that it was set up with.

    `step` is called once per training step, when all `.grad` are in place; when it returns the
    parameters are updated. The gradients are the service's to overwrite. Between `enter_eval`
    and `leave_eval` the parameters hold the weights to validate with; `leave_eval` restores
    those to train with, bit by bit.
    """

    def step(self, state: TrainingState) -> None:
        """Do one update."""

    def enter_eval(self) -> None:
        """Put the weights to validate with in place."""

    def leave_eval(self) -> None:
        """Put the weights to train with back."""


class InProcess:
    """An optimizer in this process, as an `OptimizerService`."""

    def __init__(self, optimizer: ObservingOptimizer) -> None:
        self._optimizer = optimizer

    def step(self, state: TrainingState) -> None:
        """Tell the optimizer the training state, then let it update."""
        self._optimizer.observe(state)
        self._optimizer.step()

    def enter_eval(self) -> None:
        """Call the optimizer's `eval`, if it has one."""
        self._call("eval")

    def leave_eval(self) -> None:
        """Call the optimizer's `train`, if it has one."""
        self._call("train")

    def _call(self, name: str) -> None:
        method = getattr(self._optimizer, name, None)
        if method is not None:
            method()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingResult:
    """What a finished run leaves behind besides the parameters.

    `curve` has (step, mean training loss in nats) of every step, each loss taken before that
    step's update; `tokens` counts the targets trained on.
    """

    curve: tuple[tuple[int, float], ...]
    tokens: int

    @property
    def final_loss(self) -> float:
        """The loss of the last step's batch, in nats."""
        return self.curve[-1][1]


def train(  # noqa: PLR0913 - the parts of one training run, by name
    model: GPT,
    batches: BatchSource,
    service: OptimizerService,
    *,
    steps: int,
    horizon: int | None = None,
    on_step: Callable[[int, float], None] | None = None,
    forward_backward: ForwardBackward | None = None,
) -> TrainingResult:
    """Train for a number of steps.

    Args:
        model: initialised; after `flatten_parameters`, or with any `.grad` tensors in place.
        batches: asked for steps 0 to `steps` - 1.
        service: updates the model's parameters.
        steps: at least 1.
        horizon: the number of steps that schedules are laid out for; `steps` by default.
        on_step: told each step and its loss, before the update.
        forward_backward: computes loss and gradients; the eager model by default.

    Raises:
        NonFiniteLoss: a loss is not finite; nothing was updated with it.
        Diverged: from step 20 on, a loss is twice the first one.
        NonFiniteParameters: the parameters are not finite after the last step.
    """
    forward_backward = forward_backward or eager_model(model)
    total = horizon or steps
    gradients = _gradients(model)
    curve: list[tuple[int, float]] = []
    for step in range(steps):
        torch._foreach_zero_(gradients)
        loss = forward_backward(*batches.batch(step)).item()
        _check_loss(step, loss, curve)
        curve.append((step, loss))
        if on_step is not None:
            on_step(step, loss)
        tokens = (step + 1) * batches.tokens_per_batch
        service.step(TrainingState(step=step, total_steps=total, loss=loss, tokens=tokens))
    _check_parameters(model, steps - 1)
    return TrainingResult(curve=tuple(curve), tokens=steps * batches.tokens_per_batch)


def eager_model(model: GPT) -> ForwardBackward:
    """Compute loss and gradients with the model as it is."""

    def forward_backward(x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = model(x, y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return loss.detach()

    return forward_backward


def compile_model(model: GPT, cache_folder: Path | None = None) -> ForwardBackward:
    """Compute loss and gradients with a compiled copy of the model's forward pass.

    The first call compiles: 10 to 30 s with an empty cache, a few seconds with a warm one. Shapes
    are fixed by that call. Losses differ from the eager model's in the last bits, so runs are
    compared with runs of the same kind only.

    Args:
        model: stays usable eagerly, on the same parameters.
        cache_folder: where compiled code is kept between processes; by default, and if the
            environment does not name one in TORCHINDUCTOR_CACHE_DIR, torch's own choice.
    """
    if cache_folder is not None:
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(cache_folder))
    compiled = torch.compile(model, dynamic=False)

    def forward_backward(x: Tensor, y: Tensor) -> Tensor:
        loss: Tensor = compiled(x, y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return loss.detach()

    return forward_backward


def flat_offsets(infos: Sequence[ParamInfo]) -> tuple[int, ...]:
    """Return where each parameter begins in a flat tensor, and last the size of that tensor.

    Every parameter begins at a multiple of 64 bytes, because the results of matrix products may
    depend on alignment.
    """
    offsets = [0]
    for parameter in infos:
        offsets.append(offsets[-1] + math.ceil(parameter.tensor.numel() / ALIGNMENT) * ALIGNMENT)
    return tuple(offsets)


def flat_size(model: GPT) -> int:
    """Return how many fp32 numbers `flatten_parameters` needs in each of its two tensors."""
    return flat_offsets(model.param_infos())[-1]


def flatten_parameters(model: GPT, parameters: Tensor, gradients: Tensor) -> None:
    """Move the model's parameters into one flat tensor, and their gradients into another.

    Afterwards every parameter and its `.grad` are views of the two tensors, in the order of
    `param_infos`, at the places `flat_offsets` names; values are kept, gradients are zero.

    Args:
        model: on the same device as the tensors.
        parameters: (flat_size(model),) fp32.
        gradients: the same shape and type.

    Raises:
        ValueError: a tensor has another shape or type than it must.
    """
    infos = model.param_infos()
    *offsets, size = flat_offsets(infos)
    for flat in (parameters, gradients):
        if flat.shape != (size,) or flat.dtype != torch.float32:
            raise ValueError(f"expected fp32 of shape ({size},), found {flat.dtype} {flat.shape}")
    gradients.zero_()
    for parameter, start in zip(infos, offsets, strict=True):
        tensor, end = parameter.tensor, start + parameter.tensor.numel()
        home = parameters[start:end].view(parameter.shape)
        home.copy_(tensor.detach())
        tensor.data = home
        tensor.grad = gradients[start:end].view(parameter.shape)


def _gradients(model: GPT) -> list[Tensor]:
    """Return every gradient tensor, made where there is none: all are zeroed in place."""
    for parameter in model.parameters():
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    return [parameter.grad for parameter in model.parameters() if parameter.grad is not None]


def _check_loss(step: int, loss: float, curve: Sequence[tuple[int, float]]) -> None:
    if not math.isfinite(loss):
        raise NonFiniteLoss(step)
    if step >= DIVERGED_FROM_STEP and loss > DIVERGED_FACTOR * curve[0][1]:
        raise Diverged(step, loss, curve[0][1])


def _check_parameters(model: GPT, step: int) -> None:
    for name, parameter in model.named_parameters():
        if not math.isfinite(parameter.detach().sum().item()):
            raise NonFiniteParameters(step, name)
