"""Write commit messages out of text that nobody vouches for.

What a proposer says about its patch may hold line breaks, terminal escapes, or lines that look
like the verdict of the judge. Each piece becomes one line of printable text.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

__all__ = ["SUBJECT_LENGTH", "commit_message", "one_line"]

SUBJECT_LENGTH = 65

# Unicode categories of what moves a cursor, hides, breaks a line or cannot be encoded.
_UNPRINTABLE = frozenset(("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"))
_TRAILER_KEY = re.compile(r"[A-Za-z][A-Za-z0-9-]*")


def commit_message(subject: str, trailers: Mapping[str, str]) -> str:
    """Write a subject, cut to `SUBJECT_LENGTH`, and git trailers below it.

    Raises:
        ValueError: git would not take the key of a trailer for one.
    """
    for key in trailers:
        if not _TRAILER_KEY.fullmatch(key):
            raise ValueError(f"not a key of a git trailer: {key!r}; use letters, digits and '-'")
    head = one_line(subject)[:SUBJECT_LENGTH].rstrip() or "Change the optimizer"
    body = "\n".join(f"{key}: {one_line(value)}" for key, value in trailers.items())
    return f"{head}\n\n{body}\n"


def one_line(text: str) -> str:
    """Replace what cannot be printed by spaces, and squeeze the spaces."""
    shown = (" " if unicodedata.category(c) in _UNPRINTABLE else c for c in text)
    return " ".join("".join(shown).split())
