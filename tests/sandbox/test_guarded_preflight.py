"""Examining patches in a process of its own: same answers, and nothing a text does gets out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.baseline import seed_program
from sandbox.examination import Examination, Request, examine
from sandbox.guarded_preflight import GuardedPreflight, PreflightLimits, PreflightLostError
from sandbox.knobs import set_knobs
from sandbox.patches import Block, Patch, make_patch

SHIPPED = seed_program("none")
SCOPES = frozenset({"policy", "muon", "schedule"})
GOOD = make_patch(SHIPPED, set_knobs(SHIPPED, {"MUON.lr": 0.03}))


def request(patch: Patch, parent: str = SHIPPED) -> Request:
    return Request(patch=patch, parent=parent, scopes=SCOPES)


def children() -> set[int]:
    """Return the processes this one has started and not reaped."""
    listed = Path(f"/proc/{os.getpid()}/task").glob("*/children")
    return {int(pid) for file in listed for pid in file.read_text().split()}


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    before = children()
    yield
    assert children() <= before


async def pid_of(preflight: GuardedPreflight) -> int:
    """Start the process, if it is not running yet, and return which one it is."""
    before = children()
    await preflight.examine(request(GOOD))
    [pid] = children() - before
    return pid


@pytest.mark.parametrize(
    "patch",
    [
        GOOD,
        Patch(()),
        Patch((Block("no such line", ""),)),
        Patch((Block("def snap_norm(", "import os\n\n\ndef snap_norm("),)),
        Patch((Block("def snap_norm(", "x = '\ud800\0'\n\n\ndef snap_norm("),)),
        Patch((Block("def snap_norm(", "x = " + "(" * 10_000),)),
        Patch((Block("def snap_norm(", "x = 1\n" * 80_000),)),
        Patch((Block("x", "y"),) * 501),
        Patch((Block("MUON", "x" * 600_000),)),
    ],
    ids=["good", "empty", "no match", "import", "surrogate", "nested", "long", "blocks", "large"],
)
async def test_the_answer_is_that_of_the_same_examination_in_this_process(patch: Patch) -> None:
    async with GuardedPreflight() as preflight:
        assert await preflight.examine(request(patch)) == examine(request(patch))


async def test_several_questions_at_once_get_their_own_answers() -> None:
    rates = [0.01 + 0.001 * i for i in range(8)]
    patches = [make_patch(SHIPPED, set_knobs(SHIPPED, {"MUON.lr": rate})) for rate in rates]

    async with GuardedPreflight() as preflight:
        found = await asyncio.gather(*(preflight.examine(request(patch)) for patch in patches))

    assert [f"lr={rate}," in accepted_source(e) for rate, e in zip(rates, found, strict=True)] == (
        [True] * 8
    )


def accepted_source(examination: Examination) -> str:
    assert examination.accepted is not None
    return examination.accepted.source


async def test_one_process_answers_until_it_is_worn() -> None:
    async with GuardedPreflight() as preflight:
        pid = await pid_of(preflight)
        await preflight.examine(request(GOOD))
        assert pid in children()
    async with GuardedPreflight(PreflightLimits(worn_bytes=0)) as preflight:
        pid = await pid_of(preflight)
        assert await preflight.examine(request(GOOD)) == examine(request(GOOD))
        assert pid not in children()


async def test_a_text_that_takes_too_long_is_refused() -> None:
    async with GuardedPreflight(PreflightLimits(cpu_s=0.0005)) as preflight:
        found = await preflight.examine(request(GOOD))

    [violation] = found.violations
    assert violation.rule == "limits"
    assert "needed more than 0.0005 s of CPU time on this text; make it simpler" in (
        violation.message
    )


async def test_a_text_that_needs_too_much_memory_is_refused() -> None:
    async with GuardedPreflight(PreflightLimits(memory_bytes=48 << 20)) as preflight:
        assert (await preflight.examine(request(GOOD))).accepted is not None
        found = await preflight.examine(request(GOOD, parent=SHIPPED + "# x" * (8 << 20)))

    [violation] = found.violations
    assert violation.rule == "limits"
    assert "ran out of its 48 MB of memory on this text" in violation.message


async def test_a_defect_met_by_a_text_refuses_it_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with GuardedPreflight() as preflight:
        found = await preflight.examine(request(Patch(()), parent="def f(:\n"))

    assert "failed with sandbox.source_form.SourceError" in found.violations[0].message
    assert "Traceback" in caplog.text


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPROF])
async def test_what_happens_between_texts_is_not_held_against_the_next(
    sent: signal.Signals,
) -> None:
    async with GuardedPreflight() as preflight:
        os.kill(await pid_of(preflight), sent)

        assert await preflight.examine(request(GOOD)) == examine(request(GOOD))


async def test_a_process_that_hangs_is_replaced_and_the_loop_goes_on_meanwhile() -> None:
    async with GuardedPreflight(PreflightLimits(wall_s=0.3)) as preflight:
        os.kill(await pid_of(preflight), signal.SIGSTOP)
        ticks = 0
        answer = asyncio.ensure_future(preflight.examine(request(GOOD)))
        while not answer.done():
            await asyncio.sleep(0.01)
            ticks += 1

    assert answer.result() == examine(request(GOOD))
    assert ticks > 10


async def test_a_text_is_not_blamed_for_a_machine_that_does_not_answer() -> None:
    async with GuardedPreflight(PreflightLimits(wall_s=1e-6)) as preflight:
        with pytest.raises(PreflightLostError, match="lost 4 times in a row"):
            await preflight.examine(request(GOOD))


async def test_an_examination_that_is_cancelled_leaves_no_answer_to_the_next() -> None:
    async with GuardedPreflight() as preflight:
        pid = await pid_of(preflight)
        os.kill(pid, signal.SIGSTOP)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await preflight.examine(request(Patch((Block("no such line", ""),))))
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

        assert await preflight.examine(request(GOOD)) == examine(request(GOOD))


async def test_a_process_that_does_not_start_is_a_matter_of_the_machine(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for executable in ("/bin/false", "/no/such/python"):
        monkeypatch.setattr(sys, "executable", executable)
        async with GuardedPreflight() as preflight:
            with pytest.raises(PreflightLostError, match="does not start"):
                await preflight.examine(request(GOOD))


async def test_the_process_knows_no_keys_and_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAKE_API_KEY", "canary")
    async with GuardedPreflight() as preflight:
        pid = await pid_of(preflight)

        environment, maps = facts_of(pid)

    assert b"canary" not in environment
    assert b"PYTHONPATH" in environment
    assert "torch" not in maps
    assert "libc" in maps


def facts_of(pid: int) -> tuple[bytes, str]:
    """Return the environment of a process, and what files it has mapped."""
    folder = Path(f"/proc/{pid}")
    return (folder / "environ").read_bytes(), (folder / "maps").read_text()


CONTROLLER = """
import asyncio, sys
from sandbox.examination import Request
from sandbox.guarded_preflight import GuardedPreflight
from sandbox.patches import Patch

async def main():
    preflight = GuardedPreflight()
    await preflight.examine(Request(patch=Patch(()), parent="x = 1", scopes=frozenset()))
    print("ready", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


def test_the_process_ends_with_a_controller_that_is_killed() -> None:
    with subprocess.Popen(  # noqa: S603 - the interpreter that runs this test
        [sys.executable, "-c", CONTROLLER],
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as controller:
        assert controller.stdout is not None
        assert controller.stdout.readline() == b"ready\n"
        [pid] = map(
            int, Path(f"/proc/{controller.pid}/task/{controller.pid}/children").read_text().split()
        )
        controller.kill()

    assert wait_until_gone(pid)


def wait_until_gone(pid: int) -> bool:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
                time.sleep(0.01)
                continue
        return True
    return False
