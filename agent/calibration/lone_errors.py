"""Turn the error of a task in a group into the error of whoever waits for the group."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["lone_errors"]


@contextmanager
def lone_errors() -> Iterator[None]:
    """Raise the first error of a group by itself: what one task met, the others would have met."""
    try:
        yield
    except BaseExceptionGroup as errors:
        first: BaseException = errors
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from errors
