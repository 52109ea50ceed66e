"""Column types that give back exactly what was put in.

SQLite on its own drops time zones, has no tuples, and refuses text with lone surrogates, which a
language model's reply may well contain.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from struct import Struct
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, LargeBinary, Text
from sqlalchemy.types import TypeDecorator

__all__ = ["AnyText", "Curve", "JsonMapping", "SeedList", "UtcTime"]

# step and loss of one point; 12 bytes instead of about 25 as JSON, and the loss to the bit.
_POINT = Struct("<Id")


class UtcTime(TypeDecorator[datetime]):
    """An instant. Goes in with any time zone, comes back in UTC; naive times are refused."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, _dialect: Dialect) -> datetime | None:
        """Convert to UTC."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"a time without a time zone is not an instant: {value!r}")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> datetime | None:
        """Say again that it is UTC."""
        return None if value is None else value.replace(tzinfo=UTC)


class AnyText(TypeDecorator[str]):
    r"""Any Python text. A lone surrogate, which has no UTF-8, is kept as its escape `\udc80`."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: str | None, _dialect: Dialect) -> str | None:
        """Escape what cannot be encoded."""
        return None if value is None else value.encode("utf-8", "backslashreplace").decode("utf-8")


class JsonMapping(TypeDecorator[Mapping[str, Any]]):
    """Any mapping of JSON values; comes back as a dict."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: Mapping[str, Any] | None, _dialect: Dialect
    ) -> dict[str, Any] | None:
        """Make it the type that JSON can write."""
        return None if value is None else dict(value)


class SeedList(TypeDecorator[tuple[int, ...]]):
    """A tuple of integers, kept as a JSON list."""

    impl = JSON
    cache_ok = True

    def process_bind_param(
        self, value: tuple[int, ...] | None, _dialect: Dialect
    ) -> list[int] | None:
        """Make it a list."""
        return None if value is None else list(value)

    def process_result_value(self, value: Any | None, _dialect: Dialect) -> tuple[int, ...] | None:
        """Make it a tuple again."""
        return None if value is None else tuple(value)


class Curve(TypeDecorator[tuple[tuple[int, float], ...]]):
    """A learning curve: little-endian (uint32 step, float64 loss) pairs, one after the other."""

    impl = LargeBinary
    cache_ok = True

    def process_bind_param(
        self, value: tuple[tuple[int, float], ...] | None, _dialect: Dialect
    ) -> bytes | None:
        """Pack the points."""
        return None if value is None else b"".join(_POINT.pack(*point) for point in value)

    def process_result_value(
        self, value: Any | None, _dialect: Dialect
    ) -> tuple[tuple[int, float], ...] | None:
        """Unpack the points."""
        return None if value is None else tuple(_POINT.iter_unpack(value))
