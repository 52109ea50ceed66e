"""Examine patches in a process of its own, so that no text can hurt the controller.

The process has limits on CPU time and memory and none of the controller's environment. It is
started when it is first needed, kept, and replaced when it dies. A text on which a fresh process
dies or takes too long is refused with a violation that says so; what another process leaves
behind never decides about a text, so the same text always gets the same answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
import tempfile
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import IO, Self

from sandbox.examination import (
    Examination,
    MalformedExaminationError,
    Request,
    decode_examination,
    encode_request,
    refusal,
    why_too_large,
)
from sandbox.executor import PoolError
from sandbox.preflight_process import EXIT_DEFECT, EXIT_MEMORY

__all__ = ["GuardedPreflight", "PreflightLimits", "PreflightLostError"]

_LOG = logging.getLogger(__name__)

_START_S = 60.0  # a tenth of a second on an idle machine
_LINE_BYTES = 8 << 20
_ATTEMPTS = 4  # the first may meet a worn process, and any may be killed from outside
_STDERR_BYTES = 4000
_QUOTE = 200
_EXIT_S = 10.0  # from the end of its output to the end of a process

# Signals a parser dies of by itself. SIGKILL is not among them: nothing here sends it.
_CRASHES = frozenset(
    {-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGABRT, -signal.SIGFPE, -signal.SIGILL}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreflightLimits:
    """What one text may use. A usual one takes a few milliseconds and no memory to speak of.

    `wall_s` is a backstop against a machine that hangs, and no text is blamed for it. A process
    whose resident memory has grown beyond `worn_bytes` is replaced before the next text.
    """

    cpu_s: float = 2.0
    wall_s: float = 60.0
    memory_bytes: int = 1 << 30
    worn_bytes: int = 256 << 20


class PreflightLostError(PoolError):
    """The process that reads candidates' texts cannot be had, whatever the text."""


class _ProcessLostError(Exception):
    """The process ended or fell silent.

    Attributes:
        code: its exit code, negative for a signal; None where it had to be killed.
        words: the end of what it wrote to standard error.
    """

    def __init__(self, code: int | None, words: str) -> None:
        super().__init__("no answer" if code is None else f"exit code {code}: {words}")
        self.code = code
        self.words = words


class GuardedPreflight:
    """Answers like `examine`, whatever the text.

    Use as an async context manager: leaving ends the process.
    """

    def __init__(self, limits: PreflightLimits | None = None) -> None:
        self._limits = limits or PreflightLimits()
        self._turn = asyncio.Lock()
        self._process: _Process | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self._end()

    async def examine(self, request: Request) -> Examination:
        """Apply a patch and run preflight on what comes out.

        Raises:
            PreflightLostError: the process cannot be kept alive, for reasons of the machine.
        """
        reason = why_too_large(request.patch)
        if reason is not None:
            return refusal("patch", reason)
        async with self._turn:
            for _ in range(_ATTEMPTS):
                examination = await self._attempt(encode_request(request))
                if examination is not None:
                    return examination
        raise PreflightLostError(
            f"the preflight process was lost {_ATTEMPTS} times in a row; is the machine out of "
            "memory, or does something kill it?"
        )

    async def _attempt(self, line: bytes) -> Examination | None:
        """Ask once; None where the process was lost and the text cannot be blamed."""
        if self._process is None:
            self._process = await _Process.start(self._limits)
        was_fresh = self._process.answered == 0
        try:
            return await self._process.ask(line, self._limits.wall_s)
        except _ProcessLostError as error:
            await self._end()
            return self._verdict_of(error) if was_fresh else None
        except BaseException:  # cancelled in the middle of an answer, or worse
            await self._end()
            raise

    def _verdict_of(self, error: _ProcessLostError) -> Examination | None:
        """Say what a fresh process died of, if it was the text."""
        if error.code == -signal.SIGPROF:
            cause = f"needed more than {self._limits.cpu_s:g} s of CPU time"
        elif error.code == EXIT_MEMORY:
            cause = f"ran out of its {self._limits.memory_bytes >> 20} MB of memory"
        elif error.code == EXIT_DEFECT:
            _LOG.error("a defect of preflight met by a candidate: %s", error.words)
            cause = f"failed with {error.words.splitlines()[-1][:_QUOTE]}"
        elif error.code in _CRASHES:
            cause = f"crashed with {signal.Signals(-error.code).name}"
        else:  # silence, or killed by somebody else
            _LOG.warning("the preflight process was lost and is replaced: %s", error)
            return None
        return refusal("limits", f"preflight {cause} on this text; make it simpler")

    async def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            await process.kill()


class _Process:
    """The process and the conversation with it."""

    def __init__(self, process: asyncio.subprocess.Process, stderr: IO[bytes]) -> None:
        self._process = process
        self._stderr = stderr
        self.answered = 0

    @classmethod
    async def start(cls, limits: PreflightLimits) -> _Process:
        """Start the process and wait until it listens.

        Raises:
            PreflightLostError: it does not start.
        """
        stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the process is killed
        try:
            started = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "sandbox.preflight_process",
                json.dumps(asdict(limits)),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env=_environment(),
                limit=_LINE_BYTES,
                start_new_session=True,  # Ctrl-C is for the controller to act on
            )
        except OSError as error:
            stderr.close()
            raise PreflightLostError(f"the preflight process does not start: {error}") from error
        except BaseException:
            stderr.close()
            raise
        process = cls(started, stderr)
        try:
            await process._exchange(b"", _START_S)
        except _ProcessLostError as error:
            await process.kill()
            raise PreflightLostError(f"the preflight process does not start: {error}") from error
        except BaseException:
            await process.kill()
            raise
        return process

    async def ask(self, line: bytes, timeout_s: float) -> Examination:
        """Send one request and wait for its answer.

        Raises:
            _ProcessLostError: there is none.
        """
        answer = await self._exchange(line, timeout_s)
        try:
            examination = decode_examination(answer)
        except MalformedExaminationError as error:
            raise _ProcessLostError(EXIT_DEFECT, str(error)) from error
        self.answered += 1
        return examination

    async def kill(self) -> None:
        """Kill the process and reap it."""
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        self._stderr.close()

    async def _exchange(self, line: bytes, timeout_s: float) -> bytes:
        """Write a line and read one."""
        requests, answers = self._process.stdin, self._process.stdout
        if requests is None or answers is None:
            raise _ProcessLostError(None, "")
        answer = b""
        try:
            async with asyncio.timeout(timeout_s):
                # A process that died while it was written to still has an exit code to tell.
                with contextlib.suppress(ConnectionError):
                    requests.write(line)
                    await requests.drain()
                answer = await answers.readline()
        except TimeoutError as error:
            raise _ProcessLostError(None, "") from error
        if not answer.endswith(b"\n"):
            raise _ProcessLostError(await self._exit_code(), self._last_words())
        return answer

    async def _exit_code(self) -> int | None:
        try:
            async with asyncio.timeout(_EXIT_S):
                return await self._process.wait()
        except TimeoutError:
            return None

    def _last_words(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - _STDERR_BYTES))
        return self._stderr.read().decode("utf-8", errors="replace").strip() or "nothing said"


def _environment() -> dict[str, str]:
    """The whole environment of the process: no keys, and hashes that are the same every time."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {"PYTHONPATH": path, "PYTHONHASHSEED": "0", "PYTHONDONTWRITEBYTECODE": "1"}
