"""Turn text into token ids and back, and know how many bytes of text each id stands for.

Two tokenizers: one id per UTF-8 byte, which needs no training, and byte-pair encoding, trained on
the training split only. Both have one special id, `bos`, which begins every document.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BPE_VOCAB_SIZE",
    "BpeTokenizer",
    "ByteTokenizer",
    "Tokenizer",
    "TokenizerError",
    "build_tokenizer",
    "restore_tokenizer",
]

# With `bos` the table is a multiple of 64 and needs no padding; at this size the default corpus
# has 4.4 bytes per token.
BPE_VOCAB_SIZE = 4096
# Words with their leading space, numbers of up to two digits, punctuation, white space; written
# so that Rust's and Python's regular expressions agree on it.
BPE_PATTERN = r" ?[^\W\d_]+|\d{1,2}| ?(?:[^\w\s]|_)+|\s+"


class TokenizerError(Exception):
    """The tokenizer cannot be had: unknown name, or an extra is not installed."""


class Tokenizer(Protocol):
    """Encodes text as ids below `vocab_size`; decoding the encoded text restores it.

    `encode` never yields `bos`. `token_bytes[i]` is the number of text bytes that id i stands
    for, 0 for `bos`; over an encoded text they sum to its length in UTF-8. `state` is all that
    `restore_tokenizer` needs, as JSON-ready values.
    """

    name: str
    vocab_size: int
    bos: int
    token_bytes: NDArray[np.int64]

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the ids of the text."""

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids, with a replacement character for broken UTF-8."""

    def state(self) -> dict[str, Any]:
        """Return what it takes to build this tokenizer again."""


class ByteTokenizer:
    """One id per byte of UTF-8, and `bos` = 256."""

    name = "byte"
    vocab_size = 257
    bos = 256

    def __init__(self) -> None:
        self.token_bytes: NDArray[np.int64] = np.append(np.ones(256, np.int64), 0)

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the UTF-8 bytes of the text."""
        return np.frombuffer(text.encode(), np.uint8).astype(np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the bytes, skipping `bos`."""
        return bytes(i for i in ids if i < self.bos).decode(errors="replace")

    def state(self) -> dict[str, Any]:
        """Return the name; there is nothing else to know."""
        return {"name": self.name}


class BpeTokenizer:
    """Byte-pair encoding; ids are merge ranks, the last one is `bos`.

    `encode` applies the merges in plain Python, which is fine for a prompt; a corpus is encoded
    by the `rustbpe` tokenizer that learned the merges, while it is at hand.

    Args:
        ranks: the bytes of each id, in order of id; the first 256 are the single bytes.
        trained: the `rustbpe` tokenizer the ranks come from, if it is at hand.
    """

    name = "bpe"

    def __init__(self, ranks: Sequence[bytes], trained: Any = None) -> None:
        self._pieces = tuple(ranks)
        self._rank_of: Mapping[bytes, int] = {piece: i for i, piece in enumerate(self._pieces)}
        self._pattern = re.compile(BPE_PATTERN)
        self._trained = trained
        self.bos = len(self._pieces)
        self.vocab_size = self.bos + 1
        sizes = [len(piece) for piece in self._pieces]
        self.token_bytes: NDArray[np.int64] = np.array([*sizes, 0], np.int64)

    @classmethod
    def train(cls, texts: Iterable[str], vocab_size: int = BPE_VOCAB_SIZE) -> BpeTokenizer:
        """Learn merges from the texts until there are `vocab_size` ids, `bos` included.

        Raises:
            TokenizerError: the `bpe` extra is not installed.
        """
        try:
            rustbpe: Any = import_module("rustbpe")
        except ModuleNotFoundError as error:
            raise TokenizerError(
                "the bpe tokenizer needs the package rustbpe, which is not installed: "
                "pip install 'nanoevolve[bpe]', or use the byte tokenizer"
            ) from error
        trained = rustbpe.Tokenizer()
        trained.train_from_iterator(iter(texts), vocab_size=vocab_size - 1, pattern=BPE_PATTERN)
        ranks = sorted(trained.get_mergeable_ranks(), key=lambda entry: int(entry[1]))
        return cls([bytes(piece) for piece, _ in ranks], trained)

    def encode(self, text: str) -> NDArray[np.uint16]:
        """Return the ids of the text: words by the pattern, each merged lowest rank first."""
        if self._trained is not None:
            return np.array(self._trained.encode(text), np.uint16)
        ids = [i for word in self._pattern.findall(text) for i in self._merge(word.encode())]
        return np.array(ids, np.uint16)

    def decode(self, ids: Iterable[int]) -> str:
        """Return the text of the ids, skipping `bos`."""
        pieces = (self._pieces[i] for i in ids if i < self.bos)
        return b"".join(pieces).decode(errors="replace")

    def state(self) -> dict[str, Any]:
        """Return the name and the bytes of each id, in hexadecimal."""
        return {"name": self.name, "ranks": [piece.hex() for piece in self._pieces]}

    def _merge(self, word: bytes) -> list[int]:
        pieces = [word[i : i + 1] for i in range(len(word))]
        absent = len(self._pieces)
        while len(pieces) > 1:
            pairs = [self._rank_of.get(a + b, absent) for a, b in pairwise(pieces)]
            best = min(pairs)
            if best == absent:
                break
            at = pairs.index(best)
            pieces[at : at + 2] = [pieces[at] + pieces[at + 1]]
        return [self._rank_of[piece] for piece in pieces]


def build_tokenizer(name: str, training_texts: Iterable[str]) -> Tokenizer:
    """Build the tokenizer of that name (`byte` or `bpe`), training it if it needs training.

    Raises:
        TokenizerError: no such tokenizer, or its extra is not installed.
    """
    if name == ByteTokenizer.name:
        return ByteTokenizer()
    if name == BpeTokenizer.name:
        return BpeTokenizer.train(training_texts)
    raise TokenizerError(f"unknown tokenizer {name!r}: choose byte or bpe")


def restore_tokenizer(state: Mapping[str, Any]) -> Tokenizer:
    """Build the tokenizer that `Tokenizer.state` describes.

    Raises:
        TokenizerError: the state names no known tokenizer.
    """
    if state.get("name") == BpeTokenizer.name:
        return BpeTokenizer([bytes.fromhex(piece) for piece in state["ranks"]])
    return build_tokenizer(str(state.get("name")), ())
