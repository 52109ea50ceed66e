"""The proposer that needs no model."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from agent.operators.proposer import OperatorsProposer
from agent.operators.registry import OPERATORS, PRIOR_WEIGHTS
from agent.proposals import Brief, NothingToPropose, ParentView, Proposer
from sandbox.baseline import seed_program
from sandbox.knobs import read_knobs, set_knobs
from sandbox.patches import apply_patch
from sandbox.preflight import preflight
from sandbox.source_form import normalised_digest

SHIPPED = seed_program("none")
SCOPES = frozenset({"policy", "muon", "schedule"})


def brief(
    ordinal: int = 1,
    *,
    source: str = SHIPPED,
    second: str | None = None,
    scopes: frozenset[str] = SCOPES,
    is_known: Callable[[str], bool] = lambda _: False,
) -> Brief:
    return Brief(
        ordinal=ordinal,
        rng=random.Random(ordinal),  # noqa: S311 (reproducible, no secret)
        parent=ParentView(program_id="first", source=source),
        second=ParentView(program_id="second", source=second) if second else None,
        scopes=scopes,
        is_known=is_known,
    )


async def test_the_same_brief_gets_the_same_answer() -> None:
    first = await OperatorsProposer().propose(brief(5))
    again = await OperatorsProposer().propose(brief(5))

    assert first == again


async def test_a_patch_applies_to_the_parent_and_passes_preflight() -> None:
    for ordinal in range(60):
        proposed = await OperatorsProposer().propose(brief(ordinal))
        child = apply_patch(proposed.patch, SHIPPED)
        assert preflight(child, SHIPPED, SCOPES) == ()
        assert normalised_digest(child) != normalised_digest(SHIPPED)


async def test_no_program_is_proposed_twice_while_the_brief_knows_it() -> None:
    known = {normalised_digest(SHIPPED)}

    for ordinal in range(150):
        proposed = await OperatorsProposer().propose(brief(ordinal, is_known=known.__contains__))
        child = normalised_digest(apply_patch(proposed.patch, SHIPPED))
        assert child not in known
        known.add(child)


async def test_a_description_names_the_operator_and_the_values() -> None:
    proposer = OperatorsProposer(dict.fromkeys(OPERATORS, 0.0) | {"adjust_ns_steps": 1.0})

    proposed = await proposer.propose(brief())

    steps = read_knobs(apply_patch(proposed.patch, SHIPPED))["POLICY.ns_steps"].value
    assert proposed.description == f"adjust_ns_steps: POLICY.ns_steps 5 -> {steps}"
    assert (proposed.proposer, proposed.parents, proposed.cost) == ("operators", ("first",), {})


async def test_operators_are_drawn_by_their_weights() -> None:
    weights = dict.fromkeys(OPERATORS, 0.0) | {"toggle_nesterov": 3.0, "toggle_norm_snap": 1.0}
    drawn = []

    for ordinal in range(200):
        proposed = await OperatorsProposer(weights).propose(brief(ordinal))
        drawn.append(proposed.description.partition(":")[0])

    # 150 are expected; 1 in 100,000 fair draws would fall outside.
    assert 120 < drawn.count("toggle_nesterov") < 180
    assert set(drawn) == {"toggle_nesterov", "toggle_norm_snap"}


def test_every_prior_weight_is_given_to_an_operator() -> None:
    assert set(PRIOR_WEIGHTS) <= set(OPERATORS)
    assert all(weight > 0 for weight in PRIOR_WEIGHTS.values())


async def test_operators_that_are_live_come_up_equally_often() -> None:
    counts: dict[str, int] = {}
    for ordinal in range(600):
        proposed = await OperatorsProposer({}).propose(brief(ordinal))
        name = proposed.description.partition(":")[0]
        counts[name] = counts.get(name, 0) + 1

    # About 24 each of 25 live operators; the seeds are fixed.
    assert len(counts) > 20
    assert max(counts.values()) < 4 * min(counts.values())


async def test_a_second_program_makes_crossovers_that_name_both_parents() -> None:
    theirs = set_knobs(SHIPPED, {"MUON.lr": 0.05, "POLICY.norm_snap": False})
    crossovers = []

    for ordinal in range(40):
        proposed = await OperatorsProposer().propose(brief(ordinal, second=theirs))
        if proposed.description.startswith("crossover"):
            crossovers.append(proposed)
            child = read_knobs(apply_patch(proposed.patch, SHIPPED))
            assert child["MUON.lr"].value in {0.02, 0.05}
        else:
            assert proposed.parents == ("first",)

    assert 5 < len(crossovers) < 35
    assert {proposed.parents for proposed in crossovers} == {("first", "second")}


async def test_an_equal_second_program_is_no_obstacle() -> None:
    for ordinal in range(10):
        proposed = await OperatorsProposer().propose(brief(ordinal, second=SHIPPED))
        assert proposed.parents == ("first",)


@pytest.mark.parametrize("scopes", [frozenset(), frozenset({"unheard_of"})])
async def test_scopes_without_knobs_leave_nothing_to_propose(scopes: frozenset[str]) -> None:
    with pytest.raises(NothingToPropose, match="scopes"):
        await OperatorsProposer().propose(brief(scopes=scopes))


async def test_a_proposer_gives_up_when_everything_is_known() -> None:
    with pytest.raises(NothingToPropose, match="tried before"):
        await OperatorsProposer().propose(brief(is_known=lambda _: True))


@pytest.mark.parametrize("weights", [{"toggle_everything": 1.0}, {"toggle_nesterov": -1.0}])
def test_weights_that_make_no_sense_are_refused(weights: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="toggle_"):
        OperatorsProposer(weights)


def test_the_operators_are_a_proposer() -> None:
    proposer: Proposer = OperatorsProposer()

    assert proposer.name == "operators"
