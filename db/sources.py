"""Read and write programs, with their texts kept small.

Programs of one run are variations of its first one. Deflate, given that first text as a preset
dictionary (RFC 1950, section 2.2), writes what they share as references into it: 25 KB become a
few hundred bytes. It looks back 32 KiB; a longer text still round-trips, and gains less.
"""

from __future__ import annotations

import zlib
from hashlib import sha256
from typing import Any

from sqlalchemy import ColumnElement, Connection, insert, select

from db.errors import RecordError
from db.records import Program
from db.tables import ProgramRow

__all__ = ["Sources", "deflate", "inflate"]


def deflate(text: str, base: bytes | None) -> bytes:
    """Compress a text, against the UTF-8 bytes of another one if given."""
    packer = zlib.compressobj(zdict=base) if base else zlib.compressobj()
    return packer.compress(text.encode("utf-8")) + packer.flush()


def inflate(packed: bytes, base: bytes | None) -> str:
    """Give back the text; `base` must be the one it was compressed against.

    Raises:
        zlib.error: the bytes are damaged, or `base` is another text.
    """
    unpacker = zlib.decompressobj(zdict=base) if base else zlib.decompressobj()
    return (unpacker.decompress(packed) + unpacker.flush()).decode("utf-8")


class Sources:
    """The programs of one database; remembers the text the others are compressed against."""

    def __init__(self) -> None:
        self._base: tuple[str, bytes] | None = None

    def add(self, connection: Connection, program: Program) -> None:
        """Insert a program.

        Raises:
            RecordError: its id is not the digest of its source.
        """
        if sha256(program.source.encode("utf-8")).hexdigest() != program.id:
            raise RecordError(f"program {program.id} has a source of another digest")
        base_id, base = self._find_base(connection) or (None, None)
        row = {
            "id": program.id,
            "ordinal": program.ordinal,
            "source": deflate(program.source, base),
            "base_id": base_id,
            "normalised": program.normalised,
            "created_at": program.created_at,
        }
        connection.execute(insert(ProgramRow), row)

    def read(
        self, connection: Connection, *where: ColumnElement[bool], limit: int | None = None
    ) -> list[tuple[int, Program]]:
        """Select programs, each with its place in the order of insertion, in that order."""
        query = (
            select(
                ProgramRow.seq,
                ProgramRow.id,
                ProgramRow.ordinal,
                ProgramRow.source,
                ProgramRow.base_id,
                ProgramRow.normalised,
                ProgramRow.created_at,
            )
            .where(*where)
            .order_by(ProgramRow.seq)
            .limit(limit)
        )
        return [
            (row["seq"], self._unpack(connection, dict(row)))
            for row in connection.execute(query).mappings()
        ]

    def _unpack(self, connection: Connection, row: dict[str, Any]) -> Program:
        base = None
        if row["base_id"] is not None:
            _, base = self._find_base(connection) or (None, None)
        return Program(
            id=row["id"],
            ordinal=row["ordinal"],
            source=inflate(row["source"], base),
            normalised=row["normalised"],
            created_at=row["created_at"],
        )

    def _find_base(self, connection: Connection) -> tuple[str, bytes] | None:
        """The id and the text of the first program, once there is one."""
        if self._base is None:
            query = select(ProgramRow.id, ProgramRow.source).order_by(ProgramRow.seq).limit(1)
            row = connection.execute(query).one_or_none()
            if row is not None:
                self._base = (row.id, inflate(row.source, None).encode("utf-8"))
        return self._base
