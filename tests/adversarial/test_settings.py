from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.adversarial.settings import as_ordinary_user

_ROOT = Path(__file__).parents[2]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

_AS_USER = """
import os, tempfile
from tests.adversarial.settings import as_ordinary_user
as_ordinary_user()
import torch  # from below a folder that may have been closed to this user
open(os.path.join(tempfile.gettempdir(), "x"), "w").close()
capabilities = [line for line in open("/proc/self/status") if line.startswith("CapEff")]
print(os.geteuid() > 0, int(capabilities[0].split()[1], 16))
"""

_WITHOUT_NAMESPACES = """
import ctypes, os, platform, signal, subprocess
from tests.adversarial.settings import without_namespaces
without_namespaces()
libc = ctypes.CDLL(None, use_errno=True)
clone = {"x86_64": 56, "aarch64": 220}[platform.machine()]
child = libc.syscall(clone, 0x10000000 | signal.SIGCHLD, 0, 0, 0, 0)
if child == 0:
    os._exit(0)
print(child, libc.unshare(0x10000000), libc.unshare(0x40000000), ctypes.get_errno())
subprocess.run(["/bin/true"], check=True)  # plain forks still work
"""


def _run(program: str) -> str:
    done = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], cwd=_ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_root
def test_an_ordinary_user_can_import_everything_and_may_do_nothing() -> None:
    assert _run(_AS_USER) == "True 0\n"


def test_namespaces_are_refused_and_forks_are_not() -> None:
    assert _run(_WITHOUT_NAMESPACES) == "-1 -1 -1 1\n"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may become another user")
def test_an_ordinary_user_cannot_become_another() -> None:
    with pytest.raises(PermissionError, match="only root"):
        as_ordinary_user()
