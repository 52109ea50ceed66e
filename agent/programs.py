"""Find the program a person means: a file, a program of a run, or one that comes with the project.

`shipped` is nanochat/optim.py as it stands, `tuned` the same with the knobs tuned for a profile,
`reference:NAME` a well-known optimizer, `run:RUN/PROGRAM` a program of a run. Anything else is
the path of a file. Files are read, never imported: what is in them runs in a jail or not at all.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent.run_folder import RunFolderError, find_run
from agent.summary import findings
from db.records import Program
from db.store import Store, StoreError
from sandbox.baseline import BaselineError, seed_program, shipped_program
from sandbox.protocol import clean_text
from sandbox.source_form import SourceError, statements

__all__ = [
    "NamedProgram",
    "NoSuchProgramError",
    "Origin",
    "find_program",
    "origin_of",
    "reference_names",
]

SHIPPED = "shipped"
TUNED = "tuned"
REFERENCE = "reference:"
RUN = "run:"
ENTRY_POINT = "build_optimizer"
MAX_FILE_BYTES = 4 << 20  # a hundred times the shipped file
MAX_NAME = 60


class NoSuchProgramError(Exception):
    """What was named is not there, or is no program; the message says what there is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """What a name says about the program before it is read.

    `settings` are those of the run it comes from. `is_own` tells a file that somebody gave from
    a program that went through preflight or comes with the project.
    """

    is_own: bool
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedProgram:
    """A program and what to call it."""

    name: str
    source: str
    origin: Origin


def origin_of(name: str, runs_dir: Path) -> Origin:
    """Say where a name points, without reading the program.

    Raises:
        NoSuchProgramError: it names a run that is not there.
    """
    if name.startswith(RUN):
        with _run(name, runs_dir) as store:
            return Origin(is_own=False, settings=store.run().settings)
    return Origin(is_own=name not in {SHIPPED, TUNED} and not name.startswith(REFERENCE))


def find_program(name: str, *, profile: str, runs_dir: Path) -> NamedProgram:
    """Return the program that is meant by `name`.

    Args:
        name: as in this module's first lines.
        profile: whose tuned knobs `tuned` has.
        runs_dir: where runs are looked up by id.

    Raises:
        NoSuchProgramError: there is no such program, or it is none.
    """
    try:
        source = _source(name, profile, runs_dir)
    except BaselineError as error:
        raise NoSuchProgramError(str(error)) from error
    _require_program(name, source)
    origin = origin_of(name, runs_dir)
    label = name if not origin.is_own else Path(name).name
    return NamedProgram(name=_clean(label), source=source, origin=origin)


def reference_names() -> tuple[str, ...]:
    """Name the reference optimizers."""
    return tuple(sorted(path.stem for path in _references().glob("[a-z]*.py")))


def _source(name: str, profile: str, runs_dir: Path) -> str:
    if name == SHIPPED:
        return shipped_program()
    if name == TUNED:
        return seed_program(profile)
    if name.startswith(REFERENCE):
        return _reference(name.removeprefix(REFERENCE))
    if name.startswith(RUN):
        return _of_run(name, runs_dir)
    return _read(Path(name))


def _reference(name: str) -> str:
    known = reference_names()
    if name not in known:
        raise NoSuchProgramError(f"no reference optimizer {name!r}: there are {', '.join(known)}")
    return _read(_references() / f"{name}.py")


def _references() -> Path:
    """Locate the folder without importing the package: its modules import torch."""
    spec = importlib.util.find_spec("nanochat")
    if spec is None or spec.origin is None:
        raise NoSuchProgramError("the package nanochat is not installed")
    return Path(spec.origin).parent / "references"


def _of_run(name: str, runs_dir: Path) -> str:
    with _run(name, runs_dir) as store:
        try:
            return _program(store, name.rpartition("/")[2]).source
        except StoreError as error:
            raise NoSuchProgramError(f"{name}: {error}") from error


def _run(name: str, runs_dir: Path) -> Store:
    """Open the run of a name like `run:latest/best`, for reading."""
    run, slash, _ = name.removeprefix(RUN).rpartition("/")
    if not slash or not run:
        raise NoSuchProgramError(
            f"{name}: expected run:RUN/PROGRAM, such as run:latest/best; a run is a folder, an id "
            "or latest, a program best, seed, the beginning of an id or a number as in #12"
        )
    try:
        return Store.open(find_run(run, runs_dir), exclusive=False)
    except (RunFolderError, StoreError) as error:
        raise NoSuchProgramError(f"{name}: {error}") from error


def _program(store: Store, name: str) -> Program:
    if name in {"best", "seed"}:
        found = findings(store)
        program = found.best if name == "best" else found.seed
        if program is None:
            raise StoreError(f"the run has no {name} program yet: its seed is not measured")
        return program
    if name.startswith("#"):
        ids = [p.program_id for p in store.proposals() if f"#{p.ordinal}" == name]
        if not ids or ids[0] is None:
            raise StoreError(f"no program {name}: see the numbers in `agent.inspect RUN tree`")
        name = ids[0]
    return store.program(name)


def _read(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise NoSuchProgramError(
            f"cannot read {path} ({error.strerror}): give an optimizer file, shipped, tuned, "
            "reference:NAME or run:RUN/PROGRAM"
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise NoSuchProgramError(f"{path} has more than {MAX_FILE_BYTES >> 20} MiB")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NoSuchProgramError(f"{path} is not UTF-8 text, see byte {error.start}") from error


def _require_program(name: str, source: str) -> None:
    try:
        nodes = [node for statement in statements(source) for node in statement.nodes]
    except SourceError as error:
        raise NoSuchProgramError(f"{_clean(name)} is no Python program: {error}") from error
    if not any(_provides_entry_point(node) for node in nodes):
        raise NoSuchProgramError(
            f"{_clean(name)} is no optimizer file: it has no function "
            f"{ENTRY_POINT}(params, horizon), which makes the optimizer"
        )


def _provides_entry_point(node: ast.stmt) -> bool:
    match node:
        case ast.FunctionDef(name=name):
            return name == ENTRY_POINT
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name == ENTRY_POINT
        case ast.ImportFrom(names=names):
            return any((alias.asname or alias.name) == ENTRY_POINT for alias in names)
    return False


def _clean(name: str) -> str:
    """Make a name fit for tracebacks and tables."""
    return " ".join(clean_text(name).split())[:MAX_NAME] or "program"
