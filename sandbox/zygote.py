"""The process jails are forked from: it has imported torch and done nothing else.

A fork of a process that has computed with threads can hang, and importing torch takes seconds;
so this process only imports, then forks one child per request. It is started with a clean
environment, since a child can read its parent's in `/proc/self/environ`. Requests and reports
are JSON over a socket that also carries descriptors.
"""

from __future__ import annotations

# Loaded for the children, so that no jail ever has to open a file: what optimizers may import,
# and what torch itself would import at the first optimizer step.
import cmath  # noqa: F401
import copy  # noqa: F401
import gc
import heapq  # noqa: F401
import json
import os
import random  # noqa: F401
import select
import signal
import socket
import statistics  # noqa: F401
import sys
import traceback

import torch
import torch._dynamo
import torch.optim.lr_scheduler
import torch.optim.swa_utils

from nanochat.allocator import keep_freed_memory
from sandbox.confine import die_with_parent
from sandbox.jail import Descriptors, run_jail

__all__ = ["main"]

_MAX_REQUEST = 1 << 16
_REQUEST_FDS = 6


def _fork_jail(control: socket.socket, fds: list[int]) -> tuple[int, int]:
    """Fork a jail; return its pid and a pidfd."""
    zygote = os.getpid()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            control.close()
            run_jail(Descriptors(*fds), parent=zygote)
            code = 0
        except BaseException:  # noqa: BLE001 - the child must never return into the zygote's loop
            traceback.print_exc()
        finally:
            os._exit(code)
    return pid, os.pidfd_open(pid)


def _serve(control: socket.socket) -> None:
    poller = select.poll()
    poller.register(control, select.POLLIN)
    jail: tuple[int, int] | None = None
    while True:
        for fd, _ in poller.poll():
            if fd == control.fileno():
                fds = _receive_request(control)
                if not fds:
                    return
                jail = _fork_jail(control, fds)
                poller.register(jail[1], select.POLLIN)
                for descriptor in fds:
                    os.close(descriptor)
                socket.send_fds(control, [json.dumps({"pid": jail[0]}).encode()], [jail[1]])
            elif jail is not None and fd == jail[1]:
                poller.unregister(fd)
                os.close(fd)
                control.send(json.dumps(_reap(jail[0])).encode())
                jail = None


def _receive_request(control: socket.socket) -> list[int]:
    """Return the descriptors of the next request; none when the worker is gone."""
    try:
        _, fds, _, _ = socket.recv_fds(control, _MAX_REQUEST, _REQUEST_FDS)
    except ConnectionResetError:
        return []
    return list(fds)


def _reap(pid: int) -> dict[str, float]:
    _, status, usage = os.wait4(pid, 0)
    return {
        "signal": os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0,
        "code": os.WEXITSTATUS(status) if os.WIFEXITED(status) else 0,
        "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_memory_bytes": usage.ru_maxrss * 1024,
    }


def main() -> None:
    """Serve fork requests until the other end of the control socket closes.

    Arguments on the command line: the parent's process id, the socket's descriptor.
    """
    die_with_parent(int(sys.argv[1]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the controller's to act on
    control = socket.socket(fileno=int(sys.argv[2]))
    torch.set_num_threads(1)
    keep_freed_memory()  # the jails inherit it; one step's buffers serve the next
    with torch.autograd.profiler.record_function("warm-up"):
        pass  # its first use imports a module, and every optimizer step uses it
    # The children share these pages as long as no collector writes into them.
    gc.collect()
    gc.freeze()
    control.send(json.dumps({"threads": len(os.listdir("/proc/self/task"))}).encode())
    _serve(control)
