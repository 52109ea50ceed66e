"""Hold what is read from logs: one training run's validation losses, and where reading failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

__all__ = ["Problem", "Reading", "Run"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run as its log tells it.

    Attributes:
        path: the file it was read from.
        line: the line of its first validation, from 1.
        submission: the submission the file names for it, or None where the folder says it.
        seed: the seed or run number written next to it, or None.
        planned_steps: how many steps its schedule was made for.
        losses: validation loss in nats per token by step, in increasing order of steps; never
            empty, and not finite where training diverged.
    """

    path: Path
    line: int
    submission: str | None
    seed: int | None
    planned_steps: int
    losses: Mapping[int, float]

    @property
    def place(self) -> str:
        """Return file and line of the run's first validation."""
        return f"{self.path}:{self.line}"

    @property
    def first_step(self) -> int:
        """Return the step of the first validation."""
        return min(self.losses)

    @property
    def last_step(self) -> int:
        """Return the step of the last validation."""
        return max(self.losses)

    @property
    def widest_gap(self) -> int:
        """Return the most steps between two validations, or 0 where there is only one."""
        return max((late - early for early, late in pairwise(self.losses)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A line that cannot be what it seems to be; line 0 stands for the whole file.

    `submission` is the one the line names, or None where the folder says it.
    """

    path: Path
    line: int
    message: str
    submission: str | None = None

    def __str__(self) -> str:
        place = f"{self.path}:{self.line}" if self.line else str(self.path)
        return f"{place}: {self.message}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """All that one file holds.

    Attributes:
        runs: in the order of the file.
        problems: lines that could not be read, at most a few dozen.
        source_digest: digest of the training script above the results without the lines that
            mention a seed, or None where the file holds no script.
        script_lines: validation lines inside that script, which are no results.
    """

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]
    source_digest: str | None = None
    script_lines: int = 0
