"""Relate the speed of training to what the machine could do at best."""

from __future__ import annotations

import time

import torch

__all__ = ["measure_peak_flops", "model_flops_utilisation"]

REPEATS = 20  # the best of many, because other processes disturb a single one


def measure_peak_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the FLOP/s of a large square matrix product with the threads torch now uses."""
    is_cuda = device.type == "cuda"
    size = 8192 if is_cuda else 1024  # about 1 ms and 20 ms
    a = torch.ones(size, size, device=device, dtype=dtype)
    shortest_s = float("inf")
    for _ in range(REPEATS + 1):  # the first one warms up
        start = time.perf_counter()
        torch.mm(a, a)
        if is_cuda:
            torch.cuda.synchronize(device)
        shortest_s = min(shortest_s, time.perf_counter() - start)
    return float(2 * size**3 / shortest_s)


def model_flops_utilisation(
    flops_per_token: int, tokens_per_s: float, peak_flops_per_s: float
) -> float:
    """Return the share of the peak that goes into the model's own arithmetic.

    Source: Chowdhery et al. 2022, PaLM, section 4.1, arXiv:2204.02311.
    """
    return flops_per_token * tokens_per_s / peak_flops_per_s
