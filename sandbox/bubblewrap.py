"""Bubblewrap as an outer layer: namespaces for those who may not make any themselves.

Where `bwrap` is installed with the privilege to do so, it starts the zygote, and with it every
jail, in a network and a file tree of its own. The tree holds the interpreter and its libraries,
read-only, and nothing of the user's. Used only where `sandbox.namespaces` cannot do the same.
Reference: bwrap(1).
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence

__all__ = ["find_bubblewrap", "wrap"]

_PRIVATE = ("runs", ".git")
_SYSTEM = ("/usr", "/bin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache", "/etc/ld.so.conf.d")


def find_bubblewrap() -> str | None:
    """Return the path of the program, None if it is not installed."""
    return shutil.which("bwrap")


def wrap(program: str, command: Sequence[str]) -> list[str]:
    """Return the command that runs a Python `command` inside.

    Every namespace is new; what is inside dies with the caller.
    """
    binds: list[str] = []
    for path in (*_SYSTEM, *_interpreter_folders()):
        binds += ["--ro-bind-try", path, path]
    return [
        program,
        "--unshare-all",
        "--die-with-parent",
        "--new-session",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--remount-ro",
        "/dev",
        *binds,
        *_masks(),
        "--ro-bind-try",
        "/sys/devices/system/cpu",
        "/sys/devices/system/cpu",
        "--chdir",
        "/",
        "--",
        *command,
    ]


def _masks() -> list[str]:
    """Hide what lies in a bound folder and is none of the interpreter's business."""
    return [
        argument
        for folder in _interpreter_folders()
        for name in _PRIVATE
        if os.path.isdir(os.path.join(folder, name))
        for argument in ("--tmpfs", os.path.join(folder, name))
    ]


def _interpreter_folders() -> list[str]:
    """Return where the interpreter and the modules live, links resolved and as written."""
    paths = [sys.prefix, sys.base_prefix, sys.exec_prefix, *(path for path in sys.path if path)]
    # A link is followed inside, so both of its ends must be there.
    both = [end for path in paths for end in (path, os.path.realpath(path))]
    kept: list[str] = []
    for path in sorted({os.path.abspath(path) for path in both if os.path.exists(path)}):
        # Inside a folder that is bound already nothing can be mounted, nor need it be.
        if path != "/" and not any(path.startswith(f"{folder}/") for folder in (*kept, *_SYSTEM)):
            kept.append(path)
    return kept
