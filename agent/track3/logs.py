"""Read the runs of one log of the benchmark's training script.

A log may hold one run or several one after the other, with the training script and a description
of the machine before them, each closed by a line of `=` signs. Only lines that begin with
`step:` and a number are results:

    step:125/3300 val_loss:4.60846 train_time:23.618s step_avg:188.94ms

A run ends where the step does not increase or the planned number of steps changes; a result
written twice in a row counts once. The file is read line by line, so its size does not matter, and
any bytes may surround the results.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import BinaryIO

from agent.track3.runs import Problem, Reading, Run

__all__ = ["MOST_PROBLEMS", "read_log"]

MOST_PROBLEMS = 20
"""Problems kept per file: a file of garbage must not fill the memory with complaints."""

LONGEST_LINE = 65_536
EXCERPT = 60

# torchrun writes `[default0]:` before every line when it merges the output of its workers.
METRIC = re.compile(rb"(?:\[\w{1,20}\]:\s?)?(step:\d.*)", re.DOTALL)
VALIDATION = re.compile(rb"step:(\d{1,9})/(\d{1,9})\s+val_loss:(\S+)(?:\s.*)?")
TRAINING = re.compile(rb"step:\d{1,9}/\d{1,9}\s+train_time:.*")
# The rule is about thousandths; a log writes five decimals, and a cut one fewer.
LOSS = re.compile(rb"\d{1,4}\.\d{4,12}|[+-]?(?:nan|inf)", re.IGNORECASE)
SEED = re.compile(rb"(?:=== |Using )?seed[ =](\d{1,9})(?: start .*)?", re.IGNORECASE)
SEED_IN_NAME = re.compile(r"seed[-_]?(\d{1,9})", re.IGNORECASE)
SEPARATOR = re.compile(rb"={40,}")
SCRIPT = (b"import ", b"from ", b"def ", b"class ")


def read_log(path: Path) -> Reading:
    """Read all runs of a log, and what in it cannot be read.

    Raises:
        OSError: the file cannot be read.
    """
    reader = _LogReader(path)
    with path.open("rb") as stream:
        for number, line, is_complete in _lines(stream):
            reader.take(number, line, is_complete=is_complete)
    return reader.reading()


def _lines(stream: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """Yield number, text and whether the line was ended, of lines cut at a fixed length."""
    number = 0
    while line := stream.readline(LONGEST_LINE):
        number += 1
        yield number, line.removeprefix(b"\xef\xbb\xbf").rstrip(), line.endswith(b"\n")
        while line and not line.endswith(b"\n"):
            line = stream.readline(LONGEST_LINE)


class _LogReader:
    """What is known of a log after the lines taken so far."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._runs: list[Run] = []
        self._problems: list[Problem] = []
        self._script = sha256()
        self._script_lines = 0
        self._has_script = False
        self._is_past_script = False
        self._seed: int | None = None
        self._next_seed: int | None = None
        self._line = 0
        self._planned_steps = 0
        self._losses: dict[int, float] = {}

    def take(self, number: int, line: bytes, *, is_complete: bool) -> None:
        """Take the next line of the file."""
        if SEPARATOR.fullmatch(line):
            self._close_script()
        elif metric := METRIC.fullmatch(line):
            self._take_metric(number, metric[1], is_complete=is_complete)
        elif seed := SEED.fullmatch(line):
            self._next_seed = int(seed[1])
        elif not self._is_past_script:
            self._take_script(line)

    def reading(self) -> Reading:
        """Return what the file held."""
        self._end_run()
        runs = tuple(self._runs)
        in_name = SEED_IN_NAME.search(self._path.name)
        if len(runs) == 1 and runs[0].seed is None and in_name is not None:
            runs = (replace(runs[0], seed=int(in_name[1])),)
        if self._is_past_script and not runs and not self._problems:
            self._complain(0, "a training script stands here, but no validation follows it")
        return Reading(
            runs=runs,
            problems=tuple(self._problems),
            source_digest=self._script.hexdigest() if self._is_past_script else None,
            script_lines=self._script_lines,
        )

    def _take_script(self, line: bytes) -> None:
        if b"seed" not in line.lower():
            self._script.update(line + b"\n")
        self._has_script = self._has_script or line.startswith(SCRIPT)

    def _close_script(self) -> None:
        """Forget results quoted in a script: they stand above the first line of `=` signs."""
        if self._is_past_script or not self._has_script:
            return
        self._end_run()
        self._script_lines = sum(len(run.losses) for run in self._runs)
        self._runs.clear()
        self._problems.clear()
        self._is_past_script = True

    def _take_metric(self, number: int, text: bytes, *, is_complete: bool) -> None:
        found = VALIDATION.fullmatch(text)
        if not is_complete and not text.endswith(b"ms") and not TRAINING.fullmatch(text):
            self._complain(number, f"the log is cut off in this line: {_excerpt(text)}")
        elif found is not None:
            self._take_validation(number, int(found[1]), int(found[2]), found[3])
        elif not TRAINING.fullmatch(text):
            self._complain(number, f"this is no metric line: {_excerpt(text)}")

    def _take_validation(self, number: int, step: int, planned_steps: int, loss: bytes) -> None:
        if step > planned_steps:
            self._complain(number, f"step {step} is beyond the {planned_steps} planned")
        elif not LOSS.fullmatch(loss) or float(loss) <= 0.0:
            wanted = "a positive loss with four decimals or more"
            self._complain(number, f"expected {wanted}, found {_excerpt(loss)}")
        else:
            self._add(number, step, planned_steps, float(loss))

    def _add(self, number: int, step: int, planned_steps: int, loss: float) -> None:
        last_step = next(reversed(self._losses), -1)
        is_same_plan = planned_steps == self._planned_steps
        if is_same_plan and step == last_step and str(self._losses[step]) == str(loss):
            return  # compared as text: nan is not equal to itself
        if not self._losses or not is_same_plan or step <= last_step:
            self._end_run()
            self._line, self._planned_steps = number, planned_steps
        self._losses[step] = loss

    def _end_run(self) -> None:
        """Put the run read so far with the others; the seed told since then is the next one's."""
        if self._losses:
            run = Run(
                path=self._path,
                line=self._line,
                submission=None,
                seed=self._seed,
                planned_steps=self._planned_steps,
                losses=self._losses,
            )
            self._runs.append(run)
            self._losses = {}
        self._seed, self._next_seed = self._next_seed, None

    def _complain(self, number: int, message: str) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.append(Problem(path=self._path, line=number, message=message))


def _excerpt(text: bytes) -> str:
    """Quote the beginning of a line from a stranger so that no terminal obeys it."""
    quoted = ascii(text[:EXCERPT].decode("utf-8", "replace"))
    return quoted + ("..." if len(text) > EXCERPT else "")
