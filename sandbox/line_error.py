"""An error in a source text, with the line it is on."""

from __future__ import annotations

__all__ = ["LineError"]


class LineError(ValueError):
    """Something is wrong with a line of a source.

    Attributes:
        line: where, from 1.
        reason: what is wrong, without the line number.
    """

    def __init__(self, *, line: int, reason: str) -> None:
        super().__init__(f"line {line}: {reason}")
        self.line = line
        self.reason = reason
