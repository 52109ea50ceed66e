from __future__ import annotations

import pytest

from agent.confirmation.plan import DEFAULT_PAIRS, Part, fresh_seeds, make_plan
from sandbox.jobs import Split


def test_the_usual_plan_asks_for_lengths_sizes_and_other_text() -> None:
    plan = make_plan(DEFAULT_PAIRS, is_quick=False)

    assert [(c.part, c.pairs, c.length, c.size) for c in plan.conditions] == [
        (Part.SEALED, 20, 1.0, 0),
        (Part.OTHER_TEXT, 8, 1.0, 0),
        (Part.HALF, 8, 0.5, 0),
        (Part.DOUBLE, 8, 2.0, 0),
        (Part.QUADRUPLE, 8, 4.0, 0),
        (Part.SMALLER, 8, 1.0, -1),
        (Part.LARGER, 8, 1.0, 1),
    ]
    assert {c.split for c in plan.conditions} == {Split.SEALED, Split.OUT_OF_DISTRIBUTION}


def test_a_quick_plan_has_no_longer_runs_and_no_other_sizes() -> None:
    plan = make_plan(8, is_quick=True)

    assert all(c.length <= 1.0 and c.size == 0 for c in plan.conditions)
    assert len(plan.factors) < len(make_plan(8, is_quick=False).factors)


@pytest.mark.parametrize("is_quick", [False, True])
def test_no_seed_serves_two_parts_or_two_confirmations(is_quick: bool) -> None:
    plan = make_plan(DEFAULT_PAIRS, is_quick=is_quick)

    drawn = [
        seed
        for number in (1, 2)
        for seeds in fresh_seeds(plan, 7, number).values()
        for seed in seeds
    ]

    assert len(drawn) == len(set(drawn)) == 2 * sum(plan.seeds_needed().values())


def test_the_same_seed_and_number_draw_the_same_seeds() -> None:
    plan = make_plan(5, is_quick=True)

    assert fresh_seeds(plan, 7, 1) == fresh_seeds(plan, 7, 1) != fresh_seeds(plan, 8, 1)
