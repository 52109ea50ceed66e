"""Keep every training run in a file, so that nothing is trained twice.

The record is a JSON Lines file: first what scores depend on, then a line for each run. Whoever
asks for a run that is in it gets the recorded outcome, so a command that was interrupted is simply
begun again. Scores that were measured under other conditions are refused, never mixed in.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent.compare_request import UsageError
from agent.evaluations import EvaluatorPool
from sandbox.executor import Running
from sandbox.jobs import Gradients, Job, Outcome, Status, WorkerReady

__all__ = ["MixedSettingsError", "RecordLostError", "RecordedRuns", "conditions", "keep"]

FIELDS = (
    "reason",
    "bpb",
    "fingerprint",
    "line",
    "jail_cpu_s",
    "train_cpu_s",
    "wall_s",
    "peak_memory_bytes",
    "sandbox_level",
    "unsafe",
)
# What the machine offers but scores do not depend on.
NO_CONDITION = frozenset({"capabilities", "sandbox_level"})

# A busy machine may have caused these, so they are tried again by the next command.
RETRIED = frozenset({Status.TIMEOUT_CPU, Status.TIMEOUT_WALL, Status.OOM, Status.PROTOCOL_ERROR})

_Key = tuple[str, int, int, int, str]


class MixedSettingsError(UsageError):
    """A record was made under other conditions; the message says which."""


class RecordLostError(Exception):
    """What was found out cannot be written down; the message says where and why."""


def keep(file: Path, text: str, *, at_end: bool = False) -> None:
    """Write a text to a file, or add it at its end.

    Raises:
        RecordLostError: the place is full, or may not be written.
    """
    try:
        with file.open("a" if at_end else "w", encoding="utf-8") as stream:
            stream.write(text)
    except OSError as error:
        raise RecordLostError(
            f"cannot write {file} ({error.strerror}): make room for it, then the same command goes "
            "on from here"
        ) from error


def conditions(ready: WorkerReady) -> dict[str, Any]:
    """Return what scores depend on, as JSON values."""
    return {name: value for name, value in asdict(ready).items() if name not in NO_CONDITION}


class RecordedRuns:
    """A pool that trains only what its record does not have.

    Args:
        pool: the workers; they have to be ready.
        file: the record; begun if it is not there.

    Attributes:
        trained: how many runs were trained since this object was made.

    Raises:
        MixedSettingsError: the record was made under other conditions, or is none.
        UsageError: its folder cannot be made.
        RecordLostError: it cannot be written.
    """

    def __init__(self, pool: EvaluatorPool, file: Path) -> None:
        self.trained = 0
        self._pool = pool
        self._file = file
        self._known: dict[_Key, Outcome] = {}
        self._read()

    @property
    def ready(self) -> WorkerReady:
        """What the workers reported when they started."""
        return self._pool.ready

    async def run(self, job: Job) -> Outcome:
        """Return a job's outcome from the record, or else train and record it.

        Raises:
            RecordLostError: the record cannot be written.
        """
        if job.evidence or job.gradients is not Gradients.TRUE:
            return await self._pool.run(job)  # the record has scores and nothing else
        key = _key(job)
        if key not in self._known:
            outcome = await self._pool.run(job)
            if outcome.status is Status.SANDBOX_ERROR:
                return outcome
            self.trained += 1
            self._add(key, outcome)
        return self._known[key]

    def running(self) -> Sequence[Running]:
        """What is being trained now, and how far it is."""
        return self._pool.running()

    def _read(self) -> None:
        wanted = conditions(self._pool.ready)
        if not self._file.is_file():
            self._begin(wanted)
            return
        text = self._file.read_text(encoding="utf-8")
        whole = text[: text.rfind("\n") + 1]
        if whole != text:  # a line that was being written when the machine went down
            keep(self._file, whole)
        try:
            first, *lines = [json.loads(line) for line in whole.splitlines()]
            self._known = {
                _key_of(entry): _outcome_of(entry)
                for entry in lines
                if Status(entry["status"]) not in RETRIED
            }
        except (ValueError, KeyError, TypeError) as error:
            raise MixedSettingsError(f"{self._file} is no record of runs: {error}") from error
        self._require_same(first, wanted)

    def _begin(self, wanted: Mapping[str, Any]) -> None:
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"cannot make the folder {self._file.parent} ({error.strerror}): choose another "
                "--out"
            ) from error
        keep(self._file, json.dumps(wanted) + "\n")

    def _require_same(self, found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
        other = [name for name in wanted if found.get(name) != wanted[name]]
        if other:
            name = other[0]
            raise MixedSettingsError(
                f"{self._file} was measured with {name} {found.get(name)}, here it is "
                f"{wanted[name]}: scores of two settings cannot be compared, choose another --out"
            )

    def _add(self, key: _Key, outcome: Outcome) -> None:
        entry = {
            "program": key[0],
            "seed": key[1],
            "steps": key[2],
            "horizon": key[3],
            "split": key[4],
            "status": outcome.status,
            **{name: getattr(outcome, name) for name in FIELDS},
        }
        keep(self._file, json.dumps(entry) + "\n", at_end=True)
        self._known[key] = _outcome_of(entry)


def _key(job: Job) -> _Key:
    program = hashlib.sha256(job.source.encode()).hexdigest()
    return program, job.seed, job.steps, job.total_steps, str(job.split)


def _key_of(entry: Mapping[str, Any]) -> _Key:
    return entry["program"], entry["seed"], entry["steps"], entry["horizon"], entry["split"]


def _outcome_of(entry: Mapping[str, Any]) -> Outcome:
    fields = {name: entry[name] for name in FIELDS}
    return Outcome(status=Status(entry["status"]), curve=(), **fields)
