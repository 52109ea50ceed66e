"""Print to a standard output that may go away: a closed pipe, a full disk, a lost terminal."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import NoReturn

from rich.console import Console

__all__ = ["OutputLostError", "PipeConsole", "printing", "say"]


class OutputLostError(Exception):
    """Nothing can be written to standard output any more."""


class PipeConsole(Console):
    """A console that reports a closed pipe like any other failure to write."""

    def on_broken_pipe(self) -> NoReturn:
        """Let the error pass, where rich would end the program without a word."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


@contextmanager
def printing(otherwise: str, *, silent_if_closed: bool = False) -> Iterator[None]:
    """Turn a failure to print into an `OutputLostError`.

    Args:
        otherwise: what is true all the same, such as "the run is stored".
        silent_if_closed: whether a reader who has seen enough, as `head` has, is no error.

    Raises:
        OutputLostError: standard output is closed or full.
    """
    try:
        yield
    except OSError as error:
        _discard_output()
        if error.errno == errno.EPIPE and silent_if_closed:
            return
        raise OutputLostError(
            f"cannot write to standard output ({error.strerror}): {otherwise}"
        ) from error


def say(sentence: str) -> None:
    """Print a sentence to standard error, if that is still there."""
    with suppress(OSError, AttributeError):
        sys.stderr.write(f"{sentence}\n")


def _discard_output() -> None:
    """Send what is still buffered nowhere: its flush at exit would fail again."""
    with suppress(OSError, ValueError):  # no descriptor: a test's own stream
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
