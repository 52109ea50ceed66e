"""Both tokenizers restore their text and account for every byte."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanochat.tokenizer import (
    BpeTokenizer,
    ByteTokenizer,
    Tokenizer,
    TokenizerError,
    build_tokenizer,
    restore_tokenizer,
)

TEXTS = [
    "The Union is strong, the Union is one; 1789 and 2024.\n\n" * 8,
    "We don't know_what the naïve café owed: 12,345 dollars?\n" * 8,
]


@pytest.fixture(scope="module")
def bpe() -> BpeTokenizer:
    return BpeTokenizer.train(TEXTS, vocab_size=320)


@given(text=st.text())
def test_bytes_restore_the_text_and_sum_to_its_length(text: str) -> None:
    tokenizer = ByteTokenizer()

    ids = tokenizer.encode(text)

    assert tokenizer.decode(ids.tolist()) == text
    assert tokenizer.token_bytes[ids].sum() == len(text.encode())


@settings(max_examples=50)
@given(text=st.text())
def test_pairs_restore_the_text_and_sum_to_its_length(bpe: BpeTokenizer, text: str) -> None:
    ids = restore_tokenizer(bpe.state()).encode(text)

    assert bpe.decode(ids.tolist()) == text
    assert bpe.token_bytes[ids].sum() == len(text.encode())


@pytest.mark.parametrize("text", [*TEXTS, "Ünïon of 3 states\t_ and  more!", ""])
def test_a_restored_tokenizer_encodes_like_the_trained_one(bpe: BpeTokenizer, text: str) -> None:
    restored = restore_tokenizer(bpe.state())

    assert restored.encode(text).tolist() == bpe.encode(text).tolist()


def test_merges_shorten_the_text_they_were_learned_from(bpe: BpeTokenizer) -> None:
    assert len(bpe.encode(TEXTS[0])) < len(TEXTS[0].encode()) / 2


def test_training_twice_gives_the_same_merges(bpe: BpeTokenizer) -> None:
    assert BpeTokenizer.train(TEXTS, vocab_size=320).state() == bpe.state()


@pytest.mark.parametrize("name", ["byte", "bpe"])
def test_the_special_id_stands_for_no_text(name: str, bpe: BpeTokenizer) -> None:
    tokenizer: Tokenizer = ByteTokenizer() if name == "byte" else bpe

    assert tokenizer.bos == tokenizer.vocab_size - 1
    assert len(tokenizer.token_bytes) == tokenizer.vocab_size
    assert tokenizer.token_bytes[tokenizer.bos] == 0
    assert tokenizer.decode([tokenizer.bos, *tokenizer.encode("We").tolist()]) == "We"


def test_an_unknown_tokenizer_is_refused_by_name() -> None:
    with pytest.raises(TokenizerError, match="'word': choose byte or bpe"):
        build_tokenizer("word", [])


def test_a_missing_extra_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rustbpe", None)

    with pytest.raises(TokenizerError, match=r"nanoevolve\[bpe\]"):
        build_tokenizer("bpe", TEXTS)
