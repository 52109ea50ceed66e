"""The inside of a jail: confine, build the candidate's optimizer, answer requests.

This code is ours, but it shares its process with the candidate, so nothing it says is trusted:
the worker reads answers byte by byte and decides on its own. There is no model here, no text, no
loss function and no clock that counts.
"""

from __future__ import annotations

import json
import linecache
import mmap
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from sandbox.candidate import Candidate, seed_random_numbers
from sandbox.confine import Confinement, Layer, Surroundings, confine
from sandbox.probes import attempt
from sandbox.protocol import (
    ANSWER_CONFINED,
    ANSWER_DONE,
    ANSWER_READY,
    REQUEST_ENTER_EVAL,
    REQUEST_LEAVE_EVAL,
    REQUEST_STEP,
    STATE_FORMAT,
    STATE_SIZE,
    Failure,
    encode_failure,
)

__all__ = ["Descriptors", "run_jail"]

_STDIN, _STDOUT, _STDERR = 0, 1, 2
_FAILED_EXIT = 3


@dataclass(frozen=True, slots=True)
class Descriptors:
    """The descriptors a jail is given, in the order they are sent."""

    order: int  # memory file: JSON of what to run
    params: int  # memory file: all parameters, flat
    grads: int  # memory file: all gradients, flat
    requests: int  # pipe, read end
    answers: int  # pipe, write end
    output: int  # pipe, write end: the candidate's stdout and stderr
    monitor: int  # socket: takes the descriptor on which forbidden calls are announced


def run_jail(fds: Descriptors, surroundings: Surroundings) -> None:
    """Confine this process for good, then run what the order says until the requests end.

    Its standard input is the parent's, which must hold nothing.
    """
    order = _read_order(fds.order)
    size = order["elements"] * 4
    params = mmap.mmap(fds.params, size)
    grads = mmap.mmap(fds.grads, size)
    os.dup2(fds.output, _STDOUT)
    os.dup2(fds.output, _STDERR)
    sys.stdout = open(_STDOUT, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    sys.stderr = open(_STDERR, "w", buffering=1, errors="replace", closefd=False)  # noqa: SIM115
    limits = Confinement(**order["limits"])
    keep = {_STDIN, _STDOUT, _STDERR, fds.requests, fds.answers}
    layers = {Layer(name) for name in order["layers"]}
    missing = confine(limits, keep, surroundings, layers)
    try:
        if order["kind"] == "probe":
            _run_probes(fds.answers, order["probes"], missing)
            return
        os.write(fds.answers, ANSWER_CONFINED)
        service = _build_candidate(order, params, grads)
        os.write(fds.answers, ANSWER_READY)
        _serve(service, fds)
    except BaseException as error:  # noqa: BLE001 - whatever a candidate raises is its failure
        os.write(fds.answers, encode_failure(_describe(error, order["source_name"])))
        os._exit(_FAILED_EXIT)


def _read_order(fd: int) -> dict[str, Any]:
    with os.fdopen(os.dup(fd), "rb") as stream:
        stream.seek(0)
        order: dict[str, Any] = json.loads(stream.read())
    return order


def _run_probes(answers: int, acts: dict[str, str], missing: tuple[str, ...]) -> None:
    """Report each act as soon as it is over: the next one may end this process."""
    os.write(answers, json.dumps({"missing": missing}).encode("ascii") + b"\n")
    for name, argument in acts.items():
        result = attempt(name, argument)
        os.write(answers, json.dumps({name: result}).encode("ascii") + b"\n")


def _build_candidate(order: dict[str, Any], params: mmap.mmap, grads: mmap.mmap) -> Candidate:
    """Execute the candidate's file and build its optimizer over the shared maps."""
    seed_random_numbers(order["seed"])
    module = _execute(order["source"], order["source_name"])
    return Candidate(module, order, params, grads)


def _execute(source: str, name: str) -> ModuleType:
    module = ModuleType("candidate")
    module.__file__ = name
    sys.modules["candidate"] = module  # dataclasses look their module up by name
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), module.__dict__)  # noqa: S102 - what the jail is for
    return module


def _serve(service: Candidate, fds: Descriptors) -> None:
    actions: dict[bytes, Callable[[], None]] = {
        REQUEST_ENTER_EVAL: service.enter_eval,
        REQUEST_LEAVE_EVAL: service.leave_eval,
    }
    while True:
        request = os.read(fds.requests, 1)
        if not request:
            return
        if request == REQUEST_STEP:
            state = os.read(fds.requests, STATE_SIZE)
            service.step(*STATE_FORMAT.unpack(state))
        else:
            actions[request]()
        os.write(fds.answers, ANSWER_DONE)


def _describe(error: BaseException, source_name: str) -> Failure:
    """Say what was raised and at which line of the candidate's file."""
    line: int | None = None
    where = ""
    for frame, number in traceback.walk_tb(error.__traceback__):
        if frame.f_code.co_filename == source_name:
            line, where = number, frame.f_code.co_name
    if isinstance(error, SyntaxError) and error.filename == source_name:
        line = error.lineno
    try:
        message = str(error)
    except Exception as nested:  # noqa: BLE001 - the candidate wrote this __str__
        message = f"(its message could not be read: {type(nested).__name__})"
    return Failure(kind=type(error).__name__, message=message, line=line, where=where)
