"""What can go wrong between a lineage and its folder."""

from __future__ import annotations

__all__ = ["RecordError", "StoreError"]


class StoreError(Exception):
    """A lineage cannot be opened, read or written.

    The message says what was found and what to do.
    """


class RecordError(StoreError):
    """A record contradicts those already kept: a key used twice, or a reference to nothing.

    Unlike other store errors this is never the user's doing: it is a defect of the caller.
    """
