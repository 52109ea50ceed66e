"""NorMuon for the matrices, AdamW for the rest: a reference to compare optimizers with.

Muon whose rows are brought to equal size by their second moments. Both rules are those of the
library pytorch-optimizer. Source: Li et al. 2025, arXiv:2510.05491.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_optimizer import NorMuon

from nanochat.contract import Bounds, Horizon, Knobs, ParamInfo, Role, TrainingState

__all__ = ["BOUNDS", "build_optimizer"]

BOUNDS = {
    "SCHEDULE.warmup_steps": Bounds(0, 1000, "integer"),
    "SCHEDULE.warmdown_fraction": Bounds(0.0, 1.0),
    "SCHEDULE.final_lr_fraction": Bounds(0.0, 1.0),
    "NORMUON.lr": Bounds(1e-4, 0.5, "log"),
    "NORMUON.momentum": Bounds(0.0, 0.999),
    "NORMUON.beta2": Bounds(0.0, 0.999),
    "NORMUON.weight_decay": Bounds(0.0, 2.0),
    "NORMUON.ns_steps": Bounds(1, 10, "integer"),
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

NORMUON = Knobs(
    lr=0.02,
    momentum=0.95,
    beta2=0.95,
    weight_decay=0.1,
    ns_steps=5,
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
        {"params": tensors, "lr": peaks[kind], "peak_lr": peaks[kind], "use_muon": False}
        for kind, tensors in kinds.items()
    ]


class ScheduledNorMuon(NorMuon):
    """NorMuon for the matrices and AdamW for the rest, on one schedule."""

    def observe(self, state: TrainingState) -> None:
        """Set the learning rates of the coming step."""
        fraction = lr_fraction(state.step, state.total_steps)
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * fraction


def build_optimizer(
    params: Sequence[ParamInfo],
    horizon: Horizon,  # noqa: ARG001 - the contract's; the schedule is told at every step
) -> ScheduledNorMuon:
    """Make the optimizer of a training run.

    Args:
        params: all parameters to train.
        horizon: the length of the run; the schedule is told it at every step.
    """
    matrices = {
        "params": [param.tensor for param in params if param.role is Role.MATRIX],
        "lr": NORMUON.lr,
        "peak_lr": NORMUON.lr,
        "use_muon": True,
    }
    return ScheduledNorMuon(
        [matrices, *adamw_groups(params)],
        momentum=NORMUON.momentum,
        beta2=NORMUON.beta2,
        weight_decay=NORMUON.weight_decay,
        ns_steps=NORMUON.ns_steps,
        adamw_betas=(ADAMW.beta1, ADAMW.beta2),
        adamw_eps=ADAMW.eps,
    )
