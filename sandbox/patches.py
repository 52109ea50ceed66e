"""Change source text by search/replace blocks, and find the blocks that make a change.

Pure functions on text: nothing here knows Python or what the text is for. A patch is applied
whole or not at all. Every block refers to the *original* text: its search text has to occur
there exactly once (overlapping occurrences count), and no two blocks may claim the same
characters, so the order of the blocks never matters.
"""

from __future__ import annotations

import difflib
import json
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Block",
    "BlockMatchError",
    "Patch",
    "PatchError",
    "apply_patch",
    "from_blocks",
    "from_json",
    "make_patch",
    "to_blocks",
    "to_json",
    "unified_diff",
]


_QUOTE = 100  # characters of a line of a patch
_SEARCH, _DIVIDER, _REPLACE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"


@dataclass(frozen=True, slots=True)
class Block:
    """One replacement: `search` is quoted from the source, `replace` takes its place."""

    search: str
    replace: str


@dataclass(frozen=True, slots=True)
class Patch:
    """A change to a source, as blocks. A patch without blocks changes nothing."""

    blocks: tuple[Block, ...]


class PatchError(ValueError):
    """A patch cannot be read or cannot be applied."""


class BlockMatchError(PatchError):
    """A block's search text does not name exactly one place of the source.

    Attributes:
        index: position of the block in the patch, from 0.
        matches: how often its search text occurs in the source.
        line: the line of the search text that the message quotes.
    """

    def __init__(self, *, index: int, matches: int, line: str = "") -> None:
        quoted = "".join(c if c.isprintable() else "�" for c in line.strip()[:_QUOTE])
        if matches:
            advice = "quote more of the surrounding lines"
        elif quoted:
            advice = f"quote the source exactly as it is, which has no line `{quoted}`"
        else:
            advice = "quote the source exactly as it is, whitespace included"
        super().__init__(
            f"block {index}: its search text occurs {matches} times in the source, "
            f"expected exactly once; {advice}"
        )
        self.line = line
        self.index = index
        self.matches = matches


def apply_patch(patch: Patch, source: str) -> str:
    """Replace what every block of `patch` quotes, all at once.

    Raises:
        BlockMatchError: a search text occurs never, or more than once, in `source`.
        PatchError: two blocks quote overlapping text.
    """
    spans = sorted(
        (_only_match(source, block.search, index), index)
        for index, block in enumerate(patch.blocks)
    )
    pieces: list[str] = []
    done = 0
    for start, index in spans:
        if start < done:
            raise PatchError(
                f"block {index} quotes text that another block also quotes; make them one block"
            )
        block = patch.blocks[index]
        pieces += [source[done:start], block.replace]
        done = start + len(block.search)
    return "".join([*pieces, source[done:]])


def make_patch(old: str, new: str) -> Patch:
    """Return the blocks of whole lines that turn `old` into `new`.

    A block holds the lines that differ and as few unchanged ones around them as make it unique.
    """
    old_lines, new_lines = _lines(old), _lines(new)
    hunks = _changed_hunks(old_lines, new_lines)
    index = 0
    while index < len(hunks):
        hunk = hunks[index]
        search = "".join(old_lines[hunk.old_start : hunk.old_end])
        if len(_matches(old, search)) == 1:
            index += 1
            continue
        hunks[index] = _with_context(hunk, len(old_lines))
        index = _merge_around(hunks, index)
    return Patch(
        tuple(
            Block(
                search="".join(old_lines[hunk.old_start : hunk.old_end]),
                replace="".join(new_lines[hunk.new_start : hunk.new_end]),
            )
            for hunk in hunks
        )
    )


def to_json(patch: Patch) -> str:
    """Write `patch` as a JSON list of blocks, in ASCII."""
    return json.dumps([{"search": b.search, "replace": b.replace} for b in patch.blocks])


def from_json(text: str) -> Patch:
    """Read what `to_json` wrote.

    Raises:
        PatchError: `text` is not a JSON list of objects with the strings `search` and `replace`.
    """
    try:
        items: Any = json.loads(text)
        pairs = [(item["search"], item["replace"]) for item in items]
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise PatchError(f"expected a JSON list of search/replace blocks: {error}") from error
    if not all(isinstance(part, str) for pair in pairs for part in pair):
        raise PatchError("expected the search and replace of every block to be strings")
    return Patch(tuple(Block(search, replace) for search, replace in pairs))


def to_blocks(patch: Patch) -> str:
    """Write `patch` to be read by people: as `from_blocks` reads it, if it is of whole lines."""
    return "\n".join(
        f"{_SEARCH}\n{block.search}{_DIVIDER}\n{block.replace}{_REPLACE}\n"
        for block in patch.blocks
    )


