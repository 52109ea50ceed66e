"""Rules on the text alone, applied before anything parses it."""

from __future__ import annotations

import re
from collections.abc import Iterator

from sandbox.rules.program import Finding

__all__ = ["MAX_BYTES", "MAX_GROWTH_BYTES", "MAX_LINE_CHARACTERS", "check_text"]

# The shipped file has about 35 KB. A patch may add half of that, and no lineage of patches may
# grow a program beyond what is read and compared in milliseconds.
MAX_GROWTH_BYTES = 16 * 1024
MAX_BYTES = 128 * 1024
MAX_LINE_CHARACTERS = 500

# Control characters other than newline and tab; then those that hide or reorder text: zero-width
# and directional marks, line separators, the byte order mark, surrogates, private use.
_HIDDEN = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff"
    "\ud800-\udfff\ue000-\uf8ff]"
)


def check_text(candidate: str, parent: str) -> Iterator[Finding]:
    """Yield what is wrong with the candidate's size, and with lines its parent does not have."""
    size, parent_size = _bytes(candidate), _bytes(parent)
    limit = min(MAX_BYTES, parent_size + MAX_GROWTH_BYTES)
    if size > limit:
        advice = (
            f"the file would have {size} bytes, {size - parent_size} more than before; "
            f"at most {limit} are allowed: write less, or remove what is not used"
        )
        yield Finding("size", _first_new_line(candidate, parent), advice)
        return  # what follows is linear, but there is no bound on what it would run over
    known = frozenset(parent.split("\n"))
    for number, line in enumerate(candidate.split("\n"), start=1):
        if line in known:
            continue
        hidden = _HIDDEN.search(line)
        if hidden:
            yield Finding("characters", number, _why_not(hidden[0]))
        if len(line) > MAX_LINE_CHARACTERS:
            advice = f"the line has {len(line)} characters, at most {MAX_LINE_CHARACTERS}; break it"
            yield Finding("size", number, advice)


def _why_not(character: str) -> str:
    code = f"U+{ord(character):04X}"
    if character == "\r":
        return f"the line holds a carriage return ({code}); end lines with a newline alone"
    if character == "\ufeff":
        return f"the line holds a byte order mark ({code}); save the text without it"
    return f"the invisible character {code} is not allowed, not in strings either; remove it"


def _first_new_line(candidate: str, parent: str) -> int:
    """Return the first line at which two texts differ, from 1."""
    pairs = zip(candidate.split("\n"), parent.split("\n"), strict=False)
    return next((number for number, (a, b) in enumerate(pairs, start=1) if a != b), 1)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
