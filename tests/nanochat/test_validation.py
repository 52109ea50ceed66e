"""Bits per byte counts bytes of text, on windows that never change."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from nanochat.model import GPT, GPTConfig
from nanochat.tokenizer import ByteTokenizer
from nanochat.validation import bits_per_byte, validate

BYTES = ByteTokenizer()


@pytest.fixture
def model() -> GPT:
    config = GPTConfig(depth=1, width=32, head_dim=16, vocab_size=257, sequence_length=16)
    made = GPT(config)
    made.init_weights(torch.Generator().manual_seed(0))
    with torch.no_grad():
        made.lm_head.weight.mul_(300)  # far from uniform
    return made


def text_tokens(count: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, count).astype(np.uint16)


def test_a_uniform_guess_over_bytes_costs_eight_bits() -> None:
    assert bits_per_byte(100 * math.log(256), 100) == pytest.approx(8)


def test_no_byte_at_all_is_an_error() -> None:
    with pytest.raises(ValueError, match="no byte"):
        bits_per_byte(1.0, 0)


def test_the_score_is_summed_nats_over_summed_bytes(model: GPT) -> None:
    tokens = text_tokens(16 * 4 + 1)

    found = validate(model, tokens, BYTES.token_bytes, 3, 16, limit_bytes=10**6)

    rows = torch.from_numpy(tokens.astype(np.int64))
    x, y = rows[:-1].view(4, 16), rows[1:].view(4, 16)
    expected = model(x, y).item() / math.log(2)
    assert found == pytest.approx(expected, rel=1e-6)


def test_special_targets_count_in_neither_sum(model: GPT) -> None:
    tokens = text_tokens(33)
    tokens[[5, 20]] = BYTES.bos

    found = validate(model, tokens, BYTES.token_bytes, 2, 16, limit_bytes=10**6)

    rows = torch.from_numpy(tokens.astype(np.int64))
    losses = model(rows[:-1].view(2, 16), rows[1:].view(2, 16), loss_reduction="none").ravel()
    kept = [i for i in range(32) if tokens[i + 1] != BYTES.bos]
    assert len(kept) == 30
    assert found == pytest.approx(losses[kept].sum().item() / math.log(2) / 30, rel=1e-6)


def test_a_token_of_two_bytes_weighs_two(model: GPT) -> None:
    tokens = text_tokens(33)

    single = validate(model, tokens, BYTES.token_bytes, 2, 16, limit_bytes=10**6)
    double = validate(model, tokens, 2 * BYTES.token_bytes, 2, 16, limit_bytes=10**6)

    assert double == pytest.approx(single / 2)


def test_the_limit_takes_windows_from_all_over_the_text(model: GPT) -> None:
    tokens = np.tile(text_tokens(16), 11)
    tokens[-17:] = 7  # only the last window is of one letter
    without_end = validate(model, tokens[:-16], BYTES.token_bytes, 8, 16, limit_bytes=48)

    found = validate(model, tokens, BYTES.token_bytes, 8, 16, limit_bytes=48)

    assert found != pytest.approx(without_end, rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 5, 64])
def test_the_batch_size_does_not_change_what_is_measured(model: GPT, batch_size: int) -> None:
    tokens = text_tokens(700)

    found = validate(model, tokens, BYTES.token_bytes, batch_size, 16, limit_bytes=400)

    expected = validate(model, tokens, BYTES.token_bytes, 8, 16, limit_bytes=400)
    assert found == pytest.approx(expected, rel=1e-6)


def test_text_shorter_than_a_window_is_refused(model: GPT) -> None:
    with pytest.raises(ValueError, match="16 tokens do not fill a window of 16"):
        validate(model, text_tokens(16), BYTES.token_bytes, 8, 16, limit_bytes=10)


def test_measuring_leaves_no_gradients(model: GPT) -> None:
    validate(model, text_tokens(40), BYTES.token_bytes, 8, 16, limit_bytes=100)

    assert all(parameter.grad is None for parameter in model.parameters())
