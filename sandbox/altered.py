"""Give an optimizer gradients that say nothing, to see whether it needs them.

A program that reaches its score without the gradients' information brought that score along.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from nanochat.contract import TrainingState
from nanochat.loop import OptimizerService
from sandbox.jobs import Gradients

__all__ = ["AlteredGradients", "jail_seed"]


class AlteredGradients:
    """An optimizer service that alters the gradients before each step of the one it wraps.

    Runs on the trusted side, while the jail is stopped.

    Args:
        inner: updates the parameters.
        gradients: every gradient tensor of the model, where the model computes.
        kind: what to make of them, not `true`.
        seed: of the run. The permutations follow from it and the step.
    """

    def __init__(
        self,
        inner: OptimizerService,
        gradients: Sequence[Tensor],
        *,
        kind: Gradients,
        seed: int,
    ) -> None:
        if kind is Gradients.TRUE:
            raise ValueError("true gradients need no altering: use the service itself")
        self._inner = inner
        self._gradients = gradients
        self._kind = kind
        self._seed = seed

    def step(self, state: TrainingState) -> None:
        """Alter the gradients, then do the step."""
        with torch.no_grad():
            if self._kind is Gradients.ZERO:
                torch._foreach_zero_(list(self._gradients))
            else:
                self._permute(state.step)
        self._inner.step(state)

    def enter_eval(self) -> None:
        """Put the weights to validate with in place."""
        self._inner.enter_eval()

    def leave_eval(self) -> None:
        """Put the training weights back."""
        self._inner.leave_eval()

    def _permute(self, step: int) -> None:
        """Move every number to another place of its tensor, along each dimension by itself.

        Whole rows and columns change places: besides the norm and the values, that keeps a
        matrix's singular values and the number of its empty rows. Tensors of the same length
        are permuted alike, so that rows that belong to one token still go together: it is hard
        to notice.
        """
        generator = torch.Generator().manual_seed(_derived(f"permutation/{self._seed}/{step}"))
        orders: dict[tuple[int, int], Tensor] = {}
        for gradient in self._gradients:
            for place in enumerate(gradient.shape):
                dim, size = place
                if place not in orders:
                    orders[place] = torch.randperm(size, generator=generator).to(gradient.device)
                gradient.copy_(gradient.index_select(dim, orders[place]))


def jail_seed(seed: int) -> int:
    """Return the seed of the jail's own random numbers in a run.

    A jail can read its seed. This one tells nothing of the run's, from which a candidate could
    work out the initial weights, and the permutations to undo. It is the same whatever is done to
    the gradients, which would otherwise show.
    """
    return _derived(f"jail/{seed}")


def _derived(label: str) -> int:
    return int.from_bytes(hashlib.sha256(label.encode()).digest()[:4], "big") >> 1
