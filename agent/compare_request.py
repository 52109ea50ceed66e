"""Check what `python -m agent.compare` was asked for, before anything is spent.

Where a program of a run is compared, the run's own setting is the default: scores of two settings
cannot be compared, so two runs that differ are refused until the user says which one is meant.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.either_way import two_sided
from agent.programs import NamedProgram, origin_of
from agent.statistics.paired_test import Design, DesignError
from sandbox.jobs import Split, WorkerSpec

__all__ = [
    "Request",
    "UsageError",
    "checked_design",
    "checked_split",
    "common_setting",
    "worker_spec",
]

PROFILES = ("micro", "cpu", "gpu")
LEVELS = ("S0", "S1", "S2", "S3", "S4")
DEFAULTS: Mapping[str, Any] = {
    "profile": "cpu",
    "data": None,
    "device": "cpu",
    "compile": False,
}


class UsageError(Exception):
    """The request cannot be carried out; the message says what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """A checked request. `names` are as typed; `design` is that of the test each way."""

    names: tuple[str, str]
    programs: tuple[NamedProgram, NamedProgram]
    design: Design
    spec: WorkerSpec
    split: Split
    steps: int | None
    seed: int
    workers: int


def common_setting(
    given: Mapping[str, Any], names: Sequence[str], runs_dir: Path
) -> dict[str, Any]:
    """Return the setting to compare in: as given, else as the runs named, else the default.

    Args:
        given: by the keys of `DEFAULTS`; None is not given.
        names: of the programs.
        runs_dir: where runs are looked up.

    Raises:
        UsageError: two runs differ in what was not given.
        NoSuchProgramError: a name points to a run that is not there.
    """
    runs = [origin.settings for origin in (origin_of(n, runs_dir) for n in names)]
    runs = [settings for settings in runs if settings]
    setting: dict[str, Any] = {}
    for key, default in DEFAULTS.items():
        values = [settings.get(key, default) for settings in runs] or [default]
        if given.get(key) is not None:
            values = [given[key]]
        if any(value != values[0] for value in values):
            raise UsageError(
                f"{' and '.join(names)} come from runs of different settings ({key} "
                f"{' and '.join(map(str, values))}), and scores of two settings cannot be "
                f"compared: say with --{key} which one is meant"
            )
        setting[key] = values[0]
    return setting


def checked_design(pairs: int, alpha: float, smallest: float) -> Design:
    """Return the design of the test each way.

    Raises:
        UsageError: a value is out of range, or the pairs are fewer than the test needs.
    """
    if not 0.0 < alpha < 1.0:
        raise UsageError(f"--alpha must lie between 0 and 1, found {alpha}")
    if not 0.0 <= smallest < math.inf:
        raise UsageError(f"--smallest must be a difference in bits per byte, found {smallest}")
    for count in range(pairs, pairs + 1000):
        try:
            design = two_sided(Design(max_pairs=count, alpha=alpha, smallest_gain_bpb=smallest))
        except DesignError:
            continue
        if count == pairs:
            return design
        raise UsageError(
            f"--pairs {pairs} are fewer than the test needs: with --alpha {alpha:g} nothing can "
            f"be shown by less than {count} pairs, however clear they are"
        )
    raise UsageError(f"--alpha {alpha:g} is too small for the test")


def checked_split(name: str) -> Split:
    """Return the split to validate on.

    Raises:
        UsageError: there is none of that name, or it is sealed.
    """
    if name == Split.SEALED:
        raise UsageError(
            "--split sealed: sealed text is for the confirmation of a run, which keeps a ledger "
            "of looks; choose search or ood"
        )
    try:
        return Split(name)
    except ValueError as error:
        raise UsageError(f"unknown split {name!r}: choose search or ood") from error


def worker_spec(setting: Mapping[str, Any], level: str, *, is_unsafe: bool) -> WorkerSpec:
    """Say what the workers are to load.

    Raises:
        UsageError: a value is unknown.
    """
    profile, data, device = setting["profile"], setting["data"], setting["device"]
    if profile not in PROFILES:
        raise UsageError(f"unknown profile {profile!r}: choose one of {', '.join(PROFILES)}")
    name = level.upper() if level[:1] in "Ss" else f"S{level}"
    if name not in LEVELS:
        raise UsageError(
            f"--required-sandbox cannot be {level!r}: the levels are {', '.join(LEVELS)}"
        )
    if not re.fullmatch(r"cpu|cuda(:\d+)?", device):
        raise UsageError(f"--device cannot be {device!r}: there are cpu, cuda, cuda:0 and so on")
    if data is not None and not Path(data).exists():
        raise UsageError(f"--data {data} does not exist")
    return WorkerSpec(
        profile=profile,
        data_path=data,
        device=device,
        compile=setting["compile"],
        required_level=LEVELS.index(name),
        unsafe=is_unsafe,
    )
