"""Load an optimizer from its file, and set its knobs to values tuned for a profile.

The file is executed in this process: for programs nobody has read, use the sandbox.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from nanochat.contract import Horizon, Knobs, ObservingOptimizer, ParamInfo

__all__ = [
    "SHIPPED_OPTIMIZER",
    "OptimizerFileError",
    "build_from_module",
    "load_optimizer_file",
    "set_knobs",
    "tuned_knobs",
]

SHIPPED_OPTIMIZER = Path(__file__).parent / "optim.py"
TUNED_FOLDER = Path(__file__).parent / "tuned"
MODULE_NAME = "nanochat_optimizer_file"


class OptimizerFileError(Exception):
    """The file is not an optimizer, or a knob it is given is not there."""


def load_optimizer_file(path: Path) -> ModuleType:
    """Execute an optimizer file as a module of its own, sharing no state with earlier loads.

    Raises:
        OptimizerFileError: no such file, it does not run, or it has no `build_optimizer`.
    """
    spec = spec_from_file_location(MODULE_NAME, path)
    if not path.is_file() or spec is None or spec.loader is None:
        raise OptimizerFileError(f"no Python file at {path}")
    module = module_from_spec(spec)
    sys.modules[MODULE_NAME] = module  # dataclasses look their module up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a stranger's file may raise anything
        message = f"{path} does not run: {type(error).__name__}: {error}"
        raise OptimizerFileError(message) from error
    if not callable(getattr(module, "build_optimizer", None)):
        raise OptimizerFileError(f"{path} has no function build_optimizer(params, horizon)")
    return module


def build_from_module(
    module: ModuleType, params: Sequence[ParamInfo], horizon: Horizon
) -> ObservingOptimizer:
    """Build the optimizer a module describes.

    Raises:
        OptimizerFileError: it refuses the horizon, or the parameters.
    """
    try:
        optimizer: ObservingOptimizer = module.build_optimizer(params, horizon)
    except ValueError as error:
        raise OptimizerFileError(str(error)) from error
    return optimizer


def tuned_knobs(profile: str, folder: Path = TUNED_FOLDER) -> dict[str, Any]:
    """Read the knobs tuned for a profile, by full name; none if it was never tuned.

    Raises:
        OptimizerFileError: the record is not `{"profile": ..., "knobs": {...}}` of this profile.
    """
    file = folder / f"{profile}.json"
    if not file.exists():
        return {}
    try:
        record = json.loads(file.read_text())
        found, knobs = record["profile"], dict(record["knobs"])
    except (ValueError, KeyError, TypeError) as error:
        raise OptimizerFileError(f"{file} is not a record of tuned knobs: {error}") from error
    if found != profile:
        raise OptimizerFileError(f"{file} is for profile {found}, not {profile}")
    return knobs


def set_knobs(module: ModuleType, knobs: Mapping[str, Any]) -> None:
    """Set knobs, named like `MUON.lr`, on the tables of a loaded optimizer file.

    Raises:
        OptimizerFileError: there is no such table or knob.
    """
    for name, value in knobs.items():
        table_name, _, key = name.partition(".")
        table = getattr(module, table_name, None)
        if not isinstance(table, Knobs) or not hasattr(table, key):
            raise OptimizerFileError(f"the optimizer has no knob {name}")
        setattr(table, key, value)
