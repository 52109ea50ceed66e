"""Open the store in the folder given, and start a worker that inherits whatever it can."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from db.store import Store

WORKER = "print('worker started', flush=True); input(); print('worker ended')"


def main() -> None:
    with Store.open(Path(sys.argv[1])):
        subprocess.run([sys.executable, "-c", WORKER], close_fds=False, check=True)  # noqa: S603  # our own words


if __name__ == "__main__":
    main()
