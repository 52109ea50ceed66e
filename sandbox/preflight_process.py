"""The process in which candidates' texts are read: one examination per line of input.

Started by `sandbox.guarded_preflight`. It says when it is ready, then answers every request with
an examination, and ends with its input: when the controller is gone, so is it. A text that needs
too much time kills the process by a timer, one that needs too much memory or meets a defect of a
rule ends it with an exit code that says so. It never imports torch.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
from typing import BinaryIO

from sandbox.examination import decode_request, encode_examination, examine

__all__ = ["EXIT_DEFECT", "EXIT_MEMORY", "EXIT_WORN", "READY_LINE", "main"]

READY_LINE = b"ready\n"
EXIT_DEFECT = 1  # what the interpreter ends with after an exception, its traceback printed
EXIT_MEMORY = 41
EXIT_WORN = 42
MAX_STDERR_BYTES = 1 << 20


def main(cpu_s: float, memory_bytes: int, worn_bytes: int) -> int:
    """Answer requests on standard input until it ends.

    What is remembered of earlier texts grows with use. A process that has become large ends after
    its answer, so that a text always finds most of the memory limit free: what becomes of it must
    not depend on the texts before.

    Args:
        cpu_s: CPU time one request may take.
        memory_bytes: address space of the process.
        worn_bytes: resident memory at which it ends by itself.

    Returns:
        The exit code.
    """
    _limit(memory_bytes)
    # Syntax trees come and go by the hundred thousand nodes, none of them cyclic.
    gc.set_threshold(50_000, 20, 50)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    try:
        _send(answers, READY_LINE)
        for line in requests:
            # The timer's signal ends the process wherever it is, inside the parser as well.
            signal.setitimer(signal.ITIMER_PROF, cpu_s)
            answer = encode_examination(examine(decode_request(line)))
            signal.setitimer(signal.ITIMER_PROF, 0.0)
            _send(answers, answer)
            if _resident_bytes() > worn_bytes:
                return EXIT_WORN
    except MemoryError:
        return EXIT_MEMORY
    except BrokenPipeError:
        os._exit(0)  # nobody listens any more, and nothing is left to flush
    return 0


def _limit(memory_bytes: int) -> None:
    if sys.platform == "linux":  # other systems refuse this limit, or do not keep it
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Standard error is a file, and may hold a traceback; nothing else is ever written.
    resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_STDERR_BYTES, MAX_STDERR_BYTES))
    signal.signal(signal.SIGPROF, signal.SIG_DFL)


def _send(answers: BinaryIO, line: bytes) -> None:
    answers.write(line)
    answers.flush()


def _resident_bytes() -> int:
    """Return how much memory the process takes now; 0 where that cannot be told."""
    if sys.platform != "linux":
        return 0
    # Not ru_maxrss, which is at least that of the process that started this one.
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


if __name__ == "__main__":
    limits = json.loads(sys.argv[1])
    sys.exit(main(limits["cpu_s"], limits["memory_bytes"], limits["worn_bytes"]))
