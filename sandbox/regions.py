"""Find the regions of a source that a run may edit.

A region is what lies between the comment lines `# EVOLVE-BLOCK-START <name>` and
`# EVOLVE-BLOCK-END`, both at the start of a line; the marker lines themselves and everything
outside are locked. Lines end in a newline character and nothing else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from sandbox.line_error import LineError

__all__ = ["Region", "RegionError", "find_regions", "outside", "region_at", "text_of"]

_ANY_MARKER = re.compile(r"\s*#\s*EVOLVE-BLOCK\b")
_START = re.compile(r"# EVOLVE-BLOCK-START ([a-z][a-z0-9_]*)")
_END = "# EVOLVE-BLOCK-END"


@dataclass(frozen=True, slots=True)
class Region:
    """An editable stretch: lines `first_line` to `last_line`, from 1, markers excluded.

    An empty region has `last_line` one less than `first_line`.
    """

    name: str
    first_line: int
    last_line: int


class RegionError(LineError):
    """The markers of a source do not form regions."""


@lru_cache(maxsize=64)
def find_regions(source: str) -> tuple[Region, ...]:
    """Return the regions of `source` in order.

    Raises:
        RegionError: a marker is malformed, nested, unclosed or without a start, or two regions
            have the same name.
    """
    found: list[Region] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(_lines(source), start=1):
        if "EVOLVE-BLOCK" not in line or not _ANY_MARKER.match(line):
            continue
        start = _START.fullmatch(line)
        if start and opened is None:
            opened = start[1], number
        elif line == _END and opened is not None:
            found.append(Region(opened[0], opened[1] + 1, number - 1))
            opened = None
        else:
            raise RegionError(line=number, reason=_what_is_wrong(line, opened))
    if opened is not None:
        raise RegionError(line=opened[1], reason=f"region {opened[0]!r} is never closed")
    names = [region.name for region in found]
    for index, region in enumerate(found):
        if region.name in names[:index]:
            raise RegionError(
                line=region.first_line - 1, reason=f"a second region is called {region.name!r}"
            )
    return tuple(found)


def text_of(source: str, region: Region) -> str:
    """Return the editable text of `region`, with a newline after every line."""
    lines = _lines(source)[region.first_line - 1 : region.last_line]
    return "\n".join((*lines, ""))


def outside(source: str) -> tuple[str, ...]:
    """Return the locked text: before the first region, between regions, and after the last.

    Raises:
        RegionError: the markers do not form regions.
    """
    lines = _lines(source)
    pieces: list[str] = []
    start = 0
    for region in find_regions(source):
        pieces.append("\n".join(lines[start : region.first_line - 1]))
        start = region.last_line
    return (*pieces, "\n".join(lines[start:]))


def region_at(regions: tuple[Region, ...], line: int) -> str | None:
    """Return the name of the region that holds `line`, None where it is locked."""
    return next((r.name for r in regions if r.first_line <= line <= r.last_line), None)


@lru_cache(maxsize=4)
def _lines(source: str) -> tuple[str, ...]:
    return tuple(source.split("\n"))


def _what_is_wrong(line: str, opened: tuple[str, int] | None) -> str:
    if _START.fullmatch(line) and opened is not None:
        return f"a region starts inside region {opened[0]!r}, which started on line {opened[1]}"
    if line == _END:
        return "a region ends here that never started"
    return (
        f"{line.strip()!r} is no marker; expected '# EVOLVE-BLOCK-START <name>' "
        f"or '{_END}' at the start of a line"
    )
