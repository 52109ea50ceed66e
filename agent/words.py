"""Words for numbers, as people say them."""

from __future__ import annotations

__all__ = ["counted"]


def counted(number: int, noun: str) -> str:
    """Write a number with its noun, in the plural where there is not one: `3 training runs`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
