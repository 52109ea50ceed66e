"""SOAP for the matrices, AdamW for the rest: a reference to compare optimizers with.

Adam in the slowly turning eigenbasis of Shampoo's preconditioner. The rule is that of the library
pytorch-optimizer, which spends its first step on the first basis and updates nothing in it.
Source: Vyas et al. 2024, arXiv:2409.11321.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_optimizer import SOAP

from nanochat.contract import Bounds, Horizon, Knobs, ParamInfo, Role, TrainingState

__all__ = ["BOUNDS", "build_optimizer"]

BOUNDS = {
    "SCHEDULE.warmup_steps": Bounds(0, 1000, "integer"),
    "SCHEDULE.warmdown_fraction": Bounds(0.0, 1.0),
    "SCHEDULE.final_lr_fraction": Bounds(0.0, 1.0),
    "PRECONDITIONED.lr": Bounds(1e-5, 0.3, "log"),
    "PRECONDITIONED.beta1": Bounds(0.5, 0.995),
    "PRECONDITIONED.beta2": Bounds(0.5, 0.9999),
    "PRECONDITIONED.shampoo_beta": Bounds(0.5, 0.9999),
    "PRECONDITIONED.eps": Bounds(1e-16, 1e-3, "log"),
    "PRECONDITIONED.weight_decay": Bounds(0.0, 2.0),
    "PRECONDITIONED.basis_steps": Bounds(1, 100, "integer"),
    "ADAMW.embedding_lr": Bounds(1e-4, 3.0, "log"),
    "ADAMW.unembedding_lr": Bounds(1e-5, 1.0, "log"),
    "ADAMW.scalar_lr": Bounds(1e-5, 3.0, "log"),
    "ADAMW.beta1": Bounds(0.5, 0.995),
    "ADAMW.beta2": Bounds(0.5, 0.9999),
    "ADAMW.eps": Bounds(1e-16, 1e-3, "log"),
}

# Each kind of parameter that is no matrix has a learning rate of its own.
KINDS = {
    Role.EMBEDDING: "embedding",
    Role.VALUE_EMBEDDING: "embedding",
    Role.UNEMBEDDING: "unembedding",
    Role.RESID_SCALE: "scalar",
    Role.X0_SCALE: "scalar",
    Role.MIXING: "scalar",
}

SCHEDULE = Knobs(
    warmup_steps=3,
    warmdown_fraction=0.65,
    final_lr_fraction=0.05,
)

PRECONDITIONED = Knobs(
    lr=0.005,
    beta1=0.95,
    beta2=0.95,
    shampoo_beta=0.95,
    eps=1e-8,
    weight_decay=0.1,
    basis_steps=10,  # from one turn of the basis to the next
)

ADAMW = Knobs(
    embedding_lr=0.1,
    unembedding_lr=0.025,
    scalar_lr=0.04,
    beta1=0.9,
    beta2=0.95,
    eps=1e-8,
)


def lr_fraction(step: int, total_steps: int) -> float:
    """Give the learning rate as a fraction of its peak: up in a line, flat, down in a line."""
    up = (step + 1) / SCHEDULE.warmup_steps if SCHEDULE.warmup_steps > 0 else 1.0
    warmdown_steps = SCHEDULE.warmdown_fraction * total_steps
    left = min(1.0, (total_steps - step) / warmdown_steps) if warmdown_steps > 0 else 1.0
    final = SCHEDULE.final_lr_fraction
    return float(min(1.0, up, final + (1.0 - final) * left))


def adamw_groups(params: Sequence[ParamInfo]) -> list[dict[str, Any]]:
    """Divide what is no matrix by kind."""
    kinds: dict[str, list[torch.Tensor]] = {}
    for param in params:
        if param.role is not Role.MATRIX:
            kinds.setdefault(KINDS[param.role], []).append(param.tensor)
    peaks = {kind: dict(ADAMW)[f"{kind}_lr"] for kind in kinds}
    return [
        {"params": tensors, "lr": peaks[kind], "peak_lr": peaks[kind]}
        for kind, tensors in kinds.items()
    ]


class SoapAndAdamW:
    """SOAP for the matrices and AdamW for the rest, on one schedule."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        self.parts = parts

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameter groups of both."""
        return [group for part in self.parts for group in part.param_groups]

    def observe(self, state: TrainingState) -> None:
        """Set the learning rates of the coming step."""
        fraction = lr_fraction(state.step, state.total_steps)
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * fraction

    def step(self) -> None:
        """Update every parameter from its gradient."""
        for part in self.parts:
            part.step()

    def state_dict(self) -> dict[str, Any]:
        """Give everything that training needs to go on as if it had never stopped."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state made by `state_dict`, of the same parameters in the same order."""
        for part, state in zip(self.parts, state_dict["parts"], strict=True):
            part.load_state_dict(state)


def build_optimizer(
    params: Sequence[ParamInfo],
    horizon: Horizon,  # noqa: ARG001 - the contract's; the schedule is told at every step
) -> SoapAndAdamW:
    """Make the optimizer of a training run.

    Args:
        params: all parameters to train.
        horizon: the length of the run; the schedule is told it at every step.
    """
    matrices = [param.tensor for param in params if param.role is Role.MATRIX]
    return SoapAndAdamW(
        SOAP(
            [{"params": matrices, "peak_lr": PRECONDITIONED.lr}],
            lr=PRECONDITIONED.lr,
            betas=(PRECONDITIONED.beta1, PRECONDITIONED.beta2),
            shampoo_beta=PRECONDITIONED.shampoo_beta,
            eps=PRECONDITIONED.eps,
            weight_decay=PRECONDITIONED.weight_decay,
            precondition_frequency=PRECONDITIONED.basis_steps,
        ),
        torch.optim.AdamW(
            adamw_groups(params),
            betas=(ADAMW.beta1, ADAMW.beta2),
            eps=ADAMW.eps,
            weight_decay=0.0,
            foreach=True,
        ),
    )
