"""Try the corpus in several lanes at a time and gather what they found."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox.ownership import is_deserted
from tests.adversarial.corpus import Attack
from tests.adversarial.lane import LaneSettings
from tests.adversarial.observed import Observed

__all__ = ["CorpusRun", "LaneError", "Tried", "run_corpus"]

_ROOT = Path(__file__).parents[2]
_CGROUPS = Path("/sys/fs/cgroup")
_OURS = "nanoevolve"
_GRACE_S = 5.0


class LaneError(RuntimeError):
    """A lane ended before its work was done: an attack has reached it, or it has a defect."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What came of one attack. `naive` is None where it is not meant to win there."""

    attack: Attack
    preflight: Observed
    naive: Observed | None
    jail: Observed | None

    @property
    def breaches(self) -> tuple[str, ...]:
        """Effects seen although preflight or the jail should have prevented them."""
        jail = self.jail.sightings if self.jail else ()
        return (*self.preflight.sightings, *jail)

    @property
    def is_weak(self) -> bool:
        """Whether it failed to win against the naive trainer, and so proves nothing."""
        return self.naive is not None and not self.naive.sightings


@dataclass(frozen=True, slots=True, kw_only=True)
class CorpusRun:
    """A run of the corpus: the attacks in their order, and the conditions.

    `ready` holds the fields of the worker's `WorkerReady`; `leftovers` what all lanes together
    left on the machine.
    """

    tried: tuple[Tried, ...]
    ready: dict[str, Any]
    leftovers: tuple[str, ...]
    wall_s: float


@dataclass(slots=True, kw_only=True)
class _Shared:
    """What the threads that serve the lanes share: each does one thing to it at a time."""

    waiting: deque[str]
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    ready: dict[str, Any] = field(default_factory=dict)
    processes: set[int] = field(default_factory=set)


def run_corpus(attacks: Sequence[Attack], settings: LaneSettings, lanes: int = 2) -> CorpusRun:
    """Try every attack once in some lane.

    Raises:
        LaneError: a lane ended early; its error output says why.
    """
    started = time.monotonic()
    before = _temporary_files()
    shared = _Shared(waiting=deque(attack.id for attack in attacks))
    with ThreadPoolExecutor(lanes) as threads:
        served = [threads.submit(_serve_lane, settings, shared) for _ in range(lanes)]
    for each in served:
        each.result()
    return CorpusRun(
        tried=tuple(_tried(attack, shared.found[attack.id]) for attack in attacks),
        ready=shared.ready,
        leftovers=_leftovers(before, shared.processes),
        wall_s=time.monotonic() - started,
    )


def _serve_lane(settings: LaneSettings, shared: _Shared) -> None:
    """Start a lane and give it one attack after the other until none is waiting."""
    path = os.pathsep.join([str(_ROOT), *(each for each in sys.path if each)])
    with subprocess.Popen(  # noqa: S603 - our own interpreter and module
        [sys.executable, "-m", "tests.adversarial.lane", json.dumps(dataclasses.asdict(settings))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": path},
        text=True,
    ) as lane:
        if lane.stdin is None or lane.stdout is None:
            raise LaneError("a lane has no pipes")
        shared.ready = _receive(lane.stdout.readline(), "when it started")
        with contextlib.suppress(IndexError):  # none is waiting any more
            while True:
                name = shared.waiting.popleft()
                lane.stdin.write(name + "\n")
                lane.stdin.flush()
                shared.found[name] = _receive(lane.stdout.readline(), f"in {name}")
        lane.stdin.close()
        shared.processes |= set(_receive(lane.stdout.readline(), "at its end")["processes"])


def _receive(line: str, when: str) -> dict[str, Any]:
    if not line:
        raise LaneError(f"a lane ended {when}, and what it printed above may say why")
    message: dict[str, Any] = json.loads(line)
    return message


def _tried(attack: Attack, found: dict[str, Any]) -> Tried:
    def observed(kind: str) -> Observed | None:
        if kind not in found:
            return None
        fields = found[kind]
        return Observed(**{**fields, "sightings": tuple(fields["sightings"])})

    preflight = observed("preflight")
    if preflight is None:
        raise LaneError(f"preflight was not asked about {attack.id}")
    return Tried(attack=attack, preflight=preflight, naive=observed("naive"), jail=observed("jail"))


def _temporary_files() -> set[str]:
    """Return what of ours lies in the folders for temporary files."""
    folders = (Path("/dev/shm"), Path(tempfile.gettempdir()))  # noqa: S108 - watched only
    return {
        str(path)
        for folder in folders
        if folder.is_dir()
        for path in folder.iterdir()
        if path.name.startswith(_OURS) and not _has_living_owner(path)
    }


def _has_living_owner(path: Path) -> bool:
    """Tell whether a pool that goes on has named this folder: it is somebody else's then."""
    return re.match(rf"{_OURS}-[0-9a-f]+-\d+-", path.name) is not None and not is_deserted(
        path.name
    )


def _control_groups(processes: set[int]) -> set[str]:
    """Return the control groups that are named for one of these processes."""
    return {
        str(path)
        for path in _CGROUPS.rglob(f"*{_OURS}*")
        if processes & set(map(int, re.findall(r"\d+", path.name)))
    }


def _leftovers(before: set[str], processes: set[int]) -> tuple[str, ...]:
    """Return what has come since `before` and stays, now that all lanes have ended."""
    deadline = time.monotonic() + _GRACE_S
    while new := (_temporary_files() - before) | _control_groups(processes):
        if time.monotonic() > deadline:
            break
        time.sleep(0.1)
    return tuple(sorted(new))
