"""Find out what a jail on this machine really prevents, by trying it.

A capability counts only if the forbidden act fails inside a jail *and* succeeds outside it: a
probe whose control fails proves nothing. The level follows from the capabilities, never from
what is installed or what a call returned when it was set up.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sandbox.jail_process import SandboxFailure, Zygote, memory_file
from sandbox.jobs import Limits
from sandbox.probes import attempt

__all__ = ["CAPABILITIES", "ProbeReport", "ProbeRow", "probe"]

# Which acts must fail for a capability to count.
CAPABILITIES: Mapping[str, tuple[str, ...]] = {
    "no_net": ("connect_loopback", "connect_unix"),
    "no_read": ("read_file",),
    "no_write": ("write_file", "create_file"),
    "no_fork_exec": ("fork", "exec"),
    "no_signal": ("signal_parent",),
    "mem_cap": ("allocate",),
}
# Levels 3 and 4 need namespaces and cgroups, which a jail here does not set up yet.
_LEVELS = {
    1: ("mem_cap",),
    2: ("mem_cap", "no_net", "no_read", "no_write", "no_fork_exec", "no_signal"),
}

_MEMORY_BYTES = 256 << 20
_PROBE_S = 60.0
_SUCCEEDED = "succeeded"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeRow:
    """One act: what came of it inside the jail and outside."""

    capability: str
    act: str
    inside: str
    outside: str

    @property
    def holds(self) -> bool:
        """Whether the act fails inside although it is possible outside."""
        return self.inside != _SUCCEEDED and self.outside == _SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The capability vector of this machine, with its evidence."""

    rows: tuple[ProbeRow, ...]
    missing: tuple[str, ...]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The capabilities every act of which holds."""
        return tuple(
            name
            for name in CAPABILITIES
            if all(row.holds for row in self.rows if row.capability == name)
        )

    @property
    def level(self) -> int:
        """The highest level all of whose capabilities hold, 0 if none."""
        held = set(self.capabilities)
        return max((level for level, names in _LEVELS.items() if held >= set(names)), default=0)

    def lacking(self, level: int) -> tuple[str, ...]:
        """Return what stands between this machine and `level`."""
        if level not in _LEVELS:
            return (f"level S{level} is not implemented, the highest is S{max(_LEVELS)}",)
        held = set(self.capabilities)
        lacking = [f"lacks {name}" for name in _LEVELS[level] if name not in held]
        return (
            (*lacking, *(f"the kernel has no {name}" for name in self.missing)) if lacking else ()
        )


def probe(zygote: Zygote) -> ProbeReport:
    """Attempt every forbidden act in a jail and outside.

    Raises:
        SandboxFailure: the probing jail did not report.
    """
    with _targets() as arguments:
        inside, missing = _inside(zygote, arguments)
        outside = {name: attempt(name, argument) for name, argument in arguments.items()}
    rows = tuple(
        ProbeRow(capability=capability, act=act, inside=inside[act], outside=outside[act])
        for capability, acts in CAPABILITIES.items()
        for act in acts
    )
    return ProbeReport(rows=rows, missing=missing)


@contextlib.contextmanager
def _targets() -> Iterator[dict[str, str]]:
    """Make the things the acts aim at: open to every user, so that only the jail can refuse."""
    with (
        tempfile.TemporaryDirectory(prefix="nanoevolve-probe-") as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX) as unix,
    ):
        os.chmod(folder, 0o777)  # noqa: S103 - see above
        canary = os.path.join(folder, "canary")
        unix_path = os.path.join(folder, "socket")
        with open(canary, "wb") as stream:
            stream.write(b"canary")
        unix.bind(unix_path)
        unix.listen()
        for path in (canary, unix_path):
            os.chmod(path, 0o666)  # noqa: S103 - see above
        yield {
            "read_file": canary,
            "write_file": canary,
            "create_file": folder,
            "connect_loopback": str(tcp.getsockname()[1]),
            "connect_unix": unix_path,
            "fork": "",
            "exec": "/bin/true",
            "signal_parent": str(os.getpid()),
            "allocate": str(2 * _MEMORY_BYTES),
        }


def _inside(zygote: Zygote, arguments: dict[str, str]) -> tuple[dict[str, str], tuple[str, ...]]:
    limits = Limits()
    order = {
        "kind": "probe",
        "probes": arguments,
        "elements": 1,
        "source_name": "probe",
        "limits": {
            "cpu_s": limits.cpu_s,
            "memory_bytes": _MEMORY_BYTES,
            "descriptors": limits.descriptors,
        },
    }
    params, grads = memory_file("params", bytes(4)), memory_file("grads", bytes(4))
    try:
        jail = zygote.fork(order, params, grads)
    finally:
        os.close(params)
        os.close(grads)
    answer = b""
    deadline = time.monotonic() + _PROBE_S
    ended = False
    while not (ended or answer.endswith(b"\n")) and time.monotonic() < deadline:
        _, ended = jail.wait(1.0)
        answer += jail.read_answer(1 << 16) or b""
    jail.drain_output(limits.output_keep_bytes)
    report = jail.kill()
    if not answer.endswith(b"\n"):
        printed = jail.printed.decode("utf-8", errors="replace")
        raise SandboxFailure(f"the probing jail gave no report: {report} {answer!r} {printed}")
    fields = json.loads(answer)
    return fields["results"], tuple(fields["missing"])
