"""Keep finished trials in a file, so that a long calibration can be interrupted and taken up.

One JSON object per line: first what the trials rest on, then trials and measured effects in the
order they were finished. A line that was cut off by a crash is dropped.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from agent.calibration.trial import Trial

__all__ = ["Record", "RecordMismatchError"]


class RecordMismatchError(Exception):
    """A file of trials cannot be gone on with; the message says why."""


class Record:
    """Trials by plant and number, and differences by plant, as far as they are known.

    Args:
        path: the file; None keeps nothing beyond this process.
        facts: what trials rest on: those of a file made under other facts are no use.

    Raises:
        RecordMismatchError: the file is no such record, or was made under other facts.
        OSError: the file cannot be read or written.
    """

    def __init__(self, path: Path | None, facts: Mapping[str, Any]) -> None:
        self.trials: dict[tuple[str, int], Trial] = {}
        self.differences: dict[str, tuple[float, ...]] = {}
        self._stream: IO[str] | None = None
        if path is None:
            return
        known = path.read_text(encoding="utf-8") if path.exists() else ""
        whole = known[: known.rfind("\n") + 1]
        lines = whole.splitlines()
        if lines:
            self._take(path, lines, facts)
        if whole != known:
            path.write_text(whole, encoding="utf-8")
        self._stream = path.open("a", encoding="utf-8")
        if not lines:
            self._write({"facts": dict(facts)})

    def add_trial(self, trial: Trial) -> None:
        """Keep a finished trial."""
        self.trials[trial.plant, trial.number] = trial
        self._write({"trial": asdict(trial)})

    def add_differences(self, plant: str, differences: tuple[float, ...]) -> None:
        """Keep the differences that tell what a plant is worth."""
        self.differences[plant] = differences
        self._write({"plant": plant, "differences": differences})

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._stream is not None:
            self._stream.close()

    def _take(self, path: Path, lines: list[str], facts: Mapping[str, Any]) -> None:
        try:
            entries = [json.loads(line) for line in lines]
            recorded = entries[0]["facts"]
            for entry in entries[1:]:
                if "trial" in entry:
                    trial = Trial(**entry["trial"])
                    self.trials[trial.plant, trial.number] = trial
                else:
                    self.differences[entry["plant"]] = tuple(entry["differences"])
        except (ValueError, KeyError, TypeError) as error:
            raise RecordMismatchError(f"{path} is no record of a calibration: {error!r}") from error
        wanted = json.loads(json.dumps(dict(facts)))
        for name in wanted:
            if recorded.get(name) != wanted[name]:
                raise RecordMismatchError(
                    f"{path} was made with {name} {recorded.get(name)!r}, now it is "
                    f"{wanted[name]!r}: give another file"
                )

    def _write(self, entry: Mapping[str, Any]) -> None:
        if self._stream is not None:
            self._stream.write(json.dumps(entry) + "\n")
            self._stream.flush()
