"""Schedule-free AdamW for every parameter: a reference to compare optimizers with.

Instead of lowering the learning rate it validates with an average of the weights, so its schedule
is a warm-up and no more. The rule is that of the library pytorch-optimizer. Source: Defazio et al.
2024, "The Road Less Scheduled", arXiv:2405.15682.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from pytorch_optimizer import ScheduleFreeAdamW

from nanochat.contract import Bounds, Horizon, Knobs, ParamInfo, Role, TrainingState

__all__ = ["BOUNDS", "build_optimizer"]

BOUNDS = {
    "SCHEDULE.warmup_steps": Bounds(0, 1000, "integer"),
    "RATES.matrix_lr": Bounds(1e-5, 0.3, "log"),
    "RATES.embedding_lr": Bounds(1e-4, 3.0, "log"),
    "RATES.unembedding_lr": Bounds(1e-5, 1.0, "log"),
    "RATES.scalar_lr": Bounds(1e-5, 3.0, "log"),
    "SCHEDULE_FREE.beta1": Bounds(0.5, 0.995),
    "SCHEDULE_FREE.beta2": Bounds(0.5, 0.9999),
    "SCHEDULE_FREE.eps": Bounds(1e-16, 1e-3, "log"),
    "SCHEDULE_FREE.weight_decay": Bounds(0.0, 2.0),
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
)

RATES = Knobs(
    matrix_lr=0.005,
    embedding_lr=0.1,
    unembedding_lr=0.025,
    scalar_lr=0.04,
)

SCHEDULE_FREE = Knobs(
    beta1=0.9,
    beta2=0.99,
    eps=1e-8,
    weight_decay=0.0,
)


def lr_fraction(step: int) -> float:
    """Give the learning rate as a fraction of its peak: up in a line, then flat."""
    up = (step + 1) / SCHEDULE.warmup_steps if SCHEDULE.warmup_steps > 0 else 1.0
    return float(min(1.0, up))


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
            "weight_decay": SCHEDULE_FREE.weight_decay if kind == "matrix" else 0.0,
        }
        for kind, tensors in kinds.items()
    ]


class WarmedUpScheduleFreeAdamW(ScheduleFreeAdamW):
    """Schedule-free AdamW with a warm-up."""

    def __init__(self, groups: list[dict[str, Any]], **settings: Any) -> None:
        super().__init__(groups, **settings)
        self._before_eval: list[torch.Tensor] = []

    def observe(self, state: TrainingState) -> None:
        """Set the learning rates of the coming step."""
        fraction = lr_fraction(state.step)
        for group in self.param_groups:
            group["lr"] = group["peak_lr"] * fraction

    @torch.no_grad()
    def eval(self) -> None:
        """Put the averaged weights in place, for validation."""
        if not self._before_eval:
            self._before_eval = [tensor.clone() for tensor in self._tensors()]
        super().eval()  # type: ignore[no-untyped-call]  # the library's

    @torch.no_grad()
    def train(self) -> None:
        """Put back, to the bit, the weights that were there before `eval`."""
        super().train()  # type: ignore[no-untyped-call]  # the library's
        if self._before_eval:
            torch._foreach_copy_(self._tensors(), self._before_eval)
            self._before_eval = []

    def _tensors(self) -> list[torch.Tensor]:
        return [tensor for group in self.param_groups for tensor in group["params"]]


def build_optimizer(
    params: Sequence[ParamInfo],
    horizon: Horizon,  # noqa: ARG001 - the contract's; the schedule is told at every step
) -> WarmedUpScheduleFreeAdamW:
    """Make the optimizer of a training run.

    Args:
        params: all parameters to train.
        horizon: the length of the run; the schedule is told it at every step.
    """
    return WarmedUpScheduleFreeAdamW(
        parameter_groups(params),
        betas=(SCHEDULE_FREE.beta1, SCHEDULE_FREE.beta2),
        eps=SCHEDULE_FREE.eps,
    )
