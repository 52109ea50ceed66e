"""Score a model in bits per byte of text: the one number programs are compared by."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray

from nanochat.model import GPT

__all__ = ["bits_per_byte", "validate"]


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Convert a summed cross-entropy to bits per UTF-8 byte of the text it covers.

    Unlike loss per token, the result can be compared between tokenizers.

    Args:
        total_nats: sum of the cross-entropies of the tokens that stand for text.
        total_bytes: sum of the bytes those tokens stand for.

    Returns:
        Bits per byte, lower is better. The mean is over bytes, not over tokens.

    Raises:
        ValueError: no byte is covered.

    Source: Gao et al. 2020, "The Pile", section 3.1, arXiv:2101.00027.
    """
    if total_bytes <= 0:
        raise ValueError(f"no byte is covered: {total_bytes=}")
    return total_nats / math.log(2) / total_bytes


@torch.no_grad()
def validate(
    model: GPT,
    tokens: NDArray[np.uint16],
    token_bytes: NDArray[np.int64],
    batch_size: int,
    sequence_length: int,
    limit_bytes: int,
) -> float:
    """Measure bits per byte on fixed windows, spread evenly over the text.

    The windows depend on the arguments only, never on the model. Targets that stand for no text
    (`bos`) are left out of both sums. Sums are in float64.

    Args:
        model: its parameters' device is used.
        tokens: (N,) token ids of the split.
        token_bytes: (vocab,) bytes of text per id, 0 for specials.
        batch_size: windows evaluated at a time.
        sequence_length: targets per window.
        limit_bytes: about how much text to cover; all of it if there is less.

    Raises:
        ValueError: the tokens do not fill one window.
    """
    starts = _window_starts(tokens, token_bytes, sequence_length, limit_bytes)
    device = next(model.parameters()).device
    within = np.arange(sequence_length + 1)
    total_nats, total_bytes = 0.0, 0
    for first in range(0, len(starts), batch_size):
        rows = tokens[starts[first : first + batch_size, None] + within].astype(np.int64)
        sizes = token_bytes[rows[:, 1:]]  # (B, T)
        batch = torch.from_numpy(rows).to(device)
        losses = model(batch[:, :-1], batch[:, 1:], loss_reduction="none")  # (B, T)
        counted = torch.from_numpy(sizes > 0).to(device)
        total_nats += float((losses.double() * counted).sum())
        total_bytes += int(sizes.sum())
    return bits_per_byte(total_nats, total_bytes)


def _window_starts(
    tokens: NDArray[np.uint16],
    token_bytes: NDArray[np.int64],
    sequence_length: int,
    limit_bytes: int,
) -> NDArray[np.int64]:
    available = (len(tokens) - 1) // sequence_length
    if available < 1:
        raise ValueError(f"{len(tokens)} tokens do not fill a window of {sequence_length}")
    bytes_per_window = sequence_length * float(token_bytes[tokens].mean())
    wanted = min(available, math.ceil(limit_bytes / max(bytes_per_window, 1.0)))
    spread = np.linspace(0, available - 1, max(wanted, 1))
    return np.round(spread).astype(np.int64) * sequence_length
