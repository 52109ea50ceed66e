"""How far up the hierarchy a win stands, given what was found."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.confirmation.findings import Findings, GateTest, Standing
from agent.confirmation.levels import claim_of, levels_of, reached
from agent.confirmation.plan import Part, make_plan
from agent.guardrails import Guardrails
from sandbox.jobs import Vitals
from tests.agent.confirmation.builders import (
    GAINS,
    PLAN,
    confirmed,
    duel_of,
    found_on,
    rates_of,
    trained,
    with_tested,
)


def standings(findings: Findings, number: int = 1) -> list[Standing]:
    return [level.standing for level in levels_of(findings, number, Guardrails())]


def height(findings: Findings, number: int = 1) -> int:
    return reached(levels_of(findings, number, Guardrails()))


def condition(part: Part) -> int:
    return next(i for i, c in enumerate(PLAN.conditions) if c.part is part)


def test_a_win_that_holds_everywhere_reaches_the_fifth_level() -> None:
    assert standings(confirmed()) == [
        Standing.HELD,
        Standing.NOT_APPLICABLE,
        Standing.HELD,
        Standing.HELD,
        Standing.HELD,
    ]
    assert height(confirmed()) == 5


def test_nothing_found_yet_reaches_no_level_and_claims_nothing() -> None:
    empty = Findings(plan=PLAN)

    assert height(empty) == 0
    assert claim_of(empty, 1) is None
    assert Standing.HELD not in standings(empty)


def test_an_evaluator_that_scores_a_neutral_edit_otherwise_takes_every_level() -> None:
    noisy = replace(confirmed(), neutral=duel_of([0.0, 1e-9, 0.0, 0.0]))

    assert height(noisy) == 0


def test_an_evaluator_that_does_not_see_a_bad_optimizer_takes_every_level() -> None:
    assert height(replace(confirmed(), bad=duel_of([0.01, -0.02, 0.01, 0.0]))) == 0


def test_a_bad_optimizer_that_does_not_even_train_is_seen() -> None:
    assert height(replace(confirmed(), bad=duel_of([None]))) == 5


@pytest.mark.parametrize("part", [Part.OTHER_TEXT, Part.HALF, Part.DOUBLE, Part.QUADRUPLE])
def test_a_win_that_fails_on_other_text_or_at_another_length_ends_at_the_third_level(
    part: Part,
) -> None:
    planned = PLAN.conditions[condition(part)]
    differences = [0.01 * (-1) ** k for k in range(planned.pairs)]

    assert height(with_tested(confirmed(), found_on(planned, differences))) == 3


@pytest.mark.parametrize("part", [Part.SMALLER, Part.LARGER])
def test_a_win_that_fails_at_another_size_ends_at_the_fourth_level(part: Part) -> None:
    planned = PLAN.conditions[condition(part)]

    assert height(with_tested(confirmed(), found_on(planned, [None]))) == 4


def test_a_size_that_cannot_be_is_not_asked_for_but_one_must_be() -> None:
    smaller, larger = (PLAN.conditions[condition(p)] for p in (Part.SMALLER, Part.LARGER))
    impossible = replace(found_on(smaller), duel=None, trouble="the model cannot be smaller")

    one = with_tested(confirmed(), impossible)
    none = with_tested(one, replace(impossible, condition=larger))

    assert (height(one), height(none)) == (5, 4)
    assert standings(none)[4] is Standing.NOT_TESTED


def test_a_win_at_one_learning_rate_only_ends_at_the_third_level() -> None:
    assert height(replace(confirmed(), rates=rates_of(-0.02, 0.02, -0.02, 0.02))) == 3


def test_a_quick_confirmation_ends_at_the_third_level() -> None:
    quick = confirmed(make_plan(6, is_quick=True))

    assert height(quick) == 3
    assert standings(quick)[3:] == [Standing.NOT_TESTED, Standing.NOT_TESTED]


def test_every_look_makes_the_claim_harder() -> None:
    weak = [-0.02, -0.03, -0.015, -0.025, -0.01, -0.022]
    findings = with_tested(confirmed(), found_on(PLAN.conditions[0], weak))

    first, eighth = claim_of(findings, 1), claim_of(findings, 8)

    assert first is not None
    assert eighth is not None
    assert first.p == eighth.p
    assert (first.holds, eighth.holds) == (True, False)
    assert (height(findings, 1), height(findings, 8)) == (5, 1)


def test_nothing_is_claimed_before_all_sealed_pairs_are_there() -> None:
    findings = with_tested(confirmed(), found_on(PLAN.conditions[0], GAINS[:5]))

    assert claim_of(findings, 1) is None
    assert height(findings) == 1


def test_a_program_that_fails_on_a_sealed_seed_claims_nothing() -> None:
    findings = with_tested(confirmed(), found_on(PLAN.conditions[0], [*GAINS[:5], None]))

    assert standings(findings)[2] is Standing.FAILED
    assert claim_of(findings, 1) is None


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"jail_cpu_s": 0.03}, "optimizer CPU time"),
        ({"peak_memory_bytes": 1 << 30}, "peak memory"),
        (
            {
                "vitals": Vitals(
                    gradient_norms=tuple((s, 9.0 if s == 30 else 1.0) for s in range(40)),
                    resident_bytes=1000,
                )
            },
            "gradient spikes",
        ),
        (
            {
                "vitals": Vitals(
                    gradient_norms=tuple((s, float("nan")) for s in range(40)), resident_bytes=None
                )
            },
            "not finite",
        ),
    ],
)
def test_a_guardrail_stops_a_win_at_the_fourth_level(
    changes: dict[str, object], words: str
) -> None:
    costly = found_on(PLAN.conditions[0])
    costly = replace(costly, duel=duel_of(GAINS, **changes))
    findings = with_tested(confirmed(), costly)

    assert height(findings) == 4
    fifth = levels_of(findings, 1, Guardrails())[4]
    assert any(line.startswith("guardrail:") and words in line for line in fifth.evidence)


def test_the_gate_is_judged_by_the_program_with_its_gate_held_still() -> None:
    gate = {"POLICY.gate_step_fraction": -2.0}
    gated = replace(confirmed(), has_gate=True)
    useful = replace(gated, gate=GateTest(gate=gate, duel=duel_of(GAINS)))
    useless = replace(gated, gate=GateTest(gate=gate, duel=duel_of([0.0, 0.01, -0.01, 0.002])))

    assert [standings(f)[1] for f in (gated, useful, useless)] == [
        Standing.NOT_TESTED,
        Standing.HELD,
        Standing.FAILED,
    ]
    assert height(useless) == 5, "a gate that does nothing takes no win away"
    assert "step_fraction -2" in levels_of(useful, 1, Guardrails())[1].evidence[0]


def test_a_best_rate_at_the_edge_of_the_sweep_is_told() -> None:
    rates = rates_of(-0.02, -0.021, -0.019, factors=(1.0, 2.0))

    third = levels_of(replace(confirmed(), rates=rates), 1, Guardrails())[2]

    assert "x 1 (the edge of the sweep)" in third.evidence[-1]


def test_memory_is_told_beyond_that_of_an_optimizer_that_keeps_nothing() -> None:
    findings = replace(
        confirmed(),
        stateless=trained(vitals=Vitals(gradient_norms=(), resident_bytes=0)),
    )
    sealed = found_on(PLAN.conditions[0])
    held = Vitals(gradient_norms=(), resident_bytes=3 << 20)
    findings = with_tested(findings, replace(sealed, duel=duel_of(GAINS, vitals=held)))

    fifth = levels_of(findings, 1, Guardrails())[4]

    assert any("3.00 MiB of state and workspace" in line for line in fifth.evidence)
