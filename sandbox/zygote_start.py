"""How a zygote is started: the command and the whole of its environment."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["ZygoteOptions", "zygote_command"]

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


@dataclass(frozen=True, slots=True, kw_only=True)
class ZygoteOptions:
    """What a zygote is told when it starts.

    `parent` is the process whose death ends it, 0 if another one sees to that; `control_fd` an
    inherited socket over which it is asked to fork; `joins` are inherited descriptors through
    which jails join their control group; `namespaces` asks it to enter such by itself.
    """

    parent: int
    control_fd: int
    joins: tuple[int, ...] = ()
    namespaces: bool = True

    @classmethod
    def from_arguments(cls, arguments: Sequence[str]) -> Self:
        """Read what `zygote_command` has written."""
        fields = json.loads(arguments[0])
        return cls(**{**fields, "joins": tuple(fields["joins"])})


def zygote_command(options: ZygoteOptions) -> tuple[list[str], dict[str, str]]:
    """Return the argument list and the environment of a zygote."""
    bootstrap = _BOOTSTRAP.format(path=sys.path)
    arguments = ["-s", "-P", "-B", "-c", bootstrap, json.dumps(asdict(options))]
    return [sys.executable, *arguments], dict(_ENVIRONMENT)
