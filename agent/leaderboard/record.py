"""Keep a leaderboard in a JSON file: what was measured, how, and the command that did it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from agent.compare_request import UsageError
from agent.leaderboard.standings import Entry
from agent.tune.recorded_runs import keep

__all__ = ["ANCHOR", "Leaderboard", "read", "recorded", "write"]

ANCHOR = "tuned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """Programs measured on the same seeds. `settings` is what scores depend on."""

    command: str
    date: str
    settings: Mapping[str, Any]
    budget: Mapping[str, Any]
    seeds: tuple[int, ...]
    entries: tuple[Entry, ...]


def recorded(profile: str) -> Leaderboard:
    """Return the leaderboard that comes with the project.

    Raises:
        UsageError: there is none for the profile.
    """
    folder = resources.files("agent.leaderboard") / "recorded"
    file = folder / f"{profile}.json"
    if not file.is_file():
        names = sorted(f.name.removesuffix(".json") for f in folder.iterdir())
        raise UsageError(
            f"no leaderboard was recorded for profile {profile}, only for {', '.join(names)}: "
            "make one with --measure"
        )
    return _parsed(file.read_text(encoding="utf-8"), str(file))


def read(file: Path) -> Leaderboard:
    """Read a leaderboard that `write` wrote.

    Raises:
        UsageError: the file cannot be read, or is none.
    """
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {file}: {error}") from error
    return _parsed(text, str(file))


def write(file: Path, board: Leaderboard) -> None:
    """Write a leaderboard into a folder that is there.

    Raises:
        RecordLostError: the place is full, or may not be written.
    """
    keep(file, json.dumps(asdict(board), indent=1) + "\n")


def _parsed(text: str, name: str) -> Leaderboard:
    try:
        fields = json.loads(text)
        entries = tuple(
            Entry(**{**e, "bpb": tuple(e["bpb"]), "own_bpb": tuple(e["own_bpb"])})
            for e in fields.pop("entries")
        )
        return Leaderboard(**{**fields, "seeds": tuple(fields["seeds"]), "entries": entries})
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{name} is no leaderboard: {error}") from error
