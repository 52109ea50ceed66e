from __future__ import annotations

import math
from typing import Any

import pytest

from agent.guardrails import Guardrails, GuardrailsError, Spent, breach, cpu_ratio


def spent(*cpu_s: float, memory: int = 100) -> list[Spent]:
    return [Spent(jail_cpu_s=cpu, peak_memory_bytes=memory) for cpu in cpu_s]


def test_a_program_within_all_limits_breaks_none() -> None:
    found = breach(
        Guardrails(),
        setbacks=[-0.01, 0.05],
        ours=spent(2.0, 2.0, memory=150),
        baseline=spent(1.0, 1.0),
    )

    assert found is None


@pytest.mark.parametrize(
    ("costs", "reason"),
    [
        ({"setbacks": [-0.01] * 7 + [0.08]}, "+0.0800 bpb behind on one seed of 8"),
        ({"ours": spent(2.1), "baseline": spent(1.0)}, "2.10 times the optimizer CPU time"),
        (
            {"ours": spent(1.0, memory=160), "baseline": spent(1.0)},
            "1.60 times the peak memory",
        ),
    ],
)
def test_every_limit_refuses_with_what_was_found(costs: dict[str, Any], reason: str) -> None:
    found = breach(Guardrails(), **costs)

    assert found is not None
    assert found.startswith("guardrail: ")
    assert reason in found


def test_one_run_on_a_busy_machine_does_not_make_a_program_dear() -> None:
    assert cpu_ratio(spent(1.0, 1.1, 9.0), spent(1.0, 1.0, 1.0)) == pytest.approx(1.1)


def test_costs_nobody_measured_break_no_limit() -> None:
    unmeasured = spent(0.0, memory=0)

    assert breach(Guardrails(), ours=spent(5.0), baseline=unmeasured) is None


@pytest.mark.parametrize(
    "limits",
    [
        {"max_cpu_ratio": 0.9},
        {"max_memory_ratio": math.nan},
        {"max_setback_bpb": 0.0},
    ],
)
def test_limits_that_nothing_could_keep_are_refused(limits: dict[str, float]) -> None:
    with pytest.raises(GuardrailsError):
        Guardrails(**limits)
