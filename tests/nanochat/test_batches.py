"""Batches depend on seed and step only, and an epoch covers the text once."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nanochat.batches import BatchSource

TOKENS = np.arange(1001, dtype=np.uint16)


@given(order=st.permutations(range(12)))
def test_a_batch_does_not_depend_on_those_asked_for_before(order: list[int]) -> None:
    in_order = BatchSource(TOKENS, 4, 32, seed=5)
    expected = [in_order.batch(step) for step in range(12)]  # two epochs

    source = BatchSource(TOKENS, 4, 32, seed=5)

    for step in order:
        x, y = source.batch(step)
        assert torch.equal(x, expected[step][0])
        assert torch.equal(y, expected[step][1])


def test_targets_are_the_inputs_one_token_later() -> None:
    x, y = BatchSource(TOKENS, 4, 32, seed=0).batch(3)

    assert x.shape == y.shape == (4, 32)
    assert x.dtype == y.dtype == torch.int64
    assert torch.equal(x[:, 1:], y[:, :-1])
    assert torch.equal(y, x + 1)  # these tokens count up


def test_an_epoch_trains_on_no_token_twice() -> None:
    source = BatchSource(TOKENS, 4, 32, seed=0)

    targets = torch.cat([source.batch(step)[1].ravel() for step in range(7)])

    assert source.batches_per_epoch == 7
    assert len(set(targets.tolist())) == len(targets) == 7 * source.tokens_per_batch


def test_the_rows_of_an_epoch_come_in_no_order_of_the_text() -> None:
    source = BatchSource(TOKENS, 4, 32, seed=0)

    starts = torch.cat([source.batch(step)[0][:, 0] for step in range(7)])

    rising = (starts[1:] > starts[:-1]).double().mean().item()
    assert 0.2 < rising < 0.8


def test_epochs_differ_in_order_and_phase() -> None:
    source = BatchSource(TOKENS, 4, 32, seed=0)

    first, second = source.batch(0)[0], source.batch(7)[0]

    assert not torch.equal(first, second)
    assert first[0, 0] % 32 != second[0, 0] % 32  # for this seed


def test_seeds_differ_in_their_data_order() -> None:
    one, other = (BatchSource(TOKENS, 4, 32, seed=seed).batch(0)[0] for seed in (1, 2))

    assert not torch.equal(one, other)


@given(length=st.integers(5, 40), seed=st.integers(0, 1000))
def test_every_row_lies_within_the_text(length: int, seed: int) -> None:
    tokens = np.arange(3 * length + 1, dtype=np.uint16)
    source = BatchSource(tokens, 2, length, seed=seed)

    x, y = source.batch(0)

    assert x.min() >= 0
    assert y.max() < len(tokens)


def test_text_that_does_not_fill_a_batch_is_refused_with_what_is_needed() -> None:
    needed = (4 + 1) * 32 + 1
    BatchSource(TOKENS[:needed], 4, 32, seed=0)

    with pytest.raises(ValueError, match=f"{needed - 1} tokens .* {needed} are needed"):
        BatchSource(TOKENS[: needed - 1], 4, 32, seed=0)
