from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sandbox.jail_process import JailFailure
from sandbox.monitor import UNREMARKABLE
from sandbox.refusals import describe_calls
from sandbox.seccomp import FALLBACK, RECORDED, call_name
from sandbox.system_calls import TABLES
from sandbox.zygote_process import Zygote
from tests.sandbox.jails import jailed, optimizer_file

_FILTERED = "prctl(PR_SET_SECCOMP"
# Every optimizer of torch.optim that takes dense gradients and needs no closure.
_ALL_OPTIMIZERS = """
if not hasattr(self, "others"):
    import torch
    skipped = ("LBFGS", "Optimizer", "SparseAdam")
    kinds = [
        kind
        for name, kind in vars(torch.optim).items()
        if isinstance(kind, type) and name not in skipped
    ]
    self.others = [kind(self.param_groups[0]["params"]) for kind in kinds]
for other in self.others:
    other.step()
print("trained", len(self.others))
"""


@pytest.mark.parametrize("machine", sorted(TABLES))
def test_every_call_the_filter_names_has_a_number_on_each_machine(machine: str) -> None:
    assert (RECORDED | FALLBACK) - TABLES[machine].keys() == set()


def test_nothing_allowed_can_open_a_connection_start_anything_or_signal() -> None:
    described = describe_calls((RECORDED | FALLBACK) - {"openat"})

    assert described.startswith("the system call ")
    assert " and " not in described


def test_what_is_unremarkable_is_not_allowed_either() -> None:
    assert UNREMARKABLE.isdisjoint(RECORDED | FALLBACK)


def test_an_unknown_number_has_a_name_too() -> None:
    assert call_name(9999) == "system call 9999"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may trace a jail")
def test_honest_jails_call_what_was_recorded_and_nothing_else(
    zygote: Zygote, tmp_path: Path
) -> None:
    calls = _record(zygote, optimizer_file(_ALL_OPTIMIZERS), tmp_path)
    calls |= _record(zygote, optimizer_file("raise ValueError('no')"), tmp_path)

    assert calls - RECORDED - FALLBACK == set()
    assert RECORDED - calls == set()


def _record(zygote: Zygote, source: str, folder: Path) -> set[str]:
    """Return the system calls of a jail once it is confined."""
    zygote.wait_until_ready()
    trace = folder / "trace"
    arguments = ["strace", "-ff", "-qq", "-o", str(trace), "-p", str(zygote.pid)]
    with subprocess.Popen(arguments) as tracer:  # noqa: S603 - a tracer on our own process
        _wait_for(lambda: any(folder.glob("trace.*")))
        with jailed(zygote, source) as rig, contextlib.suppress(JailFailure):
            rig.optimizer.build()
            rig.step()
            rig.step(1)
        tracer.terminate()
    calls: set[str] = set()
    for path in folder.glob("trace.*"):
        _, filtered, confined = path.read_text(errors="replace").rpartition(_FILTERED)
        if filtered:
            calls |= set(re.findall(r"^(\w+)\(", confined, flags=re.MULTILINE))
        path.unlink()
    return calls


def _wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.01)
