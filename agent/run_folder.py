"""Name and find the folders of runs."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from db.store import DATABASE

__all__ = ["RunFolderError", "find_run", "make_run_folder"]

LATEST = "latest"
SAME_SECOND = 1000  # runs of one seed that may begin in the same second


class RunFolderError(Exception):
    """A run's folder cannot be made or found; the message says what to do."""


def make_run_folder(runs_dir: Path, *, seed: int, now: datetime) -> Path:
    """Make the folder of a new run, named after its start and seed: `20261120-041207-s1`.

    Raises:
        RunFolderError: the place cannot be written.
    """
    name = f"{now:%Y%m%d-%H%M%S}-s{seed}"
    try:
        runs_dir.mkdir(parents=True, exist_ok=True)
        for number in range(1, SAME_SECOND):
            folder = runs_dir / (name if number == 1 else f"{name}-{number}")
            try:
                folder.mkdir()
            except FileExistsError:
                continue
            return folder
    except OSError as error:
        raise RunFolderError(
            f"cannot make a run's folder in {runs_dir} ({error.strerror}): "
            "give a folder you may write to with --runs-dir"
        ) from error
    raise RunFolderError(f"{runs_dir} holds too many runs named {name}: choose another --runs-dir")


def find_run(run: str, runs_dir: Path) -> Path:
    """Return the folder meant by a path, the id of a run, or `latest`.

    Raises:
        RunFolderError: there is no such run.
    """
    if run == LATEST:
        return _latest(runs_dir)
    candidates = (Path(run), runs_dir / run)
    for folder in candidates:
        if (folder / DATABASE).is_file():
            return folder
    looked = " or ".join(str(folder) for folder in candidates)
    raise RunFolderError(f"no run at {looked}: give a run's folder, its id, or `latest`")


def _latest(runs_dir: Path) -> Path:
    folders = [path.parent for path in runs_dir.glob(f"*/{DATABASE}")]
    if not folders:
        raise RunFolderError(f"no run in {runs_dir}: start one with `python -m agent.run`")
    return max(folders, key=lambda folder: folder.name)  # names begin with the time of the start
