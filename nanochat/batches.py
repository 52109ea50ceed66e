"""Choose the rows of each training batch as a pure function of (seed, step).

The training text is cut into windows of `sequence_length` tokens. Every epoch visits each window
once, in an order and at a phase drawn from (seed, epoch); so two runs with one seed read the
same text in the same order whatever else differs, and any step can be had without the others.
Simpler than upstream's best-fit packing: rows may begin inside a document, whose start is
marked by `bos` where it falls.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = ["BatchSource"]


class BatchSource:
    """Batches of next-token prediction from one array of tokens.

    Args:
        tokens: (N,) token ids.
        batch_size: rows per batch, B.
        sequence_length: tokens per row, T.
        seed: of the order; not negative.
        device: where batches are put.

    Raises:
        ValueError: the tokens do not fill one batch.
    """

    def __init__(
        self,
        tokens: NDArray[np.uint16],
        batch_size: int,
        sequence_length: int,
        seed: int,
        device: torch.device | str = "cpu",
    ) -> None:
        # One window is given up for the phase, one token for the last target.
        self._windows = (len(tokens) - 1) // sequence_length - 1
        self.batches_per_epoch = self._windows // batch_size
        if self.batches_per_epoch < 1:
            needed = (batch_size + 1) * sequence_length + 1
            raise ValueError(f"{len(tokens)} tokens do not fill a batch, {needed} are needed")
        self._tokens = tokens
        self._batch_size = batch_size
        self._seed = seed
        self._device = torch.device(device)
        self._within = np.arange(sequence_length + 1)
        self._epoch: tuple[int, NDArray[np.int64]] | None = None

    @property
    def tokens_per_batch(self) -> int:
        """Targets in a batch: B x T."""
        return self._batch_size * (len(self._within) - 1)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the inputs and targets of a step, both (B, T) int64."""
        epoch, position = divmod(step, self.batches_per_epoch)
        first = position * self._batch_size
        starts = self._row_starts(epoch)[first : first + self._batch_size]
        rows = self._tokens[starts[:, None] + self._within].astype(np.int64)  # (B, T + 1)
        x = torch.from_numpy(np.ascontiguousarray(rows[:, :-1]))
        y = torch.from_numpy(np.ascontiguousarray(rows[:, 1:]))
        return x.to(self._device), y.to(self._device)

    def _row_starts(self, epoch: int) -> NDArray[np.int64]:
        """Where each row of an epoch begins; kept, because steps mostly come in order."""
        if self._epoch is None or self._epoch[0] != epoch:
            rng = np.random.default_rng([self._seed, epoch])
            length = len(self._within) - 1
            phase = rng.integers(length + 1)
            self._epoch = epoch, rng.permutation(self._windows) * length + phase
        return self._epoch[1]
