"""Turn the signals that ask a program to end into a clean stop, from its first moment on."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

__all__ = ["Stopper", "stoppable"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopper:
    """What a request to stop does at the moment.

    Args:
        stop: carries the request out.
        numbers: the signals that ask for it.

    Attributes:
        stop: carries the request out; whoever enters another phase replaces it.
        is_requested: whether somebody asked.
    """

    def __init__(self, stop: Callable[[], object], numbers: Sequence[signal.Signals]) -> None:
        self.stop = stop
        self._numbers = numbers
        self.is_requested = False

    def request(self) -> None:
        """Ask for the end; asking again changes nothing."""
        if not self.is_requested:
            self.is_requested = True
            self.stop()

    def let_go(self) -> None:
        """Have signals end the program at once from now on."""
        loop = asyncio.get_running_loop()
        for number in self._numbers:
            loop.remove_signal_handler(number)


@contextmanager
def stoppable() -> Iterator[Stopper]:
    """Have signals cancel the current task, until another way to stop is set.

    A hangup that was ignored when this process started, as by `nohup`, stays ignored.
    """
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    if task is None:
        raise RuntimeError("only a task can be stopped")
    ignores_hangup = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    numbers = [n for n in _SIGNALS if not (n is signal.SIGHUP and ignores_hangup)]
    stopper = Stopper(task.cancel, numbers)
    for number in numbers:
        loop.add_signal_handler(number, stopper.request)
    try:
        yield stopper
    finally:
        stopper.let_go()
