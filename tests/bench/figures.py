"""What a benchmark reports: a figure with its spread, and what was hoped for."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Figure", "spread"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One line of the table. `met` is None where there is no target to meet."""

    what: str
    reach: str
    measured: str
    met: bool | None


def spread(samples: Sequence[float], unit: str = "", digits: int = 1) -> str:
    """Write the median of the samples with their quartiles."""
    low, middle, high = statistics.quantiles(samples, n=4)
    return f"{middle:.{digits}f}{unit} [{low:.{digits}f}, {high:.{digits}f}]"
