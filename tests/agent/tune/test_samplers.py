"""How points are chosen: within the cube, repeatably, and with CMA-ES towards better ones."""

from __future__ import annotations

import math

import pytest

from agent.tune.samplers import Method, Point, make_sampler

TARGET = (0.7, 0.3, 0.6)


def loss(point: Point) -> float:
    return sum((x - t) ** 2 for x, t in zip(point, TARGET, strict=False))


def drawn(method: Method, *, batches: int, seed: int = 5) -> list[Point]:
    sampler = make_sampler(method, (0.5, 0.5, 0.5), seed)
    points: list[Point] = []
    for _ in range(batches):
        batch = sampler.ask()
        points += batch
        sampler.tell(batch, [loss(point) for point in batch])
    return points


@pytest.mark.parametrize("method", Method)
def test_points_lie_in_the_cube_and_follow_from_the_seed(method: Method) -> None:
    points, again, other = (drawn(method, batches=5, seed=seed) for seed in (5, 5, 6))

    assert all(0.0 <= x <= 1.0 for point in points for x in point)
    assert points == again
    assert points != other


def test_cma_comes_closer_than_random_search_with_as_many_points() -> None:
    cma, random = (drawn(Method.CMA, batches=40), drawn(Method.RANDOM, batches=40))

    count = min(len(cma), len(random))
    assert min(map(loss, cma[:count])) < 0.01 * min(map(loss, random[:count]))


def test_cma_begins_next_to_the_start_and_random_search_anywhere() -> None:
    def farthest(method: Method) -> float:
        first = make_sampler(method, (0.5, 0.5, 0.5), 1).ask()
        return max(math.dist(point, (0.5, 0.5, 0.5)) for point in first)

    assert farthest(Method.CMA) < 0.25 < farthest(Method.RANDOM)


def test_failed_points_do_not_keep_cma_from_learning() -> None:
    sampler = make_sampler(Method.CMA, (0.5, 0.5), 3)
    for _ in range(30):
        batch = sampler.ask()
        losses = [math.inf if point[0] > 0.55 else abs(point[1] - 0.8) for point in batch]
        sampler.tell(batch, losses)

    last = sampler.ask()

    assert sum(point[0] > 0.55 for point in last) <= 1
    assert all(point[1] == pytest.approx(0.8, abs=0.1) for point in last)


def test_a_single_knob_can_be_tuned_too() -> None:
    sampler = make_sampler(Method.CMA, (0.5,), 3)
    for _ in range(20):
        batch = sampler.ask()
        sampler.tell(batch, [loss(point) for point in batch])

    last = sampler.ask()

    assert all(len(point) == 1 for point in last)
    assert last[0][0] == pytest.approx(TARGET[0], abs=0.05)
