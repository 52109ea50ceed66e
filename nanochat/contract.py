"""The contract between a training loop and an optimizer it knows nothing about.

An optimizer file provides `build_optimizer(params, horizon)`; what it returns is a
`torch.optim.Optimizer` that also has `observe(state)`, called before every `step()`, and may have
`eval()` and `train()`, called around validation. Nothing else crosses the line: no model, no
text, no loss function. This module imports no more than torch, so that a process which runs
untrusted optimizers can load it without loading the substrate.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import SimpleNamespace
from typing import Any, Protocol

import torch

__all__ = [
    "Bounds",
    "Choice",
    "Horizon",
    "Knobs",
    "ObservingOptimizer",
    "ParamInfo",
    "Role",
    "Scale",
    "TrainingState",
]


class Role(StrEnum):
    """What a parameter is for; optimizers route parameters to rules by it."""

    MATRIX = "matrix"  # every 2-d weight inside a block
    EMBEDDING = "embedding"
    VALUE_EMBEDDING = "value_embedding"
    UNEMBEDDING = "unembedding"
    RESID_SCALE = "resid_scale"  # (n_layer,) weights of the residual stream
    X0_SCALE = "x0_scale"  # (n_layer,) weights of the first embedding
    MIXING = "mixing"  # smear gate, smear weight and backout weight


@dataclass(frozen=True, slots=True, kw_only=True)
class ParamInfo:
    """One parameter as an optimizer sees it.

    `tensor.grad` holds the gradient whenever `step()` is called. `layer` is the block's index,
    or None outside the blocks.
    """

    tensor: torch.Tensor
    name: str
    role: Role
    layer: int | None

    @property
    def shape(self) -> torch.Size:
        """The parameter's shape."""
        return self.tensor.shape


@dataclass(frozen=True, slots=True, kw_only=True)
class Horizon:
    """How long the training run will be and how wide the model is: all a schedule may know."""

    total_steps: int
    tokens_per_step: int
    model_width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingState:
    """What the trainer tells the optimizer before each step.

    `step` counts from 0; `loss` is the mean training loss of this step's batch in nats;
    `tokens` is how many training tokens were seen, this batch included.
    """

    step: int
    total_steps: int
    loss: float
    tokens: int


class ObservingOptimizer(Protocol):
    """What `build_optimizer` returns: a torch optimizer that is told the training state."""

    def observe(self, state: TrainingState) -> None:
        """Take note of the training state; called once before every `step()`."""

    def step(self) -> object:
        """Update the parameters from their gradients."""


class Scale(StrEnum):
    """How a number is best searched."""

    LINEAR = "linear"
    LOG = "log"
    INTEGER = "integer"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a numeric knob, both ends allowed."""

    low: float
    high: float
    scale: Scale | str = Scale.LINEAR


@dataclass(frozen=True, slots=True)
class Choice:
    """The values of a knob that is not a number."""

    values: tuple[str | bool, ...]


class Knobs(SimpleNamespace):
    """A table of tunable constants, read as attributes: `MUON.lr`.

    Declared with keyword literals only, so that tools can read and rewrite a table from the
    syntax tree without executing the file.
    """

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(vars(self).items())
