"""Read a table of validation curves: one line per run and step, with a header.

    record,run,step,planned_steps,val_loss_nats
    20260430_adamh,1,125,4875,5.30619

`record` names the submission and `run` counts its runs; the lines of a run stand in the order of
their steps.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.track3.logs import MOST_PROBLEMS
from agent.track3.runs import Problem, Reading, Run

__all__ = ["is_curves", "read_curves"]

HEADER = ["record", "run", "step", "planned_steps", "val_loss_nats"]
COUNT = re.compile(r"\d{1,9}")
LOSS = re.compile(r"\d{1,4}(?:\.\d{1,12})?|[+-]?(?:nan|inf)", re.IGNORECASE)
EXCERPT = 60

_Key = tuple[str, int, int]


def is_curves(path: Path) -> bool:
    """Tell whether a file begins with the header of such a table.

    Raises:
        OSError: the file cannot be read.
    """
    with path.open("rb") as stream:
        return stream.readline(128).removeprefix(b"\xef\xbb\xbf").rstrip() == b",".join(
            name.encode() for name in HEADER
        )


def read_curves(path: Path) -> Reading:
    """Read all runs of a table, and what in it cannot be read.

    Raises:
        OSError: the file cannot be read.
    """
    curves: dict[_Key, dict[int, float]] = {}
    begun: dict[_Key, int] = {}
    problems: list[Problem] = []
    for line, row in _rows(path, problems):
        wrong = _fault(row) or _take(row, line, curves, begun)
        if wrong is not None and len(problems) < MOST_PROBLEMS:
            problems.append(Problem(path=path, line=line, message=wrong, submission=row[0]))
    runs = (
        Run(
            path=path,
            line=begun[key],
            submission=key[0],
            seed=key[1],
            planned_steps=key[2],
            losses=losses,
        )
        for key, losses in curves.items()
    )
    return Reading(runs=tuple(runs), problems=tuple(problems))


def _rows(path: Path, problems: list[Problem]) -> Iterator[tuple[int, Sequence[str]]]:
    """Yield line number and fields of every row below the header, as far as there are rows."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as stream:
        reader = csv.reader(stream)
        try:
            next(reader, None)
            for row in reader:
                if row:
                    yield reader.line_num, row
        except csv.Error as error:
            message = f"the table cannot be read further: {error}"
            problems.append(Problem(path=path, line=reader.line_num, message=message))


def _fault(row: Sequence[str]) -> str | None:
    """Say what is wrong with a row by itself."""
    if len(row) != len(HEADER):
        return f"expected {len(HEADER)} fields, found {len(row)}: {_excerpt(','.join(row))}"
    for name, text in zip(HEADER[1:4], row[1:4], strict=True):
        if not COUNT.fullmatch(text):
            return f"expected a number as {name}, found {_excerpt(text)}"
    if not LOSS.fullmatch(row[4]) or float(row[4]) <= 0.0:
        return f"expected a positive loss, found {_excerpt(row[4])}"
    if int(row[2]) > int(row[3]):
        return f"step {row[2]} is beyond the {row[3]} planned"
    return None


def _take(
    row: Sequence[str], line: int, curves: dict[_Key, dict[int, float]], begun: dict[_Key, int]
) -> str | None:
    """Add a row to its curve, or say why it does not fit there."""
    key, step = (row[0], int(row[1]), int(row[3])), int(row[2])
    losses = curves.setdefault(key, {})
    begun.setdefault(key, line)
    if losses and step <= next(reversed(losses)):
        return f"step {step} of run {row[1]} does not come after step {next(reversed(losses))}"
    losses[step] = float(row[4])
    return None


def _excerpt(text: str) -> str:
    return ascii(text[:EXCERPT]) + ("..." if len(text) > EXCERPT else "")
