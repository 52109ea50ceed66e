"""Divide the difference between two programs into parts that can be left out one by one.

A part is a knob whose value was changed, or a change of the text that is no such value: a hunk of
consecutive lines. Leaving all of them out gives the original program again.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sandbox.knobs import Value, is_same, read_knobs, set_knobs
from sandbox.patches import Block, Patch, apply_patch, make_patch

__all__ = ["Anatomy", "Kind", "Part", "take_apart"]

LONGEST_LINE = 60  # quoted of a change


class Kind(StrEnum):
    """What a part consists of."""

    KNOB = "knob"
    CHANGE = "change"


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part: its number, what it is, and the same in words."""

    number: int
    kind: Kind
    description: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Anatomy:
    """A program as the original and the parts that were added to it.

    `knobs` are the changed knobs with the program's values, `blocks` the other changes; their
    numbers go on where those of the knobs end.
    """

    original: str
    program: str
    knobs: tuple[tuple[str, Value], ...]
    blocks: tuple[Block, ...]
    parts: tuple[Part, ...]

    def without(self, numbers: frozenset[int]) -> str:
        """Return the program without some of its parts.

        Raises:
            LineError: its tables cannot be read any more.
        """
        if not numbers:
            return self.program
        first = len(self.knobs)
        kept = [b for index, b in enumerate(self.blocks, start=first) if index not in numbers]
        source = apply_patch(Patch(tuple(kept)), self.original)
        declared = read_knobs(source)
        values = {
            name: value
            for index, (name, value) in enumerate(self.knobs)
            if index not in numbers and name in declared
        }
        return set_knobs(source, values)


def take_apart(original: str, program: str) -> Anatomy:
    """Divide what makes a program different from the original.

    Raises:
        LineError: the tables of either cannot be read.
    """
    before, after = read_knobs(original), read_knobs(program)
    changed = [
        (name, before[name].value, knob.value)
        for name, knob in after.items()
        if name in before and not is_same(before[name].value, knob.value)
    ]
    plain = set_knobs(program, {name: old for name, old, _ in changed})
    blocks = make_patch(original, plain).blocks
    descriptions = [(Kind.KNOB, f"{name}: {old} to {new}") for name, old, new in changed]
    descriptions += [(Kind.CHANGE, _described(block, original)) for block in blocks]
    return Anatomy(
        original=original,
        program=program,
        knobs=tuple((name, new) for name, _, new in changed),
        blocks=blocks,
        parts=tuple(
            Part(number=number, kind=kind, description=words)
            for number, (kind, words) in enumerate(descriptions)
        ),
    )


def _described(block: Block, original: str) -> str:
    """Say where a change is and what it begins with."""
    line = original[: original.index(block.search)].count("\n") + 1
    old, new = block.search.split("\n"), block.replace.split("\n")
    added = [text for text in new if text not in old]
    removed = [text for text in old if text not in new]
    sign, lines = ("+", added) if added else ("-", removed)
    first = next((text.strip() for text in lines if text.strip()), "")
    return f"line {line}, {len(removed)} out, {len(added)} in: {sign} {first[:LONGEST_LINE]}"
