"""Everything a run can be told, checked once, before anything is spent.

Values come from one TOML file and from flags; flags win. A key nobody knows, or a value that
cannot be meant, is an error that names what was found and what was expected.
"""

from __future__ import annotations

import difflib
import json
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from agent.foresight import SAMPLE_SHARE
from agent.guardrails import Guardrails
from agent.statistics.paired_test import Design
from sandbox.jobs import WorkerSpec
from sandbox.levels import parse_level

__all__ = ["SCOPES", "Settings", "SettingsError", "load_settings", "resume_settings", "to_toml"]

Scope = Literal["policy", "muon", "adamw", "schedule", "routing"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
DEFAULT_SCOPE: tuple[Scope, ...] = ("policy", "muon", "schedule")
DEFAULT_BUDGET_HOURS = 0.5
TEST, LIMITS = Design(), Guardrails()

# What a resumed run may be told anew. Anything else decides which programs are tried or what
# they score, and the second half of a run must mean the same as the first.
RESUMABLE = frozenset(
    {"budget_hours", "budget_evals", "workers", "data", "required_sandbox", "unsafe_sandbox"}
)


class SettingsError(Exception):
    """A setting is unknown or cannot be used; the message says what to write instead."""


def _cores() -> int:
    return len(os.sched_getaffinity(0))


class Settings(BaseModel):
    """One run's settings, as recorded with the run."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    budget_hours: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    budget_evals: Annotated[int, Field(gt=0)] | None = None
    proposer: Literal["operators"] = "operators"
    workers: int = Field(default_factory=_cores, ge=1, le=1024)
    seed: int = Field(default=1, ge=0, lt=2**63)
    profile: Literal["micro", "cpu", "gpu"] = "cpu"
    scope: tuple[Scope, ...] = DEFAULT_SCOPE
    data: Path | None = None
    runs_dir: Path = Path("runs")
    device: str = Field(default="cpu", pattern=r"^(cpu|cuda(:\d+)?)$")
    required_sandbox: str = "S2"
    unsafe_sandbox: bool = False
    compile: bool = False
    max_pairs: Annotated[int, Field(le=1000)] = TEST.max_pairs
    smallest_gain: Annotated[float, Field(ge=0, lt=1)] = TEST.smallest_gain_bpb
    sample_share: Annotated[float, Field(ge=0, le=1)] = SAMPLE_SHARE
    max_cpu_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = LIMITS.max_cpu_ratio
    max_memory_ratio: Annotated[float, Field(ge=1, allow_inf_nan=False)] = LIMITS.max_memory_ratio
    max_setback: Annotated[float, Field(gt=0, allow_inf_nan=False)] = LIMITS.max_setback_bpb

    @field_validator("scope", mode="before")
    @classmethod
    def _split_scope(cls, value: object) -> object:
        if isinstance(value, str):
            value = tuple(name.strip() for name in value.split(",") if name.strip())
        if not value:
            raise ValueError("name at least one scope")
        return value

    @field_validator("required_sandbox", mode="before")
    @classmethod
    def _name_level(cls, value: object) -> str:
        return f"S{parse_level(str(value))}"

    @field_validator("max_pairs")
    @classmethod
    def _enough_pairs(cls, value: int) -> int:
        Design(max_pairs=value)  # refuses a test that could never accept anything
        return value

    @property
    def design(self) -> Design:
        """The test that ends a race."""
        return Design(max_pairs=self.max_pairs, smallest_gain_bpb=self.smallest_gain)

    @property
    def guardrails(self) -> Guardrails:
        """What a candidate may cost at most."""
        return Guardrails(
            max_cpu_ratio=self.max_cpu_ratio,
            max_memory_ratio=self.max_memory_ratio,
            max_setback_bpb=self.max_setback,
        )

    @property
    def scopes(self) -> frozenset[str]:
        """The regions of the optimizer file this run may edit."""
        return frozenset(self.scope)

    def worker_spec(self) -> WorkerSpec:
        """Say what the evaluation workers of this run are to load."""
        return WorkerSpec(
            profile=self.profile,
            data_path=None if self.data is None else str(self.data),
            device=self.device,
            compile=self.compile,
            required_level=parse_level(self.required_sandbox),
            unsafe=self.unsafe_sandbox,
        )


def load_settings(flags: Mapping[str, Any], config: Path | None = None) -> Settings:
    """Merge a TOML file and flags into checked settings.

    Args:
        flags: what was given on the command line; absent or None means not given.
        config: a TOML file with the same names as keys.

    Raises:
        SettingsError: the file cannot be read, a key is unknown or a value is refused.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    merged = (_read_config(config) if config else {}) | given
    if merged.get("budget_hours") is None and merged.get("budget_evals") is None:
        merged["budget_hours"] = DEFAULT_BUDGET_HOURS
    return _validated(merged)


def resume_settings(recorded: Mapping[str, Any], flags: Mapping[str, Any]) -> Settings:
    """Take up a run's recorded settings, with what may be changed from the command line.

    The budget of the result is the one given now; None for both means that the recorded budget
    goes on.

    Raises:
        SettingsError: a flag would change what the run's results mean, or is refused.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    kept = _validated(dict(recorded) | {"budget_hours": None, "budget_evals": None})
    asked = _validated(kept.model_dump() | given)
    changed = sorted(
        name for name in given.keys() - RESUMABLE if getattr(asked, name) != getattr(kept, name)
    )
    if changed:
        flag = "--" + changed[0].replace("_", "-")
        raise SettingsError(
            f"{flag} was {getattr(kept, changed[0])} when this run began and cannot change on "
            f"resume: leave the flag out, or start a new run"
        )
    return asked


def to_toml(settings: Settings) -> str:
    """Write settings as a TOML file that `--config` reads back to the same settings."""
    # JSON's strings, numbers, booleans and lists are valid TOML values.
    lines = [
        f"{name} = {json.dumps(value)}"
        for name, value in settings.model_dump(mode="json").items()
        if value is not None
    ]
    return "\n".join(lines) + "\n"


def _read_config(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"--config {path}: {error.strerror}: give a readable file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path} is not a TOML file: {error}") from error
    except RecursionError as error:
        raise SettingsError(f"--config {path} is nested too deeply: give settings only") from error


def _validated(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsError(_sentence(first["type"], first["loc"], first)) from error


def _sentence(kind: str, location: tuple[int | str, ...], detail: Mapping[str, Any]) -> str:
    """Turn the first validation error into one sentence for the person who typed the value."""
    name = str(location[0])
    if kind == "extra_forbidden":
        near = difflib.get_close_matches(name, Settings.model_fields, n=1)
        hint = (
            f"did you mean {near[0]!r}?" if near else f"known: {', '.join(Settings.model_fields)}"
        )
        return f"unknown setting {name!r}: {hint}"
    if name == "device" and kind == "string_pattern_mismatch":
        return (
            f"device cannot be {detail['input']!r}: there are cpu, cuda, cuda:0, cuda:1 and so on"
        )
    wanted = str(detail["msg"]).removeprefix("Value error, ")
    return f"{name} cannot be {detail['input']!r}: {wanted[:1].lower()}{wanted[1:]}"
