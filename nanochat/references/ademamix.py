"""AdEMAMix for every parameter: a reference to compare optimizers with.

Adam with a second, slow average of the gradients, whose weight and memory grow over the run. The
rule is that of the library pytorch-optimizer. Source: Pagliardini et al. 2024, arXiv:2409.03137,
who average over ten thousand steps; `beta3` here is for runs of some hundred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_optimizer import AdEMAMix

from nanochat.contract import Bounds, Horizon, Knobs, ParamInfo, Role, TrainingState

__all__ = ["BOUNDS", "build_optimizer"]

BOUNDS = {
    "SCHEDULE.warmup_steps": Bounds(0, 1000, "integer"),
    "SCHEDULE.warmdown_fraction": Bounds(0.0, 1.0),
    "SCHEDULE.final_lr_fraction": Bounds(0.0, 1.0),
    "RATES.matrix_lr": Bounds(1e-5, 0.3, "log"),
    "RATES.embedding_lr": Bounds(1e-4, 3.0, "log"),
    "RATES.unembedding_lr": Bounds(1e-5, 1.0, "log"),
    "RATES.scalar_lr": Bounds(1e-5, 3.0, "log"),
    "ADEMAMIX.beta1": Bounds(0.5, 0.995),
    "ADEMAMIX.beta2": Bounds(0.5, 0.9999),
    "ADEMAMIX.beta3": Bounds(0.9, 0.99999),
    "ADEMAMIX.slow_weight": Bounds(0.0, 20.0),
    "ADEMAMIX.eps": Bounds(1e-16, 1e-3, "log"),
    "ADEMAMIX.weight_decay": Bounds(0.0, 2.0),
}

# Each kind of parameter has a learning rate of its own.
KINDS = {
    Role.MATRIX: "matrix",
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

RATES = Knobs(
    matrix_lr=0.005,
    embedding_lr=0.1,
    unembedding_lr=0.025,
    scalar_lr=0.04,
)

ADEMAMIX = Knobs(
    beta1=0.9,
    beta2=0.999,
    beta3=0.99,
    slow_weight=5.0,
    eps=1e-8,
    weight_decay=0.1,
)


def lr_fraction(step: int, total_steps: int) -> float:
    """Give the learning rate as a fraction of its peak: up in a line, flat, down in a line."""
    up = (step + 1) / SCHEDULE.warmup_steps if SCHEDULE.warmup_steps > 0 else 1.0
    warmdown_steps = SCHEDULE.warmdown_fraction * total_steps
    left = min(1.0, (total_steps - step) / warmdown_steps) if warmdown_steps > 0 else 1.0
    final = SCHEDULE.final_lr_fraction
    return float(min(1.0, up, final + (1.0 - final) * left))


def parameter_groups(params: Sequence[ParamInfo]) -> list[dict[str, Any]]:
    """Divide parameters by kind; only matrices decay."""
    kinds: dict[str, list[torch.Tensor]] = {}
    for param in params:
        kinds.setdefault(KINDS[param.role], []).append(param.tensor)
    peaks = {kind: dict(RATES)[f"{kind}_lr"] for kind in kinds}
    return [
        {
            "params": tensors,
            "lr": peaks[kind],
            "peak_lr": peaks[kind],
            "weight_decay": ADEMAMIX.weight_decay if kind == "matrix" else 0.0,
        }
        for kind, tensors in kinds.items()
    ]


class ScheduledAdEMAMix(AdEMAMix):
    """AdEMAMix that follows the schedule."""

    def observe(self, state: TrainingState) -> None:
        """Set the learning rates of the coming step."""
        fraction = lr_fraction(state.step, state.total_steps)
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * fraction


def build_optimizer(params: Sequence[ParamInfo], horizon: Horizon) -> ScheduledAdEMAMix:
    """Make the optimizer of a training run.

    Args:
        params: all parameters to train.
        horizon: the length of the run, over which the mixing warms up.
    """
    return ScheduledAdEMAMix(
        parameter_groups(params),
        betas=(ADEMAMIX.beta1, ADEMAMIX.beta2, ADEMAMIX.beta3),
        alpha=ADEMAMIX.slow_weight,
        t_alpha_beta3=horizon.total_steps,
        eps=ADEMAMIX.eps,
        weight_decouple=True,
    )
