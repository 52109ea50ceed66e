"""A run whose disk is full from its second training run on: `python -m tests.agent.full_disk_run`.

In a process of its own, because the limit that stands for the full disk is the process's, and
would also keep a test runner from writing its log.
"""

from __future__ import annotations

import resource
import sys
from unittest.mock import patch

from agent import run
from tests.agent.fakes import SEED_SOURCE, StartingPool


def _fill_disk(count: int) -> None:
    if count == 1:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, hard))


if __name__ == "__main__":
    pool = StartingPool()
    pool.before_job = _fill_disk
    words = ["--profile", "micro", "--workers", "1", "--budget-evals", "5"]
    with (
        patch.object(run, "LocalPool", lambda *_: pool),
        patch.object(run, "seed_program", lambda _: SEED_SOURCE),
    ):
        run.app([*words, "--runs-dir", sys.argv[1]])
