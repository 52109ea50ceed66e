from __future__ import annotations

from pathlib import Path

import pytest

from agent.calibration.pool import PoolError, write_pool
from agent.calibration.shipped import find_pool, shipped_pools
from tests.agent.calibration.pools import made_up


@pytest.mark.parametrize("name", shipped_pools())
def test_a_shipped_pool_is_real_and_tells_where_it_comes_from(name: str) -> None:
    pool = find_pool(name)

    assert not pool.simulated
    assert pool.origin.startswith("profile ")
    assert "/" not in pool.origin


def test_a_pool_of_many_seeds_is_shipped() -> None:
    assert min(len(one.seeds) for one in find_pool("micro").comparisons) == 64


def test_a_pool_is_found_by_its_file(tmp_path: Path) -> None:
    path, pool = tmp_path / "pool.json", made_up()
    write_pool(pool, path)

    assert find_pool(str(path)) == pool


def test_an_unknown_pool_is_refused_with_the_names_there_are() -> None:
    with pytest.raises(PoolError, match=r"cannot read nowhere .*: give a pool's file, or .*micro"):
        find_pool("nowhere")
