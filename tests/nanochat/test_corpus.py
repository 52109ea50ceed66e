"""Splits are disjoint, stable and large enough, or the corpus is refused."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # the same
import pytest

from nanochat.corpus import Corpus, CorpusError, TextSplit, load_corpus
from nanochat.documents import Document


@pytest.fixture(scope="module")
def default() -> Corpus:
    return load_corpus()


def write_text(folder: Path, documents: int) -> Path:
    """A folder of documents of 1 KB each."""
    folder.mkdir()
    for i in range(documents):
        (folder / f"{i:03d}.txt").write_text(f"This is what document {i} says. " * 32)
    return folder


def test_no_document_of_the_default_corpus_is_in_two_splits(default: Corpus) -> None:
    for one, other in combinations(TextSplit, 2):
        years = ({d.key[:4] for d in default.documents(split)} for split in (one, other))
        assert not set.intersection(*years), (one, other)


def test_all_of_the_default_corpus_is_in_some_split(default: Corpus) -> None:
    assert sum(default.byte_count(split) for split in TextSplit) == 12_185_751


def test_addresses_from_1963_on_are_out_of_distribution(default: Corpus) -> None:
    assert min(d.key for d in default.documents("ood"))[:4] == "1963"
    assert default.byte_count("ood") > 2_900_000
    inside = [d.key for split in ("train", "search", "sealed") for d in default.documents(split)]
    assert max(inside)[:4] == "1962"


def test_held_out_splits_of_the_default_corpus_can_score_a_run(default: Corpus) -> None:
    for split in (TextSplit.SEARCH, TextSplit.SEALED):
        assert 700_000 < default.byte_count(split) < 900_000


def test_tokens_are_documents_in_order_each_begun_by_the_special_id(tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "text", 100))

    tokens = corpus.tokens(TextSplit.SEARCH)

    assert tokens.dtype == np.uint16
    documents = corpus.documents(TextSplit.SEARCH)
    assert (tokens == corpus.tokenizer.bos).sum() == len(documents)
    assert tokens[0] == corpus.tokenizer.bos
    text = corpus.tokenizer.decode(tokens.tolist())
    assert text == "".join(d.text for d in documents)
    assert len(tokens) - len(documents) == corpus.byte_count(TextSplit.SEARCH)


def test_dividing_twice_gives_the_same_splits(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", 100)

    first, again = load_corpus(folder), load_corpus(folder)

    assert first.digest == again.digest
    for split in TextSplit:
        assert first.documents(split) == again.documents(split)


def test_the_last_documents_of_a_folder_are_out_of_distribution(tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "text", 100))

    keys = [d.key for d in corpus.documents(TextSplit.OOD)]

    assert keys == [f"{i:03d}.txt" for i in range(92, 100)]


def test_most_documents_stay_in_their_split_when_one_is_added(tmp_path: Path) -> None:
    folder = write_text(tmp_path / "text", 200)
    before = {d.key for d in load_corpus(folder).documents(TextSplit.TRAIN)}

    (folder / "0000.txt").write_text("One more document, of other words. " * 32)
    after = {d.key for d in load_corpus(folder).documents(TextSplit.TRAIN)}

    assert len(before ^ after) <= 5


def test_a_single_file_is_divided_too(tmp_path: Path) -> None:
    lines = (f"Paragraph {i} has its own number.\n\n" for i in range(4000))
    (tmp_path / "book.txt").write_text("".join(lines))

    corpus = load_corpus(tmp_path / "book.txt")

    total = (tmp_path / "book.txt").stat().st_size
    assert sum(corpus.byte_count(split) for split in TextSplit) == total
    assert all(corpus.byte_count(split) > 0.06 * total for split in TextSplit)


def test_a_corpus_too_small_for_its_splits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"split of corpus text has \d+ bytes"):
        load_corpus(write_text(tmp_path / "text", 20))


@pytest.mark.parametrize("suffix", [".txt", ".parquet"])
def test_a_corpus_of_too_few_documents_says_what_a_document_is(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"long{suffix}"
    if suffix == ".txt":
        file.write_text("word " * 60_000)  # the passages are all alike
    else:
        pq.write_table(pa.table({"text": [f"{n} " * 50_000 for n in range(2)]}), file)

    with pytest.raises(
        CorpusError, match=r"only 2 different documents.*files of a folder"
    ) as caught:
        load_corpus(file)

    assert "blank lines" in str(caught.value)


def test_a_split_too_small_for_the_profile_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "text", 100))

    with pytest.raises(CorpusError, match=r"200000 are needed: give about 2\d{6} bytes"):
        corpus.require(TextSplit.SEARCH, 200_000)


def test_pairs_are_learned_from_the_training_split_only() -> None:
    def repeated(word: str) -> tuple[Document, ...]:
        return (Document(key=word, text=f"{word} " * 100),)

    splits = {
        TextSplit.TRAIN: repeated("abc"),
        TextSplit.SEARCH: repeated("uvw"),
        TextSplit.SEALED: repeated("xyz"),
        TextSplit.OOD: repeated("rst"),
    }

    ranks = Corpus("words", "digest", splits, "bpe").tokenizer.state()["ranks"]

    longer = {bytes.fromhex(piece) for piece in ranks[256:]}
    assert b"abc" in longer
    assert not [piece for piece in longer if set(piece) & set(b"uvwxyzrst")]


def test_an_unknown_tokenizer_is_a_corpus_error(tmp_path: Path) -> None:
    corpus = load_corpus(write_text(tmp_path / "text", 100), "word")

    with pytest.raises(CorpusError, match="choose byte or bpe"):
        _ = corpus.tokenizer
