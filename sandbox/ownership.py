"""Tell whose a folder or control group is, and whether its owner is gone.

What a worker makes outside itself carries the owner's process id in its name, so that whoever comes
next can remove what a killed one left behind. A process id means something only within its
process table, so the table is part of the name too: a container or machine that shares the
folder but not the table leaves what it finds alone.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

__all__ = ["PREFIX", "is_deserted", "owner_mark"]

PREFIX = "nanoevolve-"


def owner_mark(owner: int) -> str:
    """Return how the name of something begins that belongs to a process of this process table."""
    return f"{PREFIX}{_process_table()}-{owner}-"


def is_deserted(name: str) -> bool:
    """Tell whether a name carries the mark of a process of this table that is no more."""
    mark = f"{PREFIX}{_process_table()}-"
    owner = name.removeprefix(mark).partition("-")[0]
    return name.startswith(mark) and owner.isdecimal() and not Path("/proc", owner).exists()


@functools.cache
def _process_table() -> str:
    """Name the process table: its number within this boot of this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii")[:8]
    return f"{boot}{os.stat('/proc/self/ns/pid').st_ino:x}"
