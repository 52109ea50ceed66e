from __future__ import annotations

import math

import torch

from sandbox.movement import SKETCH_NUMBERS, sketch


def distance(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    return math.dist(a, b)


def test_equal_movements_have_equal_sketches() -> None:
    movement = torch.randn(100, 7, generator=torch.Generator().manual_seed(1))

    assert sketch(movement, seed=3) == sketch(movement.clone(), seed=3)


def test_a_sketch_has_few_numbers_whatever_the_size() -> None:
    for size in (1, SKETCH_NUMBERS, SKETCH_NUMBERS + 1, 10_000):
        assert len(sketch(torch.ones(size), seed=1)) == SKETCH_NUMBERS


def test_a_small_movement_keeps_its_numbers() -> None:
    found = sketch(torch.tensor([0.5, -2.0, 0.0]), seed=1)

    assert sorted(map(abs, found))[-2:] == [0.5, 2.0]
    assert math.hypot(*found) == math.hypot(0.5, 2.0)


def test_distances_between_sketches_are_about_those_between_movements() -> None:
    """200 pairs at a fixed seed; the ratio's standard deviation should be √(1/64), an eighth."""
    generator = torch.Generator().manual_seed(2)
    ratios = []
    for seed in range(200):
        a, b = torch.randn(2, 3000, generator=generator)
        ratios.append(distance(sketch(a, seed), sketch(b, seed)) / float((a - b).norm()))

    found = torch.tensor(ratios)
    assert abs(float(found.mean()) - 1.0) < 0.03
    assert 0.09 < float(found.std()) < 0.16


def test_a_drift_that_all_elements_share_is_not_taken_for_more_than_it_is() -> None:
    """Without random signs its parts would add up: to 1768 here, instead of 100."""
    norms = [math.hypot(*sketch(torch.ones(10_000), seed)) for seed in range(50)]

    assert abs(sum(norms) / len(norms) - 100.0) < 10.0


def test_a_movement_of_a_few_elements_is_seen_among_many_that_rest() -> None:
    movement = torch.zeros(50_000)
    movement[123] = 0.25

    assert math.hypot(*sketch(movement, seed=9)) == 0.25
