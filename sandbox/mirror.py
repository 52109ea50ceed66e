"""Let a jail without an accelerator drive a model that computes on one.

The jail sees ordinary memory only, so gradients are copied out before its turn and parameters
back in after it. Slower than an optimizer on the device, and exactly as safe as on the CPU.
"""

from __future__ import annotations

import torch

from nanochat.contract import TrainingState
from nanochat.loop import OptimizerService

__all__ = ["MirroredService"]


class MirroredService:
    """An optimizer service on shared maps, for parameters that live on a device.

    Args:
        inner: works on the shared maps.
        params: flat fp32 parameters on the device.
        grads: flat fp32 gradients on the device.
        shared_params: the map the jail sees, same length.
        shared_grads: the map the jail sees, same length.
    """

    def __init__(
        self,
        inner: OptimizerService,
        *,
        params: torch.Tensor,
        grads: torch.Tensor,
        shared_params: torch.Tensor,
        shared_grads: torch.Tensor,
    ) -> None:
        self._inner = inner
        self._params, self._grads = params, grads
        self._shared_params, self._shared_grads = shared_params, shared_grads

    def step(self, state: TrainingState) -> None:
        """Copy the gradients out, have the step done, copy the parameters in."""
        self._shared_grads.copy_(self._grads)
        self._inner.step(state)
        self._fetch()

    def enter_eval(self) -> None:
        """Put the weights to validate with in place on the device."""
        self._inner.enter_eval()
        self._fetch()

    def leave_eval(self) -> None:
        """Put the training weights back on the device."""
        self._inner.leave_eval()
        self._fetch()

    def _fetch(self) -> None:
        with torch.no_grad():
            self._params.copy_(self._shared_params)
