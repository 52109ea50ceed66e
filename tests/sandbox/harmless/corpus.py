"""Edits of the shipped optimizer that do no harm, as their authors would write them.

Every file is a patch with a title: `constructs/` has one for each thing the language offers,
`methods/` one for each idea about optimizers. An edit belongs here if it trains; whether preflight
lets it pass is what the corpus is there to measure.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sandbox.baseline import seed_program
from sandbox.patches import apply_patch, from_blocks

__all__ = ["SCOPES", "SHIPPED", "Edit", "edits"]

FOLDER = Path(__file__).parent
SHIPPED = seed_program("none")
SCOPES = frozenset({"routing", "schedule", "policy", "muon", "adamw"})


@dataclass(frozen=True, slots=True)
class Edit:
    """A harmless edit: what it is called, what it does, and the program it makes."""

    name: str
    title: str
    source: str


def edits() -> tuple[Edit, ...]:
    """Read the corpus, in the order of its names."""
    return tuple(_read(path) for path in sorted(FOLDER.glob("*/*.patch")))


def _read(path: Path) -> Edit:
    text = path.read_text(encoding="utf-8")
    return Edit(
        name=f"{path.parent.name}/{path.stem}",
        title=text.partition("\n")[0],
        source=apply_patch(from_blocks(text), SHIPPED),
    )
