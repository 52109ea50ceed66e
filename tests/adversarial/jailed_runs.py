"""Run attacks through the real path, a pool with one worker, with preflight left out."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import shutil
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sandbox.executor import LocalPool
from sandbox.jobs import Job, Limits, Outcome, Status, WorkerReady, WorkerSpec
from tests.adversarial.corpus import Attack
from tests.adversarial.observed import Observed, score_sightings, text_sightings
from tests.adversarial.processes import descendants, end_and_reap, open_files, resident_bytes
from tests.adversarial.program import PROFILE, host_program, spliced
from tests.adversarial.scene import Scene

__all__ = ["JailedRuns"]

# An honest run takes 0.05 s of CPU time; the limits of a real run leave that much room and more.
_LIMITS = Limits(cpu_s=0.7, wall_s=2.5, memory_bytes=512 << 20)
_STEPS, _HORIZON, _SEED = 8, 40, 3
_VERDICT_S = 20.0  # limits, their grace periods and a busy machine
_GIVE_UP_S = 90.0
_GROWTH_BYTES = 64 << 20


class JailedRuns:
    """A pool with one worker whose processes all descend from this one.

    Run from a folder of its own, which must stay empty. Afterwards the worker must be the same
    process, hold no more than before and score the program without attack to the bit as before.

    Attributes:
        reference: outcome of the program without attack.
        processes: ids of the worker and of what it kept running, now and before.
    """

    def __init__(self, required_level: int) -> None:
        spec = WorkerSpec(profile=PROFILE, required_level=required_level)
        self._pool = LocalPool(spec, workers=1)
        self._runner = asyncio.Runner()
        self._host = host_program()
        self.processes: set[int] = set()

    def __enter__(self) -> Self:
        try:
            self._runner.run(self._pool.__aenter__())
            self._run(self._host)
            self.reference = self._run(self._host)
            self._settle()
        except BaseException:
            self._runner.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._runner.run(self._pool.__aexit__(kind, error, trace))
        self._runner.close()

    @property
    def ready(self) -> WorkerReady:
        """What the worker reported when it started."""
        return self._pool.ready

    def attempt(self, attack: Attack, scene: Scene) -> Observed:
        """Run an attack and look for its effects."""
        started = time.monotonic()
        seen: list[str] = []
        outcomes = []
        for code in attack.candidates:
            outcome = self._run(spliced(attack, scene.fill_in(code, parent=self._worker)))
            outcomes.append(outcome)
            seen += self._of_outcome(attack, outcome)
        seconds = time.monotonic() - started
        if seconds > _VERDICT_S * len(outcomes):
            seen.append(f"the verdict took {seconds:.0f} s")
        text = "".join(json.dumps(dataclasses.asdict(outcome)) for outcome in outcomes)
        if (key := os.environ.get("FAKE_API_KEY")) and key in text:
            seen.append("the output has the canary of the environment")
        seen += scene.sightings(text, attack.says)
        seen += self._of_surroundings()
        worst = next((each for each in outcomes if each.status is not Status.OK), outcomes[-1])
        return Observed(
            verdict=worst.status.value,
            reason=worst.reason,
            seconds=seconds,
            sightings=tuple(seen),
        )

    def _of_outcome(self, attack: Attack, outcome: Outcome) -> list[str]:
        seen = text_sightings(outcome.reason, outcome.output_tail)
        if outcome.status is Status.SANDBOX_ERROR:
            seen.append(f"the sandbox itself failed: {outcome.reason}")
        if attack.is_control and outcome.status is not Status.OK:
            seen.append(f"harmless, but ended as {outcome.status}: {outcome.reason}")
        if self.reference.bpb is not None:
            seen += score_sightings(attack.loss, outcome.bpb, self.reference.bpb)
        return seen

    def _of_surroundings(self) -> list[str]:
        """Look at processes, the worker and this folder, then put all in order again."""
        seen = []
        for name in os.listdir():
            seen.append(f"left {name} in the worker's folder")
            path = Path(name)
            path.unlink() if not path.is_dir() or path.is_symlink() else shutil.rmtree(path)
        again = self._run(self._host)
        if _behaviour(again) != _behaviour(self.reference):
            seen.append(f"the next honest run scored {again.bpb}, not {self.reference.bpb}")
        survivors = end_and_reap(self._known | {self._find_worker()})
        seen += [f"{count} processes {name!r} survived" for name, count in survivors.items()]
        if self._find_worker() != self._worker:
            seen.append("the worker was lost")
        else:
            seen += self._of_worker()
        if seen:
            self._settle()
        return seen

    def _of_worker(self) -> list[str]:
        seen = []
        if (files := open_files(self._worker)) > self._worker_files:
            seen.append(f"the worker has {files} descriptors open, not {self._worker_files}")
        if resident_bytes(self._worker) > self._worker_bytes + _GROWTH_BYTES:
            seen.append("the worker's memory has grown")
        return seen

    def _settle(self) -> None:
        """Take the present state, after an honest run, as the one to come back to."""
        self._worker = self._find_worker()
        self._known = set(descendants())
        self.processes |= self._known
        self._worker_files = open_files(self._worker)
        self._worker_bytes = resident_bytes(self._worker)

    def _find_worker(self) -> int:
        for process in descendants().values():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if b"sandbox.worker" in Path(f"/proc/{process.pid}/cmdline").read_bytes():
                    return process.pid
        raise ProcessLookupError("the pool has no worker")

    def _run(self, source: str) -> Outcome:
        job = Job(source=source, seed=_SEED, steps=_STEPS, horizon=_HORIZON, limits=_LIMITS)
        return self._runner.run(asyncio.wait_for(self._pool.run(job), _GIVE_UP_S))


def _behaviour(outcome: Outcome) -> tuple[object, ...]:
    return outcome.status, outcome.bpb, outcome.fingerprint, outcome.curve
