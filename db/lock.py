"""Let one process at a time work on a folder."""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

from db.errors import StoreError

__all__ = ["FolderLock"]


class FolderLock:
    """Exclusive use of a folder, from construction to `release`.

    The kernel drops the lock when the process ends, however it ends, so there is never a stale
    one to remove. The file stays; it says which process was the last to take it. It is closed
    on exec: a worker that outlives its controller does not keep the folder locked.

    Raises:
        StoreError: someone else holds it, or the folder cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / "lock"
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise StoreError(
                f"cannot write {path} ({error.strerror}): choose a folder you may write to"
            ) from error
        try:
            # flock, not lockf: it also keeps out a second user inside this process.
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "?"
            os.close(self._file)
            raise StoreError(
                f"{folder} is in use by process {holder}: wait for its end, or stop it"
            ) from None
        # Only says who holds it: a disk too full for that is no reason not to.
        with suppress(OSError):
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"{os.getpid()}\n".encode("ascii"), 0)

    def release(self) -> None:
        """Let others in; releasing twice does nothing."""
        if self._file >= 0:
            # Closing would do, but for a child that has not reached its exec yet.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file)
            self._file = -1
