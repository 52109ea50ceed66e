"""The process jails are forked from: it has imported torch and done nothing else.

A fork of a process that has computed with threads can hang, and importing torch takes seconds;
so this process only imports, then forks one child per request. It is started with a clean
environment, since a child can read its parent's in `/proc/self/environ`. Once everything is
imported it leaves the machine's network and file tree behind. Requests and reports are JSON over
a socket that also carries descriptors.
"""

from __future__ import annotations

# Loaded for the children, so that no jail ever has to open a file: what optimizers may import,
# and what torch itself would import at the first optimizer step.
import cmath  # noqa: F401
import contextlib
import copy  # noqa: F401
import gc
import heapq  # noqa: F401
import json
import os
import random  # noqa: F401
import resource
import select
import signal
import socket
import statistics  # noqa: F401
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn

import pytorch_optimizer  # noqa: F401 - what reference optimizers are made of
import torch
import torch._dynamo
import torch.optim.lr_scheduler
import torch.optim.swa_utils

from nanochat.allocator import keep_freed_memory
from sandbox.cgroups import join
from sandbox.confine import READABLE, Layer, Surroundings, adopt_orphans, die_with_parent
from sandbox.jail import Descriptors, run_jail
from sandbox.namespaces import ProcessTables, enter_outer
from sandbox.zygote_start import ZygoteOptions

__all__ = ["main"]

_MAX_REQUEST = 1 << 16
_REQUEST_FDS = 7
_GO = b"g"

# A jail started by root runs as a user and group that own nothing, another one for each zygote.
_FIRST_JAIL_USER = 64321
_JAIL_USERS = 1000


@dataclass(frozen=True, slots=True)
class _Jail:
    """A jail that has not been reaped; it dies when the write end `lifeline` is closed."""

    pid: int
    pidfd: int
    lifeline: int


