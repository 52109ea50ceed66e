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
        advice = f"the file has {size} bytes, at most {limit} are allowed; write less code"
        yield Finding("size", 1, advice)
        return  # what follows is linear, but there is no bound on what it would run over
    known = frozenset(parent.split("\n"))
    for number, line in enumerate(candidate.split("\n"), start=1):
        if line in known:
            continue
        hidden = _HIDDEN.search(line)
        if hidden:
            code = f"U+{ord(hidden[0]):04X}"
            yield Finding("characters", number, f"the character {code} is not allowed in code")
        if len(line) > MAX_LINE_CHARACTERS:
            advice = f"the line has {len(line)} characters, at most {MAX_LINE_CHARACTERS}"
            yield Finding("size", number, advice)


def _bytes(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))
