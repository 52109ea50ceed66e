"""Divide a corpus into the text to train on and three kinds of text to be judged by.

`search` is what a search validates on, `sealed` is fresh text of the same kind which no search
ever sees, `ood` is text of another kind. Splits are made of whole documents, follow from the
text alone, and are tokenised when first asked for: a process that never asks for the sealed
split never holds its tokens.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from enum import StrEnum
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from nanochat.documents import CorpusError, Document, Library, read_library
from nanochat.tokenizer import Tokenizer, TokenizerError, build_tokenizer

__all__ = ["Corpus", "CorpusError", "TextSplit", "load_corpus"]

# Of the bytes that are not out of distribution, for each of search and sealed. The default
# corpus gets 740 KB for each, and 2.5 MB of text are enough for the 200 KB of profile `cpu`.
HELD_OUT_FRACTION = 0.08
OOD_FRACTION = 0.08
MINIMUM_SPLIT_BYTES = 4096
# From here on the addresses are typically spoken on television, not sent in writing.
DEFAULT_CORPUS_OOD_YEAR = 1963


class TextSplit(StrEnum):
    """The part of a corpus a text belongs to."""

    TRAIN = "train"
    SEARCH = "search"
    SEALED = "sealed"
    OOD = "ood"


class Corpus:
    """A divided corpus with its tokenizer; tokens are made on demand and kept.

    Attributes:
        name: of the file, folder or package.
        digest: sha256 of the files it was read from, in the order of their names.
    """

    def __init__(
        self,
        name: str,
        digest: str,
        splits: Mapping[TextSplit, tuple[Document, ...]],
        tokenizer_name: str,
    ) -> None:
        self.name = name
        self.digest = digest
        self._splits = splits
        self._tokenizer_name = tokenizer_name
        self._tokens: dict[TextSplit, NDArray[np.uint16]] = {}

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer, trained on the training split if it needs training.

        Raises:
            CorpusError: no such tokenizer, or its extra is not installed.
        """
        try:
            return build_tokenizer(
                self._tokenizer_name, (d.text for d in self._splits[TextSplit.TRAIN])
            )
        except TokenizerError as error:
            raise CorpusError(str(error)) from error

    def documents(self, split: TextSplit | str) -> tuple[Document, ...]:
        """Return the documents of a split, in the corpus's own order."""
        return self._splits[TextSplit(split)]

    def byte_count(self, split: TextSplit | str) -> int:
        """Count the bytes of text in a split, without tokenising it."""
        return sum(_size(d) for d in self.documents(split))

    def tokens(self, split: TextSplit | str) -> NDArray[np.uint16]:
        """Return the token ids of a split: its documents in order, each begun by `bos`."""
        split = TextSplit(split)
        if split not in self._tokens:
            bos = np.array([self.tokenizer.bos], np.uint16)
            pieces = [(bos, self.tokenizer.encode(d.text)) for d in self.documents(split)]
            self._tokens[split] = np.concatenate([part for piece in pieces for part in piece])
        return self._tokens[split]

    def require(self, split: TextSplit | str, byte_count: int) -> None:
        """Refuse a corpus whose split has less text than is needed.

        Raises:
            CorpusError: the split has fewer bytes.
        """
        found = self.byte_count(split)
        if found < byte_count:
            total = sum(self.byte_count(each) for each in TextSplit)
            raise CorpusError(
                f"the {split} split of corpus {self.name} has {found} bytes of text but "
                f"{byte_count} are needed: give about {byte_count * total // max(found, 1)} "
                "bytes of text in all, or choose a smaller profile"
            )


def load_corpus(path: str | Path | None = None, tokenizer_name: str = "byte") -> Corpus:
    """Read and divide the corpus at a path, or the default corpus.

    Out of distribution are, for the default corpus, the addresses from 1963 on; for any other,
    the last 8 % in its own order (the later rows, chapters, file names). Of the rest, 8 % each
    become `sealed` and `search`, document by document in the order of the sha256 of their
    group, so that neither the place of a document nor those added later decide where it goes.
    A group is a year of the default corpus (which holds several versions of some addresses), a
    single document elsewhere.

    Args:
        path: text file, folder of text files, or parquet; None for the default corpus.
        tokenizer_name: `byte` or `bpe`.

    Raises:
        CorpusError: the text is missing, empty, undecodable or too small to be divided.
    """
    library = read_library(path)
    is_default = path is None
    inside, outside = _part_by_year(library) if is_default else _part_by_order(library)
    splits = {TextSplit.OOD: outside, **_hold_out(inside, _year if is_default else _text)}
    _require_documents(library, splits)
    corpus = Corpus(library.name, library.digest, splits, tokenizer_name)
    for split in TextSplit:
        corpus.require(split, MINIMUM_SPLIT_BYTES)
    return corpus


def _require_documents(library: Library, splits: Mapping[TextSplit, tuple[Document, ...]]) -> None:
    """Refuse a corpus that leaves a split without a document, however long the others are."""
    if all(splits[split] for split in TextSplit):
        return
    count, size = len(library.documents), sum(map(_size, library.documents))
    raise CorpusError(
        f"corpus {library.name} cannot be divided into {', '.join(TextSplit)}: it has only {count} "
        f"different documents, of {size} bytes; give at least "
        f"{MINIMUM_SPLIT_BYTES / HELD_OUT_FRACTION:.0f} bytes of text in all, in "
        f"{math.ceil(1 / HELD_OUT_FRACTION)} or more documents, which are the files of a folder, "
        "the rows of a parquet file or, in a single text file, passages of about 2 KB that end at "
        "blank lines"
    )


def _part_by_year(library: Library) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    old = [d for d in library.documents if int(_year(d)) < DEFAULT_CORPUS_OOD_YEAR]
    new = [d for d in library.documents if int(_year(d)) >= DEFAULT_CORPUS_OOD_YEAR]
    return tuple(old), tuple(new)


def _part_by_order(library: Library) -> tuple[tuple[Document, ...], tuple[Document, ...]]:
    documents = library.documents
    wanted = OOD_FRACTION * sum(map(_size, documents))
    at = len(documents)
    gathered = 0
    while at > 0 and gathered < wanted:
        at -= 1
        gathered += _size(documents[at])
    return documents[:at], documents[at:]


def _hold_out(
    documents: tuple[Document, ...], group_of: Callable[[Document], str]
) -> dict[TextSplit, tuple[Document, ...]]:
    """Give 8 % of the bytes to `sealed`, 8 % to `search`, the rest to `train`."""
    groups: dict[str, list[Document]] = {}
    for document in documents:
        groups.setdefault(group_of(document), []).append(document)
    wanted = HELD_OUT_FRACTION * sum(map(_size, documents))
    chosen: dict[str, TextSplit] = {}
    filled = {TextSplit.SEALED: 0, TextSplit.SEARCH: 0}
    for key in sorted(groups, key=lambda key: hashlib.sha256(key.encode()).digest()):
        open_splits = [split for split, size in filled.items() if size < wanted]
        chosen[key] = open_splits[0] if open_splits else TextSplit.TRAIN
        if open_splits:
            filled[open_splits[0]] += sum(map(_size, groups[key]))
    return {
        split: tuple(d for d in documents if chosen[group_of(d)] is split)
        for split in (TextSplit.TRAIN, TextSplit.SEARCH, TextSplit.SEALED)
    }


def _size(document: Document) -> int:
    return len(document.text.encode())


def _year(document: Document) -> str:
    return document.key[:4]


def _text(document: Document) -> str:
    return document.text
