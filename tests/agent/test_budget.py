from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from agent.budget import Budget, BudgetSpentError, Meter, describe_seconds


class Watch:
    """A clock that only moves when told to."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


def test_training_runs_of_earlier_sessions_count() -> None:
    meter = Meter(Budget(evaluations=10, elapsed_s=None), clock=Watch(), evaluations=9)

    meter.charge()

    with pytest.raises(BudgetSpentError):
        meter.charge()
    assert meter.evaluations == 10


def test_time_of_earlier_sessions_counts() -> None:
    watch = Watch()
    meter = Meter(Budget(evaluations=None, elapsed_s=100.0), clock=watch, elapsed_s=60.0)
    watch.advance(39)
    assert not meter.is_spent

    watch.advance(1)

    assert meter.is_spent


def test_whichever_limit_comes_first_ends_the_run() -> None:
    watch = Watch()
    meter = Meter(Budget(evaluations=4, elapsed_s=100.0), clock=watch, evaluations=1)
    watch.advance(60)

    assert meter.fraction_left() == pytest.approx(0.4)
    assert meter.describe_left() == "3 training runs, 40 s"


def test_more_than_spent_is_nothing_left() -> None:
    watch = Watch()
    meter = Meter(Budget(evaluations=None, elapsed_s=100.0), clock=watch)
    watch.advance(160)

    assert (meter.fraction_left(), meter.describe_left()) == (0.0, "0 s")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.4, "0 s"),
        (59.4, "59 s"),
        (61.0, "1 min 01 s"),
        (3599.0, "59 min 59 s"),
        (3660.0, "1 h 01 min"),
    ],
)
def test_durations_read_the_way_people_say_them(seconds: float, text: str) -> None:
    assert describe_seconds(seconds) == text
