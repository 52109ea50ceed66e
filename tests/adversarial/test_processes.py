from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from tests.adversarial.processes import descendants, end_and_reap, open_files

_ROOT = Path(__file__).parents[2]
_ORPHAN = """
import os, subprocess, sys
from tests.adversarial.processes import adopt_orphans, descendants, end_and_reap
adopt_orphans()
known = set(descendants())
subprocess.run(["/bin/sh", "-c", "setsid sleep 60 >/dev/null 2>&1 &"], check=True)
print(dict(end_and_reap(known)), set(descendants()) == known)
"""


def test_a_process_that_goes_on_is_counted_and_ended() -> None:
    known = set(descendants())
    child = subprocess.Popen(["/bin/sleep", "60"])

    survivors = end_and_reap(known)

    assert survivors == {"sleep": 1}
    assert child.pid not in descendants()
    child.returncode = 0  # reaped behind its back


def test_the_child_of_a_child_is_counted_too() -> None:
    known = set(descendants())
    child = subprocess.Popen(["/bin/sh", "-c", "sleep 60 & wait"])

    survivors = end_and_reap(known)

    assert survivors == {"sh": 1, "sleep": 1}
    child.returncode = 0  # reaped behind its back


def test_a_process_that_has_ended_is_reaped_and_not_counted() -> None:
    known = set(descendants())
    child = subprocess.Popen(["/bin/true"])

    survivors = end_and_reap(known)

    assert not survivors
    assert child.pid not in descendants()
    child.returncode = 0  # reaped behind its back


def test_an_orphan_in_a_session_of_its_own_is_found() -> None:
    found = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", _ORPHAN], cwd=_ROOT, capture_output=True, text=True, check=True
    )

    assert found.stdout == "{'sleep': 1} True\n"


def test_open_files_are_counted() -> None:
    before = open_files(os.getpid())
    descriptor = os.dup(1)

    after = open_files(os.getpid())

    os.close(descriptor)
    assert after == before + 1
