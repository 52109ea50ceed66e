"""Make the text of the program a run starts from.

It is `nanochat/optim.py` with the knobs tuned for the profile written into its tables, so that
finding well-known better constants is no discovery. The file is read, never imported.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

from sandbox.knobs import set_knobs

__all__ = ["BaselineError", "seed_program", "shipped_program"]


class BaselineError(RuntimeError):
    """The optimizer file or the tuned knobs of a profile cannot be used."""


def seed_program(profile: str) -> str:
    """Return the optimizer source for `profile`; as shipped where nothing was tuned for it.

    Raises:
        BaselineError: the optimizer file is missing, or the tuned knobs do not fit it.
    """
    source = shipped_program()
    tuned = _package_folder() / "tuned" / f"{profile}.json"
    if not tuned.is_file():
        return source
    try:
        knobs = dict(json.loads(tuned.read_text(encoding="utf-8"))["knobs"])
        return set_knobs(source, knobs)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BaselineError(f"cannot use the tuned knobs in {tuned.name}: {error}") from error


def shipped_program() -> str:
    """Return the optimizer source as shipped, with the knobs of its own tables.

    Raises:
        BaselineError: the optimizer file is missing.
    """
    try:
        return (_package_folder() / "optim.py").read_text(encoding="utf-8")
    except OSError as error:
        raise BaselineError(f"cannot read the optimizer file: {error}") from error


def _package_folder() -> Path:
    """Locate nanochat without importing it: its modules import torch."""
    spec = importlib.util.find_spec("nanochat")
    if spec is None or spec.origin is None:
        raise BaselineError("the package nanochat is not installed")
    return Path(spec.origin).parent
