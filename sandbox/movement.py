"""Sketch how far weights moved, so that runs can be compared without their weights."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["SKETCH_NUMBERS", "sketch"]

# A squared distance between sketches of n numbers has a relative standard deviation of about
# √(2/n): with 32, a distance is right within an eighth. Gates compare with factors of two.
SKETCH_NUMBERS = 32
_DIGITS = 6  # significant ones kept; equal movements stay equal, and records stay short


def sketch(movement: Tensor, seed: int) -> tuple[float, ...]:
    """Sum the numbers of a tensor into a few buckets, each with a random sign.

    Squared norms and distances are right on average over the signs, which follow from `seed`
    and the number of elements; a tensor with no more elements than buckets keeps its exactly.

    Source: Charikar, Chen and Farach-Colton 2002, "Finding frequent items in data streams".
    """
    flat = movement.detach().flatten().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, flat.shape, generator=generator, dtype=torch.int8)
    signed = torch.where(signs.bool(), flat, -flat)
    padding = -len(flat) % SKETCH_NUMBERS
    buckets = torch.nn.functional.pad(signed, (0, padding)).view(-1, SKETCH_NUMBERS).sum(0)
    return _rounded(buckets.tolist())


def _rounded(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(float(f"{number:.{_DIGITS}g}") for number in numbers)
