"""Find logs and group their runs into submissions.

The benchmark keeps the logs of one submission in one folder, so the runs of a folder that were
planned for the same number of steps are one submission. A table of curves names its submissions.

The same run is often there twice: as the log its script wrote, as captured output, or as a few
lines quoted from either. Counted twice it would make n larger than it is, so a run all of whose
losses appear in another run of the submission is set aside as a repeat.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

from agent.track3.curves import is_curves, read_curves
from agent.track3.logs import read_log
from agent.track3.runs import Problem, Reading, Run

__all__ = ["Collection", "LogsError", "Repeat", "Submission", "borrowed", "collect"]

LOG_SUFFIXES = {".txt", ".log", ".out", ".stdout", ".csv"}

# Two runs of equal loss at one step are no rarity among thirty (printed to 1e-5, sd 1e-3), and at
# step 0 all are equal; runs that agree at three steps and differ nowhere are one run.
LEAST_EQUAL_STEPS = 3


class LogsError(Exception):
    """Logs were named that are not there, or that hold no runs; the message says which."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeat:
    """A run that holds nothing but losses of another run."""

    run: Run
    of: Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """The runs that stand for one optimizer.

    Attributes:
        name: the folder of the logs, or the name a table gives.
        runs: without repeats, in the order they were read.
        repeats: what was set aside.
        problems: lines of its files that could not be read.
        sources: how many different training scripts its logs hold.
        script_lines: validation lines quoted inside those scripts and not read.
    """

    name: str
    runs: tuple[Run, ...]
    repeats: tuple[Repeat, ...] = ()
    problems: tuple[Problem, ...] = ()
    sources: int = 0
    script_lines: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Collection:
    """All submissions found, and the files of folders in which no run was found."""

    submissions: tuple[Submission, ...]
    without_runs: tuple[Path, ...]


