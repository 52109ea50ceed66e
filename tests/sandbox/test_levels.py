from __future__ import annotations

import pytest

from sandbox.levels import CAPABILITIES, HIGHEST_LEVEL, level_of, needed_for, parse_level
from sandbox.probes import PROBES

_ALL = frozenset(capability.name for capability in CAPABILITIES)
_OUTER = {"own_net", "own_files", "separate_uid", "tree_kill", "pid_cap", "tree_mem_cap"}


def test_all_capabilities_make_the_highest_level() -> None:
    assert level_of(_ALL) == HIGHEST_LEVEL == 4


@pytest.mark.parametrize(
    ("lost", "level"),
    [
        ({"pid_cap"}, 3),
        ({"tree_mem_cap"}, 3),
        ({"tree_kill"}, 4),
        ({"separate_uid"}, 4),
        ({"tree_kill", "separate_uid"}, 2),
        ({"own_net"}, 2),
        ({"own_files"}, 2),
        (_OUTER, 2),
        ({"no_net"}, 1),
        ({"no_read"}, 1),
        ({"no_write"}, 1),
        ({"no_fork_exec"}, 1),
        ({"no_signal"}, 1),
        ({"mem_cap"}, 0),
        ({"no_env"}, 0),
    ],
)
def test_a_lost_capability_costs_the_levels_that_need_it(lost: set[str], level: int) -> None:
    assert level_of(_ALL - lost) == level


@pytest.mark.parametrize("level", range(1, HIGHEST_LEVEL + 1))
def test_with_what_is_needed_a_level_is_reached(level: int) -> None:
    held = {capability.name for capability in needed_for(level, ())}

    assert level_of(held) == level
    assert needed_for(level, held) == ()


def test_what_is_needed_goes_the_shorter_way() -> None:
    held = _ALL - {"tree_kill", "own_net"}

    assert [capability.name for capability in needed_for(3, held)] == ["own_net"]


@pytest.mark.parametrize("level", [-1, 5])
def test_a_level_that_does_not_exist_is_refused(level: int) -> None:
    with pytest.raises(ValueError, match=r"expected S0 to S4"):
        needed_for(level, _ALL)


def test_every_act_can_be_tried() -> None:
    assert {act for capability in CAPABILITIES for act in capability.acts} == set(PROBES)


@pytest.mark.parametrize(("text", "level"), [("S2", 2), ("s0", 0), ("4", 4)])
def test_a_level_is_read_as_people_write_it(text: str, level: int) -> None:
    assert parse_level(text) == level


@pytest.mark.parametrize("text", ["S7", "-1", "", "S", "SS2", "02", "two", "²"])
def test_a_level_nobody_has_heard_of_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="S0 to S4"):
        parse_level(text)
