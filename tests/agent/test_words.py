from __future__ import annotations

import pytest

from agent.words import counted


@pytest.mark.parametrize(
    ("number", "words"), [(0, "0 blocks"), (1, "1 block"), (2, "2 blocks"), (11, "11 blocks")]
)
def test_only_one_is_singular(number: int, words: str) -> None:
    assert counted(number, "block") == words
