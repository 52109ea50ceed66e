"""The evaluation worker: a long-lived process that turns jobs into outcomes.

Trusted, and without keys: it owns the model, the text, the loss, the seeds, the clock and the
verdict, and never executes a candidate's text. `python -m sandbox.worker SPEC PARENT` reads jobs
as lines on its input and writes progress and outcomes as lines on its output.
"""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import signal
import sys
import time
from importlib.metadata import version

import torch

from nanochat.allocator import keep_freed_memory
from sandbox.confine import die_with_parent
from sandbox.evaluator import Evaluator, UnusableConfigurationError
from sandbox.jail_process import SandboxFailure
from sandbox.jobs import WorkerReady, WorkerSpec
from sandbox.levels import ELSEWHERE
from sandbox.probe import probe
from sandbox.wire import (
    MESSAGE_OUTCOME,
    MESSAGE_PROGRESS,
    MESSAGE_READY,
    MESSAGE_REFUSED,
    decode_job,
    encode_message,
)
from sandbox.zygote_process import Zygote

__all__ = ["main"]

_PROGRESS_S = 0.25


class _Channel:
    """The worker's own line to the controller; nothing else may write there."""

    def __init__(self) -> None:
        self._fd = os.dup(1)
        os.dup2(2, 1)  # whatever a library prints goes to the error output
        self._reported_at = 0.0

    def send(self, line: bytes) -> None:
        """Write one whole line."""
        while line:
            line = line[os.write(self._fd, line) :]

    def progress(self, step: int) -> None:
        """Report the step being trained, at most four times a second."""
        now = time.monotonic()
        if now - self._reported_at >= _PROGRESS_S:
            self._reported_at = now
            self.send(encode_message(MESSAGE_PROGRESS, step=step))


def main() -> int:
    """Start up, report ready or refuse, then carry out jobs until the input ends."""
    if sys.platform != "linux":
        refusal = f"jails are made of what Linux offers, and this is {sys.platform}: {ELSEWHERE}"
        _Channel().send(encode_message(MESSAGE_REFUSED, message=refusal))
        return 2
    die_with_parent(int(sys.argv[2]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to act on
    keep_freed_memory()
    channel = _Channel()
    spec = WorkerSpec(**json.loads(sys.argv[1]))
    # The zygote first: it must be forked before this process has computed anything, and it
    # imports torch while this process prepares the text.
    zygote = Zygote()
    try:
        evaluator = Evaluator(spec, zygote)
        zygote.wait_until_ready()
        ready = _report(spec, evaluator, zygote)
    except (UnusableConfigurationError, SandboxFailure) as refusal:
        channel.send(encode_message(MESSAGE_REFUSED, message=str(refusal)))
        return 2
    channel.send(encode_message(MESSAGE_READY, ready=dataclasses.asdict(ready)))
    gc.freeze()
    while line := sys.stdin.buffer.readline():
        outcome = evaluator.run(decode_job(line), channel.progress)
        channel.send(encode_message(MESSAGE_OUTCOME, outcome=dataclasses.asdict(outcome)))
    return 0


def _report(spec: WorkerSpec, evaluator: Evaluator, zygote: Zygote) -> WorkerReady:
    """Probe the sandbox and say what every score will depend on."""
    report = probe(zygote)
    lacking = report.lacking(spec.required_level)
    if report.contradictions and not spec.unsafe:
        raise UnusableConfigurationError(
            f"this kernel does not do what it accepts ({'; '.join(report.contradictions)}): see "
            "`python -m sandbox.check`, run on another machine or outside this container, or give "
            "--unsafe-sandbox, which is recorded on every evaluation"
        )
    if lacking and not spec.unsafe:
        raise UnusableConfigurationError(
            f"this machine reaches sandbox level S{report.level}, but S{spec.required_level} is "
            f"required ({'; '.join(lacking)}): see `python -m sandbox.check`, lower "
            "--required-sandbox, or give --unsafe-sandbox, which is recorded on every evaluation"
        )
    return evaluator.describe(
        sandbox_level=report.level,
        capabilities=report.capabilities,
        versions={
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "pytorch-optimizer": version("pytorch-optimizer"),
        },
    )


if __name__ == "__main__":
    sys.exit(main())
