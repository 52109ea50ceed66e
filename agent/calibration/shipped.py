"""Name and find the pools of real noise that come with the project."""

from __future__ import annotations

from pathlib import Path

from agent.calibration.pool import Pool, PoolError, read_pool

__all__ = ["find_pool", "shipped_pools"]

FOLDER = Path(__file__).parent / "pools"


def shipped_pools() -> tuple[str, ...]:
    """Name the pools that come with the project."""
    return tuple(sorted(path.stem for path in FOLDER.glob("*.json")))


def find_pool(name: str) -> Pool:
    """Return a shipped pool by its name, or the pool in a file.

    Raises:
        PoolError: there is no such pool, or it cannot be used.
    """
    shipped = FOLDER / f"{name}.json"
    path = shipped if name in shipped_pools() else Path(name)
    try:
        return read_pool(path)
    except OSError as error:
        known = ", ".join(shipped_pools())
        raise PoolError(
            f"cannot read {path} ({error.strerror}): give a pool's file, or one of {known}"
        ) from error