@dataclass(slots=True, kw_only=True)
class _Gathering:
    """What bears one name, while files are being read."""

    runs: list[Run] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    readings: dict[Path, Reading] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A file to read: whether it was named itself, and which submissions of it are wanted."""

    path: Path
    is_named: bool
    wanted: str

    def holds(self, name: str) -> bool:
        return fnmatchcase(name, self.wanted)


def collect(paths: Sequence[Path]) -> Collection:
    """Read all logs below the paths: files, folders, or PATH:NAME for a part of one.

    Folders are searched for names ending in .txt, .log, .out, .stdout or .csv. `PATH:NAME` keeps
    the submissions of PATH called NAME, which may hold `*` and `?`.

    Raises:
        LogsError: a path does not exist or cannot be read, or nothing in it is a log.
    """
    gathered: dict[str, _Gathering] = {}
    without_runs: list[Path] = []
    try:
        for file in _distinct(paths):
            reading = _read(file)
            if reading.runs or reading.problems:
                _gather(file, reading, gathered)
            else:
                without_runs.append(file.path)
    except OSError as error:
        raise LogsError(f"the logs cannot be read: {error}") from error
    if not gathered:
        raise LogsError(f"no run found in {', '.join(map(str, paths))}")
    return Collection(
        submissions=tuple(
            one for name, parts in gathered.items() for one in _submissions(name, parts)
        ),
        without_runs=tuple(without_runs),
    )


def borrowed(submissions: Sequence[Submission]) -> dict[str, tuple[Repeat, ...]]:
    """Return the runs that stand in several submissions, under the smaller of them.

    Runs of two optimizers are never equal: the same logs were read under two names, or one of the
    two has not run them itself.
    """
    known = _Known()
    found: dict[str, tuple[Repeat, ...]] = {}
    for submission in sorted(submissions, key=lambda one: -len(one.runs)):
        _, repeats = _without_repeats(submission.runs, known)
        if repeats:
            found[submission.name] = repeats
    return found


class _Known:
    """Runs in which others are looked for, by every loss they hold."""

    def __init__(self) -> None:
        self._holders: dict[tuple[int, float], list[Run]] = {}

    def whole_of(self, run: Run) -> Run | None:
        """Return a run that holds all losses of this one, if it is long enough to tell."""
        if sum(step > 0 for step in run.losses) < LEAST_EQUAL_STEPS:
            return None
        holders = self._holders.get((run.last_step, run.losses[run.last_step]), ())
        return next((one for one in holders if run.losses.items() <= one.losses.items()), None)

    def add(self, run: Run) -> None:
        """Look for others in this run from now on."""
        for item in run.losses.items():
            self._holders.setdefault(item, []).append(run)


def _distinct(paths: Sequence[Path]) -> Iterator[_File]:
    """Yield every file once, though it may be named itself and found in a folder too."""
    seen: set[tuple[Path, str]] = set()
    for path in paths:
        for file in _files(path):
            identity = (file.path.resolve(), file.wanted)
            if identity not in seen:
                seen.add(identity)
                yield file


def _files(path: Path) -> Iterator[_File]:
    wanted = "*"
    if not path.exists():
        before, _, name = str(path).rpartition(":")
        if not before or not Path(before).exists():
            raise LogsError(f"{path} does not exist")
        path, wanted = Path(before), name
    if path.is_file():
        yield _File(path=path, is_named=True, wanted=wanted)
    elif path.is_dir():
        for inside in _logs_below(path):
            yield _File(path=inside, is_named=False, wanted=wanted)
    else:
        raise LogsError(f"{path} is neither a file nor a folder")


def _logs_below(folder: Path) -> Iterator[Path]:
    def refuse(error: OSError) -> None:
        raise error

    for parent, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in sorted(names):
            path = Path(parent, name)
            if path.suffix in LOG_SUFFIXES and path.is_file():
                yield path


def _read(file: _File) -> Reading:
    reading = read_curves(file.path) if is_curves(file.path) else read_log(file.path)
    if file.is_named and not reading.runs and not reading.problems:
        problem = Problem(path=file.path, line=0, message="no line of it is a validation")
        return Reading(runs=(), problems=(problem,))
    return reading


def _gather(file: _File, reading: Reading, gathered: dict[str, _Gathering]) -> None:
    """Put what a file holds under the names it belongs to."""
    folder = str(file.path.parent)
    for run in reading.runs:
        name = run.submission or folder
        if file.holds(name):
            parts = gathered.setdefault(name, _Gathering())
            parts.runs.append(run)
            parts.readings[file.path] = reading
    for problem in reading.problems:
        name = problem.submission or folder
        if file.holds(name):
            gathered.setdefault(name, _Gathering()).problems.append(problem)


def _submissions(name: str, parts: _Gathering) -> Iterator[Submission]:
    """Divide what bears one name by planned steps.

    A file that could not be read says nothing on its number of steps, so its problems are those
    of every submission of its folder: a run may not be lost by being unreadable.
    """
    plans: list[int | None] = [*sorted({run.planned_steps for run in parts.runs})]
    readable = {run.path for run in parts.runs}
    for plan in plans or [None]:
        runs = [run for run in parts.runs if run.planned_steps == plan]
        files = {run.path for run in runs}
        readings = [reading for path, reading in parts.readings.items() if path in files]
        kept, repeats = _without_repeats(runs, _Known())
        yield Submission(
            name=f"{name} [{plan} steps]" if len(plans) > 1 else name,
            runs=kept,
            repeats=repeats,
            problems=tuple(
                problem
                for problem in parts.problems
                if problem.path in files or problem.path not in readable
            ),
            sources=len({one.source_digest for one in readings} - {None}),
            script_lines=sum(one.script_lines for one in readings),
        )


def _without_repeats(
    runs: Sequence[Run], known: _Known
) -> tuple[tuple[Run, ...], tuple[Repeat, ...]]:
    """Set aside runs that are part of another, keeping the longer or else the first of them."""
    kept: list[Run] = []
    repeats: list[Repeat] = []
    for run in sorted(runs, key=lambda one: -len(one.losses)):
        whole = known.whole_of(run)
        if whole is None:
            kept.append(run)
            known.add(run)
        else:
            repeats.append(Repeat(run=run, of=whole))
    order = {id(run): place for place, run in enumerate(runs)}
    return (
        tuple(sorted(kept, key=lambda one: order[id(one)])),
        tuple(sorted(repeats, key=lambda one: order[id(one.run)])),
    )
