"""What a jail must prevent to deserve a level, and what helps where it does not.

A capability is a set of acts that must fail in a jail with only some lines of defence up. The
capabilities of level 2 are asked of the whole jail; those above of its outer layers alone, with
the filters left out, so that a hole in one layer is no hole in the jail.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from sandbox.confine import ALL_LAYERS, Layer

__all__ = [
    "CAPABILITIES",
    "ELSEWHERE",
    "HIGHEST_LEVEL",
    "Capability",
    "level_of",
    "needed_for",
    "parse_level",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """Something a jail can be shown to prevent.

    `layers` are the lines of defence that are up while the acts are tried (the zygote's own
    namespaces and control group always are); `mechanism` is what brings it about, by the name it
    has where something is reported as missing; `remedy` says how a machine gets it.
    """

    name: str
    acts: tuple[str, ...]
    layers: frozenset[Layer]
    mechanism: str
    remedy: str


_LANDLOCK = (
    "needs Linux 5.13 or newer with Landlock on: add landlock to the kernel's lsm= parameter"
)
_SECCOMP = (
    "needs seccomp on x86-64 or aarch64: do not block the seccomp system call in the container"
)
_NAMESPACES = (
    "run as root with CAP_SYS_ADMIN, or allow user namespaces (sysctl user.max_user_namespaces; in "
    "a container, one that permits unshare), or install bubblewrap"
)
_CONTROL_GROUP = (
    "run as root with writable control groups, or in a group of your own: systemd-run --user "
    "--scope -p Delegate=yes, with the controllers memory and pids enabled for its subgroups"
)
ELSEWHERE = "use Linux, a virtual machine or a container of it"
_NOTHING: frozenset[Layer] = frozenset()

CAPABILITIES = (
    Capability(
        name="no_env",
        acts=("read_environment",),
        layers=ALL_LAYERS,
        mechanism="environment",
        remedy="is of this program's own making: please report it",
    ),
    Capability(
        name="mem_cap",
        acts=("allocate",),
        layers=ALL_LAYERS,
        mechanism="resource limits",
        remedy="needs RLIMIT_AS, which every Linux has: a translation layer may ignore it",
    ),
    Capability(
        name="no_net",
        acts=("connect_loopback", "connect_unix", "connect_abstract", "send_datagram"),
        layers=ALL_LAYERS,
        mechanism="seccomp",
        remedy=_SECCOMP,
    ),
    Capability(
        name="no_read",
        acts=("read_file",),
        layers=ALL_LAYERS,
        mechanism="landlock",
        remedy=_LANDLOCK,
    ),
    Capability(
        name="no_write",
        acts=("write_file", "create_file"),
        layers=ALL_LAYERS,
        mechanism="seccomp",
        remedy=_SECCOMP,
    ),
    Capability(
        name="no_fork_exec",
        acts=("fork", "exec"),
        layers=ALL_LAYERS,
        mechanism="seccomp",
        remedy=_SECCOMP,
    ),
    Capability(
        name="no_signal",
        acts=("signal_parent",),
        layers=ALL_LAYERS,
        mechanism="seccomp",
        remedy=_SECCOMP,
    ),
    Capability(
        name="own_net",
        acts=("connect_loopback", "connect_abstract", "send_datagram"),
        layers=_NOTHING,
        mechanism="namespaces",
        remedy=_NAMESPACES,
    ),
    Capability(
        name="own_files",
        acts=("read_file", "create_file"),
        layers=_NOTHING,
        mechanism="own file tree",
        remedy=_NAMESPACES,
    ),
    Capability(
        name="separate_uid",
        acts=("signal_parent",),
        layers=frozenset({Layer.OWN_USER}),
        mechanism="own user",
        remedy="run as root: only root can give jails a user of their own",
    ),
    Capability(
        name="tree_kill",
        acts=("signal_parent", "leave_orphan"),
        layers=frozenset({Layer.PROCESS_TABLE}),
        mechanism="process table",
        remedy=_NAMESPACES,
    ),
    Capability(
        name="pid_cap",
        acts=("fork_many",),
        layers=_NOTHING,
        mechanism="control group",
        remedy=_CONTROL_GROUP,
    ),
    Capability(
        name="tree_mem_cap",
        acts=("allocate",),
        layers=_NOTHING,
        mechanism="control group",
        remedy=_CONTROL_GROUP,
    ),
)

_S1 = frozenset({"no_env", "mem_cap"})
_S2 = _S1 | {"no_net", "no_read", "no_write", "no_fork_exec", "no_signal"}
_S3 = _S2 | {"own_net", "own_files"}
_S4 = frozenset({"pid_cap", "tree_mem_cap"})

# Each level with the sets of capabilities of which any one is enough for it.
_LEVELS: dict[int, tuple[frozenset[str], ...]] = {
    1: (_S1,),
    2: (_S2,),
    3: (_S3 | {"tree_kill"}, _S3 | {"separate_uid"}),
    4: (_S3 | {"tree_kill"} | _S4, _S3 | {"separate_uid"} | _S4),
}
HIGHEST_LEVEL = max(_LEVELS)


def parse_level(text: str) -> int:
    """Read a level as people write it: S2, s2 or 2.

    Raises:
        ValueError: there is no such level.
    """
    number = text.upper().removeprefix("S")
    if number not in map(str, range(HIGHEST_LEVEL + 1)):
        raise ValueError(f"the levels are S0 to S{HIGHEST_LEVEL}")
    return int(number)


def level_of(capabilities: Iterable[str]) -> int:
    """Return the highest level that these capabilities deserve, 0 if none."""
    held = set(capabilities)
    return max(
        (level for level, ways in _LEVELS.items() if any(held >= way for way in ways)), default=0
    )


def needed_for(level: int, capabilities: Iterable[str]) -> tuple[Capability, ...]:
    """Return the capabilities missing for a level, by the shortest way there; 0 needs none.

    Raises:
        ValueError: there is no such level.
    """
    if level == 0:
        return ()
    if level not in _LEVELS:
        raise ValueError(f"there is no sandbox level S{level}: expected S0 to S{HIGHEST_LEVEL}")
    held = set(capabilities)
    shortest = min((way - held for way in _LEVELS[level]), key=len)
    return tuple(capability for capability in CAPABILITIES if capability.name in shortest)
