"""What `python -m agent.calibrate` was asked for, checked before anything is spent."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.calibration.real import Programme
from agent.calibration.simulated import Plan
from agent.settings import Settings, load_settings
from sandbox.baseline import seed_program

__all__ = ["Asked", "Mode", "UsageError"]


class UsageError(Exception):
    """The request cannot be carried out; the message says what to write instead."""


class Mode(StrEnum):
    """What the command does."""

    SIMULATED = "--simulated"
    REAL = "--real"
    MAKE_POOL = "--make-pool"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The command's flags, by their names.

    Raises:
        UsageError: flags contradict each other, or a value cannot be meant.
    """

    simulated: bool
    real: bool
    pool: list[str] | None
    track3: list[Path] | None
    trials: int
    searches: int
    gain: list[float] | None
    paired_sd: float | None
    aa: int
    repeats: int
    effect_pairs: int
    record: Path | None
    make_pool: Path | None
    pool_seeds: int
    first_seed: int
    from_run: str | None
    seed: int
    profile: str
    workers: int
    data: Path | None
    device: str
    runs_dir: Path
    required_sandbox: str
    unsafe_sandbox: bool
    json: bool

    def __post_init__(self) -> None:
        given = [mode for mode in Mode if self._is_on(mode)]
        if len(given) > 1:
            raise UsageError(f"{' and '.join(given)} cannot be given together: choose one")
        if self.from_run is not None and self.make_pool is None:
            raise UsageError("--from-run says where a pool comes from: give --make-pool FILE too")
        if self.record is not None and not self.real:
            raise UsageError("--record keeps trained trials: give --real too")
        for flag, values in (("--gain", self.gain or ()), ("--paired-sd", (self.paired_sd,))):
            for value in values:
                if value is not None and not 0.0 < value < math.inf:
                    raise UsageError(
                        f"{flag} must be a positive number of bits per byte, found {value}"
                    )

    @property
    def mode(self) -> Mode:
        """What to do."""
        return next((mode for mode in Mode if self._is_on(mode)), Mode.SIMULATED)

    def plan(self) -> Plan:
        """Say what to simulate."""
        gains = tuple(sorted(set(self.gain))) if self.gain else Plan().gains_bpb
        return Plan(
            gains_bpb=gains,
            paired_sd_bpb=self.paired_sd,
            trials=self.trials,
            searches=self.searches,
        )

    def programme(self) -> Programme:
        """Say what to put through the pipeline.

        Raises:
            BaselineError: there is no tuned program.
        """
        return Programme(
            tuned=seed_program(self.profile),
            aa=self.aa,
            repeats=self.repeats,
            effect_pairs=self.effect_pairs,
        )

    def settings(self) -> Settings:
        """Return the settings of the runs to train.

        Raises:
            SettingsError: one of them cannot be used.
        """
        given = {
            "profile": self.profile,
            "seed": self.seed,
            "workers": self.workers,
            "device": self.device,
            "required_sandbox": self.required_sandbox,
            "unsafe_sandbox": self.unsafe_sandbox,
            **({} if self.data is None else {"data": self.data}),
        }
        return load_settings(given)

    def _is_on(self, mode: Mode) -> bool:
        return {
            Mode.SIMULATED: self.simulated,
            Mode.REAL: self.real,
            Mode.MAKE_POOL: self.make_pool is not None,
        }[mode]
