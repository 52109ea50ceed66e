"""How a zygote is started: the command and the whole of its environment."""

from __future__ import annotations

import sys

__all__ = ["zygote_command"]

# No user site and no caller's folder (-s -P), so the search path is handed over in the command;
# -B because a jail's ancestor has no business writing byte code. Not -I, which would ignore
# PYTHONHASHSEED: the order of a candidate's sets must be the same in every worker.
_BOOTSTRAP = "import sys; sys.path[:] = {path!r}; from sandbox.zygote import main; main()"

# One thread: a fork of a process with threads may hang.
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
    "PYTHONHASHSEED": "0",
}


def zygote_command(parent: int, control_fd: int) -> tuple[list[str], dict[str, str]]:
    """Return the argument list and the environment of a zygote.

    Args:
        parent: the process whose death ends the zygote.
        control_fd: an inherited socket over which it is asked to fork.
    """
    bootstrap = _BOOTSTRAP.format(path=sys.path)
    arguments = ["-s", "-P", "-B", "-c", bootstrap, str(parent), str(control_fd)]
    return [sys.executable, *arguments], dict(_ENVIRONMENT)
