from __future__ import annotations

import pytest

from sandbox.baseline import seed_program
from sandbox.evaluator import Evaluator
from sandbox.jobs import Job, WorkerSpec
from sandbox.preflight import preflight
from sandbox.zygote_process import Zygote
from tests.adversarial.corpus import Attack, Slot
from tests.adversarial.program import PROFILE, SCOPES, host_program, spliced


def _attack(slot: Slot) -> Attack:
    return Attack(id="x", group="x", slot=slot, code="", ends=("crash",), oracle="x")


@pytest.mark.parametrize(
    "slot", [Slot.STEP, Slot.INIT, Slot.EVAL, Slot.OBSERVE, Slot.MODULE, Slot.END]
)
def test_the_code_goes_into_the_file_once_and_nothing_else_changes(slot: Slot) -> None:
    program = spliced(_attack(slot), "mark = 'only here'")

    before = [line for line in host_program().split("\n") if line.strip()]
    after = [line for line in program.split("\n") if line.strip()]
    assert [line for line in after if "only here" not in line] == before
    assert sum("only here" in line for line in after) == 1


@pytest.mark.parametrize("slot", [Slot.STEP, Slot.INIT, Slot.EVAL, Slot.OBSERVE, Slot.MODULE])
def test_preflight_does_not_object_to_the_place(slot: Slot) -> None:
    program = spliced(_attack(slot), "width = 3\n")

    assert {each.rule for each in preflight(program, host_program(), SCOPES)} <= {"unused"}


@pytest.mark.slow
def test_the_host_trains_to_the_bit_like_the_seed_program() -> None:
    zygote = Zygote()
    try:
        evaluator = Evaluator(WorkerSpec(profile=PROFILE), zygote)
        seed, host = (
            evaluator.run(Job(source=source, seed=3, steps=8, horizon=40), lambda _: None)
            for source in (seed_program(PROFILE), host_program())
        )
    finally:
        zygote.close()

    assert seed.fingerprint is not None
    assert (host.fingerprint, host.bpb) == (seed.fingerprint, seed.bpb)
