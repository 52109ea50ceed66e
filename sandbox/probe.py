"""Find out what a jail on this machine really prevents, by trying it.

A capability counts only if its acts fail inside a jail *and* succeed outside it: a probe whose
control fails proves nothing. The level follows from the capabilities, never from what is
installed or what a call returned when it was set up.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import stat
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.confine import Layer
from sandbox.jail_process import Jail, SandboxFailure
from sandbox.jobs import Limits
from sandbox.levels import CAPABILITIES, Capability, level_of, needed_for
from sandbox.ownership import owner_mark
from sandbox.probes import SUCCEEDED, attempt
from sandbox.zygote_process import Zygote, memory_file

__all__ = ["ProbeReport", "ProbeRow", "probe"]

_MEMORY_BYTES = 64 << 20
_MANY_PROCESSES = 12
_PROBE_S = 60.0
_SURVIVAL_S = 15.0  # to see that nobody is left: over as soon as that is certain
_CONTROL_S = 0.1  # to see that somebody is
_ORPHAN = "leave_orphan"
_COMMON_PLACES = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108 - a folder of our own goes there
# These may end the jail that tries them, so they come last.
_FATAL = ("fork_many", "allocate")


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
        return self.inside != SUCCEEDED and self.outside == SUCCEEDED


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeReport:
    """The capability vector of this machine, with its evidence.

    `missing` holds the mechanisms that could not be set up, as "mechanism: reason".
    """

    rows: tuple[ProbeRow, ...]
    missing: tuple[str, ...]

    @property
    def capabilities(self) -> tuple[str, ...]:
        """The capabilities every act of which holds."""
        return tuple(capability.name for capability in CAPABILITIES if self._holds(capability))

    @property
    def level(self) -> int:
        """The highest level all of whose capabilities hold, 0 if none."""
        return level_of(self.capabilities)

    @property
    def contradictions(self) -> tuple[str, ...]:
        """What the kernel accepted without complaint and yet does not do."""
        absent = {line.partition(":")[0] for line in self.missing}
        return tuple(
            f"{row.act} succeeded in the jail, although {capability.mechanism} was set up"
            for capability in CAPABILITIES
            for row in self._rows_of(capability)
            if row.inside == SUCCEEDED and capability.mechanism not in absent
        )

    def lacking(self, level: int) -> tuple[str, ...]:
        """Return what stands between this machine and `level`, each with its remedy.

        Raises:
            ValueError: there is no such level.
        """
        by_remedy: dict[str, list[str]] = {}
        for capability in needed_for(level, self.capabilities):
            failing = f"{capability.name} ({self._why(capability)})"
            by_remedy.setdefault(capability.remedy, []).append(failing)
        return tuple(f"{', '.join(names)}: {remedy}" for remedy, names in by_remedy.items())

    def _rows_of(self, capability: Capability) -> tuple[ProbeRow, ...]:
        return tuple(row for row in self.rows if row.capability == capability.name)

    def _holds(self, capability: Capability) -> bool:
        rows = self._rows_of(capability)
        return bool(rows) and all(row.holds for row in rows)

    def _why(self, capability: Capability) -> str:
        row = next(row for row in self._rows_of(capability) if not row.holds)
        if row.inside == SUCCEEDED:
            return f"{row.act} succeeds"
        return f"{row.act} fails outside too, which proves nothing: {row.outside}"


def probe(zygote: Zygote) -> ProbeReport:
    """Attempt every forbidden act in jails and outside.

    Raises:
        SandboxFailure: a probing jail did not report.
    """
    inside: dict[tuple[frozenset[Layer], str], str] = {}
    missing: tuple[str, ...] = zygote.missing
    with contextlib.ExitStack() as stack:
        try:
            arguments = stack.enter_context(_targets())
        except OSError as error:
            raise SandboxFailure(f"there is nothing to probe the jail with: {error}") from error
        for layers, acts in _by_layers().items():
            results, lacked = _inside(zygote, layers, {act: arguments[act] for act in acts})
            inside |= {(layers, act): result for act, result in results.items()}
            missing += tuple(line for line in lacked if line not in missing)
        outside = {
            act: attempt(act, argument) for act, argument in arguments.items() if act != _ORPHAN
        }
    # Orphans are left behind by a jail that has nothing but the zygote's own surroundings.
    outside[_ORPHAN] = inside.pop((frozenset(), _ORPHAN))
    rows = tuple(
        ProbeRow(
            capability=capability.name,
            act=act,
            inside=inside[capability.layers, act],
            outside=outside[act],
        )
        for capability in CAPABILITIES
        for act in capability.acts
    )
    return ProbeReport(rows=rows, missing=missing)


def _by_layers() -> Mapping[frozenset[Layer], list[str]]:
    """Return the acts to try in each kind of jail, those that may end it last."""
    acts: dict[frozenset[Layer], list[str]] = {frozenset(): [_ORPHAN]}
    for capability in CAPABILITIES:
        known = acts.setdefault(capability.layers, [])
        known += [act for act in capability.acts if act not in known]
    return {layers: sorted(names, key=_rank) for layers, names in acts.items()}


def _rank(act: str) -> int:
    return _FATAL.index(act) if act in _FATAL else -1


@contextlib.contextmanager
def _targets() -> Iterator[dict[str, str]]:
    """Make the things the acts aim at: open to every user, so that only the jail can refuse."""
    name = f"nanoevolve-probe-{secrets.token_hex(8)}"
    with (
        tempfile.TemporaryDirectory(prefix=owner_mark(os.getpid()), dir=_open_place()) as folder,
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
        socket.socket(socket.AF_UNIX) as unix,
        socket.socket(socket.AF_UNIX) as abstract,
        _in_environment(name),
    ):
        os.chmod(folder, 0o777)  # noqa: S103 - see above
        canary = os.path.join(folder, "canary")
        unix_path = os.path.join(folder, "socket")
        with open(canary, "wb") as stream:
            stream.write(b"canary")
        udp.bind(("127.0.0.1", 0))
        abstract.bind(f"\0{name}")
        unix.bind(unix_path)
        for server in (unix, abstract):
            server.listen()
        for path in (canary, unix_path):
            os.chmod(path, 0o666)  # noqa: S103 - see above
        yield {
            "read_file": canary,
            "write_file": canary,
            "create_file": folder,
            "connect_loopback": str(tcp.getsockname()[1]),
            "connect_unix": unix_path,
            "connect_abstract": name,
            "send_datagram": str(udp.getsockname()[1]),
            "fork": "",
            "exec": "/bin/true",
            "fork_many": str(_MANY_PROCESSES),
            _ORPHAN: "",
            "signal_parent": str(os.getpid()),
            "read_environment": name,
            "allocate": str(2 * _MEMORY_BYTES),
        }


def _open_place() -> Path:
    """Return a folder for temporary files that every user may reach.

    Where file permissions kept a jail's own user out, the probes would prove nothing.

    Raises:
        OSError: there is none.
    """
    for place in map(Path, (tempfile.gettempdir(), *_COMMON_PLACES)):
        folders = [place, *place.absolute().parents]
        if place.is_dir() and all(folder.stat().st_mode & stat.S_IXOTH for folder in folders):
            return place
    raise FileNotFoundError("no folder for temporary files is open to every user")


@contextlib.contextmanager
def _in_environment(name: str) -> Iterator[None]:
    os.environ[name] = "canary"
    try:
        yield
    finally:
        del os.environ[name]


def _inside(
    zygote: Zygote, layers: frozenset[Layer], acts: dict[str, str]
) -> tuple[dict[str, str], tuple[str, ...]]:
    """Try acts in a jail with the given layers; also return what its confinement lacked."""
    jail = _start(zygote, layers, acts)
    answer = _read_report(jail, lines=1 + len(acts))
    jail.drain_output(Limits().output_keep_bytes)
    should_hold = Layer.PROCESS_TABLE in layers & zygote.layers
    has_survivors = jail.has_survivors(_SURVIVAL_S if should_hold else _CONTROL_S)
    report = jail.kill()
    first, *others = answer.split(b"\n")[:-1] or [b""]
    if not first:
        printed = jail.printed.decode("utf-8", errors="replace")
        raise SandboxFailure(f"a probing jail gave no report: {report} {answer!r} {printed}")
    results: dict[str, str] = {}
    for line in others:
        results |= json.loads(line)
    for act in acts:
        results.setdefault(act, f"the jail was ended by signal {report.signal}")
    if results.get(_ORPHAN) == SUCCEEDED and not has_survivors:
        results[_ORPHAN] = "ended with the jail"
    return results, tuple(json.loads(first)["missing"])


def _start(zygote: Zygote, layers: frozenset[Layer], acts: dict[str, str]) -> Jail:
    limits = Limits()
    order = {
        "kind": "probe",
        "probes": acts,
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
        return zygote.fork(order, params, grads, layers)
    finally:
        os.close(params)
        os.close(grads)


def _read_report(jail: Jail, lines: int) -> bytes:
    answer = b""
    deadline = time.monotonic() + _PROBE_S
    ended = False
    while not ended and answer.count(b"\n") < lines and time.monotonic() < deadline:
        _, ended = jail.wait(1.0)
        answer += jail.read_answer(1 << 16) or b""
    return answer
