from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agent.confirmation.selection_bias import races_of, shrunken_effect
from agent.stage import Stage
from db.store import Store
from tests.agent.fakes import FakePool, ScriptedProposer, noise, parts, settings
from tests.agent.lineages import search

CONFIRMED = [-0.004 + 0.002 * noise("confirmed", k) for k in range(10)]


def races(size: float) -> list[list[float]]:
    """Races of twenty candidates, whose true effects are of about that size."""
    return [
        [size * noise("effect", c) + 0.002 * noise("seed", c, k) for k in range(4)]
        for c in range(20)
    ]


def test_where_gains_are_unheard_of_an_effect_is_believed_less() -> None:
    common, unheard = (shrunken_effect(CONFIRMED, races(size)) for size in (0.01, 0.0))

    assert common is not None
    assert unheard is not None
    assert unheard.mean > common.mean
    assert common.mean == pytest.approx(sum(CONFIRMED) / 10, rel=0.2)


@pytest.mark.parametrize(
    ("confirmed", "others"), [([-0.01], [[0.0, 0.1]]), (CONFIRMED, []), ([0.0, 0.0], [[0.0, 0.0]])]
)
def test_without_spread_or_company_nothing_is_shrunk(
    confirmed: list[float], others: list[list[float]]
) -> None:
    assert shrunken_effect(confirmed, others) is None


def test_every_race_of_a_run_is_read_as_it_was_judged(tmp_path: Path) -> None:
    proposer = ScriptedProposer(0.021, 0.1, 0.019, 0.05)
    asyncio.run(search(tmp_path, settings(budget_evals=80), parts(FakePool(), proposer)))

    with Store.open(tmp_path, exclusive=False) as store:
        found = races_of(store)
        verdicts = [v for v in store.verdicts() if v.stage == Stage.RACE and v.pairs > 1]

    assert len(found) == len(verdicts) > 1
    assert [sum(race) / len(race) for race in found] == pytest.approx(
        [verdict.effect_bpb for verdict in verdicts]
    )
