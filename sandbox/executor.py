"""A pool of evaluation workers on this machine, driven from asyncio.

Jobs go out and outcomes come back as JSON lines over each worker's pipes. A worker that dies or
falls silent is replaced and its job retried; a job never comes back half done. The workers get
an environment of our own making, so no key the user has set ever reaches them.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from sandbox.cgroups import remove_stale
from sandbox.jobs import Job, Outcome, Status, WorkerReady, WorkerSpec
from sandbox.scratch import scratch_folder
from sandbox.wire import (
    MESSAGE_FAILED,
    MESSAGE_OUTCOME,
    MESSAGE_READY,
    MESSAGE_REFUSED,
    decode_outcome,
    decode_ready,
    encode_job,
)

__all__ = ["LocalPool", "PoolError", "Running", "WorkerRefused"]

_LOG = logging.getLogger(__name__)

_START_S = 300.0  # importing torch on a cold, busy machine, tokenising and probing
_SILENCE_S = 180.0  # a worker reports progress at least once a second while it is well
_LINE_BYTES = 8 << 20
_CLEANUP_S = 5.0
_CLEANUP_POLL_S = 0.01
_ATTEMPTS = 3
_STDERR_LINES = 3


class WorkerRefused(Exception):  # noqa: N818 - a refusal is the user's to act on, not a defect
    """A worker cannot start with this configuration; the message says what to do."""


class PoolError(Exception):
    """Workers cannot be had: nothing can be evaluated at the moment."""


class _WorkerLostError(Exception):
    """A worker ended or fell silent in the middle of something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A job being trained now, and how far it is."""

    job: Job
    started_at: float  # time.monotonic()
    step: int


class LocalPool:
    """Evaluation workers as local subprocesses, one job each at a time.

    Use as an async context manager: entering starts all workers and fails with `WorkerRefused`
    when the configuration cannot work; leaving kills them.
    """

    def __init__(self, spec: WorkerSpec, workers: int) -> None:
        self._spec = spec
        self._size = workers
        self._scratch = contextlib.ExitStack()
        self._idle: asyncio.Queue[_Worker] = asyncio.Queue()
        self._workers: list[_Worker] = []
        self._ready: WorkerReady | None = None

    @property
    def ready(self) -> WorkerReady:
        """What the first worker reported when it started."""
        if self._ready is None:
            raise PoolError("the pool has not been started")
        return self._ready

    @property
    def size(self) -> int:
        """How many jobs can run at the same time."""
        return self._size

    def running(self) -> tuple[Running, ...]:
        """What is being trained at this moment."""
        return tuple(worker.current for worker in self._workers if worker.current is not None)

    async def __aenter__(self) -> Self:
        try:
            scratch = self._scratch.enter_context(scratch_folder())
        except OSError as error:
            raise PoolError(f"there is no place for temporary files: {error}") from error
        workers = [_Worker(self._spec, scratch) for _ in range(self._size)]
        self._workers = workers
        try:
            # The first one alone: a refusal is then reported once, and it fills shared caches.
            self._ready = await workers[0].start()
            async with asyncio.TaskGroup() as group:
                for worker in workers[1:]:
                    group.create_task(worker.start())
        except _WorkerLostError as error:
            await self._close()
            raise PoolError(f"an evaluation worker did not start: {error}") from error
        except BaseExceptionGroup as errors:
            await self._close()
            raise PoolError(
                f"an evaluation worker did not start: {errors.exceptions[0]}"
            ) from errors
        except BaseException:
            await self._close()
            raise
        for worker in workers:
            self._idle.put_nowait(worker)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._close()

    async def run(self, job: Job) -> Outcome:
        """Carry out `job` on the next free worker.

        A failure of the sandbox itself is tried again on a fresh worker; after three failures
        the outcome says `sandbox_error`.

        Raises:
            PoolError: no worker can be started any more.
        """
        worker = await self._idle.get()
        try:
            return await self._run_on(worker, job)
        finally:
            self._idle.put_nowait(worker)

    async def _run_on(self, worker: _Worker, job: Job) -> Outcome:
        reason = ""
        for _ in range(_ATTEMPTS):
            try:
                if not worker.is_alive:
                    await worker.start()
                outcome = await worker.run(job)
            except _WorkerLostError as error:
                reason = str(error)
                _LOG.warning("an evaluation worker was lost and is replaced: %s", reason)
                await worker.kill()
                continue
            except WorkerRefused as error:
                raise PoolError(f"an evaluation worker could not be replaced: {error}") from error
            except asyncio.CancelledError:
                await worker.kill()
                raise
            if outcome.status is not Status.SANDBOX_ERROR:
                return outcome
            reason = outcome.reason
            _LOG.warning("the sandbox failed, the job is tried again: %s", reason)
            await worker.kill()
        return Outcome(
            status=Status.SANDBOX_ERROR,
            reason=f"the sandbox failed {_ATTEMPTS} times, last: {reason}",
            bpb=None,
            curve=(),
            fingerprint=None,
        )

    async def _close(self) -> None:
        for worker in self._workers:
            await worker.kill()
        self._scratch.close()


class _Worker:
    """One worker process and the conversation with it."""

    def __init__(self, spec: WorkerSpec, scratch: Path) -> None:
        self._spec = spec
        self._scratch = scratch
        self._process: asyncio.subprocess.Process | None = None
        self._stderr: IO[bytes] | None = None
        self.current: Running | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the process runs and is ready for a job."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> WorkerReady:
        """Start the process and wait until it can take jobs.

        Raises:
            WorkerRefused: it cannot work with this configuration.
            _WorkerLostError: it ended or did not answer.
        """
        try:
            self._stderr = tempfile.TemporaryFile(dir=self._scratch)  # noqa: SIM115 - closed when the worker is killed
        except OSError as error:
            raise _WorkerLostError(f"it has no place for what it prints: {error}") from error
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "sandbox.worker",
            json.dumps(dataclasses.asdict(self._spec)),
            str(os.getpid()),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(self._scratch),
            limit=_LINE_BYTES,
        )
        message = await self._receive(_START_S)
        if message["type"] == MESSAGE_REFUSED:
            await self.kill()
            raise WorkerRefused(message["message"])
        if message["type"] != MESSAGE_READY:
            raise _WorkerLostError(f"a worker began with {message['type']!r}")
        return decode_ready(message["ready"])

    async def run(self, job: Job) -> Outcome:
        """Send one job and wait for its outcome."""
        process = self._require_process()
        if process.stdin is None:
            raise _WorkerLostError("a worker has no input")
        self.current = Running(job=job, started_at=time.monotonic(), step=0)
        try:
            process.stdin.write(encode_job(job))
            async with asyncio.timeout(_SILENCE_S):
                await process.stdin.drain()
            while True:
                message = await self._receive(_SILENCE_S)
                if message["type"] == MESSAGE_OUTCOME:
                    return decode_outcome(message["outcome"])
                if message["type"] == MESSAGE_FAILED:
                    raise _WorkerLostError(message["message"])
                self.current = dataclasses.replace(self.current, step=message["step"])
        except (ConnectionError, TimeoutError) as error:
            raise _WorkerLostError(f"a worker does not take jobs: {error}") from error
        finally:
            self.current = None

    async def kill(self) -> None:
        """Kill the process, and with it its zygote and jail, and reap it."""
        if self._process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await _remove_control_groups(self._process.pid)
        self._process = None
        if self._stderr is not None:
            self._stderr.close()
            self._stderr = None

    async def _receive(self, timeout_s: float) -> dict[str, Any]:
        process = self._require_process()
        if process.stdout is None:
            raise _WorkerLostError("a worker has no output")
        try:
            async with asyncio.timeout(timeout_s):
                line = await process.stdout.readline()
        except TimeoutError as error:
            raise _WorkerLostError(f"a worker was silent for {timeout_s:.0f} s") from error
        if not line.endswith(b"\n"):
            code = await process.wait()
            raise _WorkerLostError(f"a worker ended with exit code {code}: {self._last_words()}")
        message: dict[str, Any] = json.loads(line)
        return message

    def _last_words(self) -> str:
        if self._stderr is None:
            return ""
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", errors="replace").split("\n")
        return " | ".join([line for line in lines if line.strip()][-_STDERR_LINES:])

    def _require_process(self) -> asyncio.subprocess.Process:
        if self._process is None:
            raise _WorkerLostError("a worker is not running")
        return self._process


async def _remove_control_groups(worker: int) -> None:
    """Remove what a killed worker could not: its zygote and jail die a moment after it."""
    deadline = time.monotonic() + _CLEANUP_S
    # Nobody announces the end of a grandchild.
    while not remove_stale(worker) and time.monotonic() < deadline:  # noqa: ASYNC110 - see above
        await asyncio.sleep(_CLEANUP_POLL_S)


def _environment(scratch: Path) -> dict[str, str]:
    """The whole environment of a worker: paths and one thread, no keys."""
    names = ("PATH", "HOME", "LANG", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES")
    environment = {name: os.environ[name] for name in names if name in os.environ}
    # Compiled code is worth keeping: it would otherwise go with the other temporary files.
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    compiled = Path(cache, "nanoevolve", "compiled")
    return environment | {
        "TMPDIR": str(scratch),
        "TORCHINDUCTOR_CACHE_DIR": os.environ.get("TORCHINDUCTOR_CACHE_DIR", str(compiled)),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
