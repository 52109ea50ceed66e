"""A temporary folder for workers, which are ended by force and cannot clean up after themselves."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from sandbox.ownership import PREFIX, is_deserted, owner_mark

__all__ = ["scratch_folder"]


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a folder that is gone when the context ends, or else when somebody makes the next one.

    Raises:
        OSError: there is no place for it.
    """
    _remove_deserted(Path(tempfile.gettempdir()))
    folder = Path(tempfile.mkdtemp(prefix=owner_mark(os.getpid())))
    # Others may pass through, though not look around: what a worker probes its jails with lies
    # in it, and only the jail may be what keeps them from it.
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        # A worker that is just ending may still be removing files of its own.
        shutil.rmtree(folder, ignore_errors=True)


def _remove_deserted(place: Path) -> None:
    """Remove this user's folders whose owner was killed."""
    for folder in place.glob(f"{PREFIX}*"):
        if is_deserted(folder.name) and _is_ours(folder):
            shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Tell whether it is a real folder of this user: anybody may put things there."""
    try:
        status = folder.lstat()
    except FileNotFoundError:
        return False
    return status.st_uid == os.geteuid() and folder.is_dir() and not folder.is_symlink()
