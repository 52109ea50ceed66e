"""Count what a run may still spend: training runs, hours, or both.

Limits are totals since the run began, so that they mean the same after a resume.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from agent.words import counted

__all__ = ["Budget", "BudgetSpentError", "Clock", "Meter", "describe_seconds"]

Clock = Callable[[], datetime]


class BudgetSpentError(Exception):
    """The next training run would exceed the budget; the candidate stays pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """Totals over the whole life of a run; None is no limit. Whichever ends first ends the run."""

    evaluations: int | None
    elapsed_s: float | None


class Meter:
    """Charges training runs against a budget.

    Args:
        budget: the run's totals.
        clock: tells the time, in any one timezone.
        evaluations: training runs finished in earlier sessions.
        elapsed_s: seconds spent in earlier sessions.
    """

    def __init__(
        self, budget: Budget, *, clock: Clock, evaluations: int = 0, elapsed_s: float = 0.0
    ) -> None:
        self.budget = budget
        self.evaluations = evaluations
        self._clock = clock
        self._earlier_s = elapsed_s
        self._began = clock()

    @property
    def elapsed_s(self) -> float:
        """Seconds spent so far, earlier sessions included."""
        return self._earlier_s + (self._clock() - self._began).total_seconds()

    @property
    def is_spent(self) -> bool:
        """Whether no further training run may be started."""
        limit_n, limit_s = self.budget.evaluations, self.budget.elapsed_s
        return (limit_n is not None and self.evaluations >= limit_n) or (
            limit_s is not None and self.elapsed_s >= limit_s
        )

    def charge(self) -> None:
        """Pay for one training run, before it is started.

        Raises:
            BudgetSpentError: nothing is left.
        """
        if self.is_spent:
            raise BudgetSpentError
        self.evaluations += 1

    def fraction_left(self) -> float:
        """Return the share of the budget that is left, of the scarcer limit, between 0 and 1."""
        shares = [1.0]
        if self.budget.evaluations is not None:
            shares.append(1.0 - self.evaluations / self.budget.evaluations)
        if self.budget.elapsed_s is not None:
            shares.append(1.0 - self.elapsed_s / self.budget.elapsed_s)
        return max(0.0, min(shares))

    def describe_left(self) -> str:
        """Say what is left, for people: `12 training runs, 4 min 10 s`."""
        parts = []
        if self.budget.evaluations is not None:
            left = max(0, self.budget.evaluations - self.evaluations)
            parts.append(counted(left, "training run"))
        if self.budget.elapsed_s is not None:
            parts.append(describe_seconds(max(0.0, self.budget.elapsed_s - self.elapsed_s)))
        return ", ".join(parts) or "no limit"


def describe_seconds(seconds: float) -> str:
    """Write a duration the way people say it: `2 h 05 min`, `4 min 10 s`, `9 s`."""
    whole = round(seconds)
    minutes, hours = whole // 60, whole // 3600
    if hours:
        return f"{hours} h {minutes % 60:02d} min"
    return f"{minutes} min {whole % 60:02d} s" if minutes else f"{whole} s"