class _Forge:
    """Forks jails, each in a process table of its own where the kernel allows that.

    Make it before leaving the machine's file tree.
    """

    def __init__(self) -> None:
        self._user = _FIRST_JAIL_USER + os.getpid() % _JAIL_USERS
        self._address_space_bytes = _address_space_bytes()
        self._tables = ProcessTables()
        self._proc = os.open("/proc", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        self._can_leave = False
        self.has_tables = False

    def try_tables(self) -> None:
        """Find out whether process tables can be had, and how."""
        self.has_tables = _succeeds(self._tables.enter)
        self._can_leave = self.has_tables and _succeeds(self._enter_and_leave)

    def fork(self, fds: list[int], layers: frozenset[Layer]) -> _Jail:
        """Fork a jail over the given descriptors; it begins when its parent is this process."""
        lifeline_r, lifeline_w = os.pipe()

        def become_jail() -> None:
            os.close(lifeline_w)
            self._volunteer()
            if os.read(lifeline_r, 1) != _GO:
                return
            size = 2 * os.fstat(fds[1]).st_size
            surroundings = Surroundings(
                lifeline=lifeline_r,
                monitor=fds[-1],
                user=self._user,
                address_space_bytes=self._address_space_bytes + size,
            )
            run_jail(Descriptors(*fds), surroundings)

        if Layer.PROCESS_TABLE not in layers:
            pid = _child(become_jail)
        elif self._can_leave:
            self._tables.enter()
            try:
                pid = _child(become_jail)
            finally:
                self._tables.leave()
        else:
            pid = self._grandchild(become_jail)
        os.close(lifeline_r)
        os.write(lifeline_w, _GO)
        return _Jail(pid, os.pidfd_open(pid), lifeline_w)

    def _volunteer(self) -> None:
        """Be the one to go when memory runs out: never the zygote, in the same control group."""
        with contextlib.suppress(FileNotFoundError):  # not every container has it
            score = os.open("self/oom_score_adj", os.O_WRONLY, dir_fd=self._proc)
            os.write(score, b"1000")
            os.close(score)

    def _enter_and_leave(self) -> None:
        self._tables.enter()
        self._tables.leave()

    def _grandchild(self, run: Callable[[], None]) -> int:
        """Fork a jail by way of a process that enters a process table and ends at once.

        An orphan belongs to the nearest ancestor that adopts such: the jail will be this
        process's child.
        """
        report_r, report_w = os.pipe()

        def fork_and_report() -> None:
            self._tables.enter()
            os.write(report_w, str(_child(run)).encode())

        between = _child(fork_and_report)
        os.close(report_w)
        text = os.read(report_r, 32)
        os.close(report_r)
        os.waitpid(between, 0)
        if not text:
            raise OSError("a process table of its own could not be made for a jail")
        return int(text)


def _child(run: Callable[[], None]) -> int:
    """Fork a child that calls `run` and ends; return its pid."""
    pid = os.fork()
    if pid == 0:
        _run_and_exit(run)
    return pid


def _succeeds(attempt: Callable[[], None]) -> bool:
    """Try something in a child, which takes the effects with it."""

    def report() -> None:
        try:
            attempt()
        except OSError:
            os._exit(1)

    _, status = os.waitpid(_child(report), 0)
    return status == 0


def _run_and_exit(run: Callable[[], None]) -> NoReturn:
    code = 1
    try:
        run()
        code = 0
    except BaseException:  # noqa: BLE001 - a child must never return into the zygote's loop
        traceback.print_exc()
    finally:
        os._exit(code)


def _serve(control: socket.socket, forge: _Forge) -> None:
    poller = select.poll()
    poller.register(control, select.POLLIN)
    jail: _Jail | None = None
    while True:
        for fd, _ in poller.poll():
            if fd == control.fileno():
                request, fds = _receive_request(control)
                if not fds:
                    return
                jail = forge.fork(fds, frozenset(Layer(name) for name in request["layers"]))
                poller.register(jail.pidfd, select.POLLIN)
                for descriptor in fds:
                    os.close(descriptor)
                socket.send_fds(control, [b"{}"], [jail.pidfd])
            elif jail is not None and fd == jail.pidfd:
                poller.unregister(fd)
                os.close(fd)
                os.close(jail.lifeline)
                control.send(json.dumps(_reap(jail.pid)).encode())
                _reap_adopted()
                jail = None


def _receive_request(control: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Return the next request with its descriptors; none of them when the worker is gone."""
    try:
        message, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST, _REQUEST_FDS)
    except ConnectionResetError:
        return {}, []
    return json.loads(message or b"{}"), list(fds)


def _reap(pid: int) -> dict[str, float]:
    _, status, usage = os.wait4(pid, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


def _reap_adopted() -> None:
    """Let go of processes that a jail left behind and that have ended since."""
    try:
        while os.waitpid(-1, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        pass  # there are none


def _joins(descriptors: tuple[int, ...]) -> bool:
    """Join a control group; False if somebody has removed it, which the worker has to know."""
    try:
        join(descriptors)
    except OSError:
        return False
    return True


def _outlive_jails() -> None:
    """Ask not to be chosen when memory runs out, which only root may."""
    with (
        contextlib.suppress(PermissionError),
        open("/proc/self/oom_score_adj", "w", encoding="ascii") as score,
    ):
        score.write("-1000")


def _address_space_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as statm:
        return int(statm.read().split()[0]) * resource.getpagesize()


def main() -> None:
    """Serve fork requests until the other end of the control socket closes."""
    options = ZygoteOptions.from_arguments(sys.argv[1:])
    if options.parent:
        die_with_parent(options.parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to act on
    control = socket.socket(fileno=options.control_fd)
    torch.set_num_threads(1)
    keep_freed_memory()  # the jails inherit it; one step's buffers serve the next
    with torch.autograd.profiler.record_function("warm-up"):
        pass  # its first use imports a module, and every optimizer step uses it
    threads = len(os.listdir("/proc/self/task"))
    os.environ.clear()  # libraries have added to it
    adopt_orphans()
    _outlive_jails()
    forge = _Forge()
    joined = _joins(options.joins)
    missing: tuple[str, ...] = ("namespaces: not asked for", "own file tree: not asked for")
    if options.namespaces:
        missing = enter_outer(READABLE)
        forge.try_tables()
    report = {
        "threads": threads,
        "missing": missing,
        "process_tables": forge.has_tables,
        "joined": joined,
    }
    # The children share these pages as long as no collector writes into them.
    gc.collect()
    gc.freeze()
    control.send(json.dumps(report).encode())
    _serve(control, forge)