def from_blocks(text: str) -> Patch:
    """Read blocks of whole lines, each between marker lines; other text around them is skipped.

    A block is `<<<<<<< SEARCH`, the lines to find, `=======`, the lines to put in their place, and
    `>>>>>>> REPLACE`.

    Raises:
        PatchError: there is no block, or a marker line is missing or out of order.
    """
    blocks: list[Block] = []
    search: list[str] | None = None
    replace: list[str] | None = None
    for number, line in enumerate(text.split("\n"), start=1):
        if line == _SEARCH and search is None:
            search = []
        elif line == _DIVIDER and search is not None and replace is None:
            replace = []
        elif line == _REPLACE and search is not None and replace is not None:
            blocks.append(Block(_joined(search), _joined(replace)))
            search = replace = None
        elif line in (_SEARCH, _REPLACE):
            raise PatchError(
                f"line {number} of the patch: {line!r} is out of order; "
                f"a block is {_SEARCH!r}, lines, {_DIVIDER!r}, lines, {_REPLACE!r}"
            )
        elif search is not None:
            (search if replace is None else replace).append(line)
    if search is not None or not blocks:
        what = "the last block is not closed" if search is not None else "there is no block"
        raise PatchError(f"{what}: expected {_SEARCH!r}, lines, {_DIVIDER!r}, lines, {_REPLACE!r}")
    return Patch(tuple(blocks))


def unified_diff(old: str, new: str, *, name: str = "optim.py") -> str:
    """Return a unified diff with three lines of context; empty where the texts are equal."""
    lines = difflib.unified_diff(
        old.splitlines(), new.splitlines(), f"a/{name}", f"b/{name}", lineterm=""
    )
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Hunk:
    """Lines [old_start, old_end) of the old text that become [new_start, new_end) of the new."""

    old_start: int
    old_end: int
    new_start: int
    new_end: int


def _joined(lines: list[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def _lines(text: str) -> list[str]:
    lines = text.split("\n")
    kept = [line + "\n" for line in lines[:-1]]
    return [*kept, lines[-1]] if lines[-1] else kept


def _matches(source: str, search: str) -> list[int]:
    """Return up to two positions of `search`; two are enough to know it is ambiguous."""
    first = source.find(search)
    if first < 0:
        return []
    second = source.find(search, first + 1)
    return [first] if second < 0 else [first, second]


def _only_match(source: str, search: str, index: int) -> int:
    places = _matches(source, search)
    if len(places) != 1:
        foreign = next((line for line in search.split("\n") if line not in source), "")
        raise BlockMatchError(index=index, matches=_count(source, search), line=foreign)
    return places[0]


def _count(source: str, search: str) -> int:
    count, place = 0, source.find(search)
    while place >= 0:
        count += 1
        place = source.find(search, place + 1)
    return count


def _changed_hunks(old: list[str], new: list[str]) -> list[_Hunk]:
    """Return the differing line ranges, in order; equal heads and tails are skipped first.

    Most edits touch few lines of a long file, and difflib's time grows with the product.
    """
    shorter = min(len(old), len(new))
    head = 0
    while head < shorter and old[head] == new[head]:
        head += 1
    tail = 0
    while tail < shorter - head and old[-1 - tail] == new[-1 - tail]:
        tail += 1
    matcher = difflib.SequenceMatcher(
        None, old[head : len(old) - tail], new[head : len(new) - tail], autojunk=False
    )
    return [
        _Hunk(head + i1, head + i2, head + j1, head + j2)
        for tag, i1, i2, j1, j2 in matcher.get_opcodes()
        if tag != "equal"
    ]


def _with_context(hunk: _Hunk, old_length: int) -> _Hunk:
    """Return `hunk` with one more unchanged line on each side that has one."""
    before = 1 if hunk.old_start > 0 else 0
    after = 1 if hunk.old_end < old_length else 0
    return _Hunk(
        hunk.old_start - before, hunk.old_end + after, hunk.new_start - before, hunk.new_end + after
    )


def _merge_around(hunks: list[_Hunk], index: int) -> int:
    """Merge the hunk at `index` with neighbours it now touches; return where it is then."""
    if index + 1 < len(hunks) and hunks[index].old_end >= hunks[index + 1].old_start:
        hunks[index : index + 2] = [_union(hunks[index], hunks[index + 1])]
    if index > 0 and hunks[index - 1].old_end >= hunks[index].old_start:
        hunks[index - 1 : index + 1] = [_union(hunks[index - 1], hunks[index])]
        return index - 1
    return index


def _union(first: _Hunk, second: _Hunk) -> _Hunk:
    return _Hunk(
        min(first.old_start, second.old_start),
        max(first.old_end, second.old_end),
        min(first.new_start, second.new_start),
        max(first.new_end, second.new_end),
    )
