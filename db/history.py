"""Keep a run's programs as git commits, so that any git tool can walk the lineage.

A bare repository: each program is a commit of one file, its parents are its parents' commits, and
`refs/programs/<first 12 digits of its id>` names it. The branch `seed` is the first program,
`best` the champion. SQL is the authority and all of this can be made again from it: committing is
idempotent, so after a crash one simply commits what SQL has no commit for, parents first. The
repository may even be deleted, or lose objects: `open` makes an empty one.

Objects and refs are written as files, without starting git: a commit costs under a millisecond.
The user's git configuration, hooks, templates and signing keys are never looked at.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Self

import git
from gitdb import IStream, LooseObjectDB  # type: ignore[import-untyped]  # ships no types

from db.errors import RecordError, StoreError
from db.messages import commit_message
from db.records import Program

__all__ = ["BEST", "PROGRAM_FILE", "REPOSITORY", "SEED", "History"]

REPOSITORY = "programs.git"
PROGRAM_FILE = "optim.py"
BEST = "best"
SEED = "seed"

_AUTHOR = "NanoEvolve <nanoevolve@localhost>"
_REF_DIGITS = 12  # 48 bits: two of 10,000 programs share them once in 5 million runs
# A program takes 20 KB as three loose objects and a ref, and under 1 KB in a pack. Packing 1,000
# takes half a second.
_WORTH_PACKING = 100

_log = logging.getLogger(__name__)


class History:
    """The git repository in a run's folder. The caller holds the folder's lock."""

    def __init__(self, repository: git.Repo, commits: dict[str, str]) -> None:
        self._repository = repository
        # GitPython's own object database starts a git process for every object it writes.
        self._objects = LooseObjectDB(str(Path(repository.git_dir) / "objects"))
        self._commits = commits  # first digits of a program's id: its commit
        self._added = 0  # since the last packing

    @classmethod
    def open(cls, folder: Path) -> Self:
        """Open the history in a run's folder, after making an empty one if there is none.

        One whose branches lead to missing objects is replaced by an empty one.

        Raises:
            StoreError: git cannot make or read it.
        """
        path = folder / REPOSITORY
        try:
            with _own_environment():
                if not (path / "HEAD").is_file():
                    _make(path).close()
                repository = git.Repo(path, expand_vars=False)
                listing = _programs(repository)
                if not _is_whole(repository):
                    _log.warning("%s has lost objects: it is made again from the database", path)
                    repository.close()
                    shutil.rmtree(path)
                    repository, listing = _make(path), ""
        except (git.GitError, OSError) as error:
            raise StoreError(
                f"cannot use the git repository {path} ({error}): delete it, it will be made "
                "again from the database"
            ) from error
        return cls(repository, dict(line.split(" ") for line in listing.splitlines()))

    def close(self) -> None:
        """Let go of the repository; pack it first if much was added."""
        if self._added >= _WORTH_PACKING:
            self.pack()
        self._repository.close()

    @property
    def path(self) -> Path:
        """The repository: what to give to `git -C`."""
        return Path(self._repository.git_dir)

    @property
    def is_empty(self) -> bool:
        """Whether no program is committed, as when the repository was just made."""
        return not self._commits

    def commit_of(self, program_id: str) -> str | None:
        """The commit of a program, if it has one."""
        return self._commits.get(program_id[:_REF_DIGITS])

    def commit(
        self,
        program: Program,
        *,
        parents: Sequence[str],
        subject: str,
        trailers: Mapping[str, str],
    ) -> str:
        """Commit a program, unless it is committed already.

        The commit follows from the arguments alone: the date is the program's.

        Args:
            program: what to commit.
            parents: ids of programs that are committed, the patched one first.
            subject: what was changed; cut at 65 characters, on one line.
            trailers: what else to say in the message, beside Program-Id and Ordinal.

        Returns:
            The sha of the commit.

        Raises:
            RecordError: a parent has no commit.
            StoreError: the repository cannot be written.
            ValueError: git would not take the key of a trailer for one.
        """
        known = self.commit_of(program.id)
        if known is not None:
            return known
        parent_shas = []
        for parent in parents:
            sha = self.commit_of(parent)
            if sha is None:
                raise RecordError(f"program {program.id} cannot follow uncommitted {parent}")
            parent_shas.append(sha)
        facts = {"Program-Id": program.id, "Ordinal": str(program.ordinal)}
        message = commit_message(subject, {**facts, **trailers})
        with self._writing():
            sha = self._write_commit(program, parent_shas, message)
            self._write_ref(f"refs/programs/{program.id[:_REF_DIGITS]}", sha)
        self._commits[program.id[:_REF_DIGITS]] = sha
        self._added += 1
        return sha

    def point(self, branch: str, program_id: str) -> None:
        """Make a branch, such as `BEST`, name a program.

        Raises:
            RecordError: the program has no commit.
            StoreError: the repository cannot be written.
        """
        sha = self.commit_of(program_id)
        if sha is None:
            raise RecordError(f"branch {branch} cannot name uncommitted {program_id}")
        with self._writing():
            self._write_ref(f"refs/heads/{branch}", sha)

    def pack(self) -> None:
        """Store everything compactly, which takes seconds for thousands of programs.

        If git fails, nothing is lost but space.
        """
        self._added = 0
        try:
            with _own_environment():
                self._repository.git.pack_refs("--all")
                self._repository.git.repack("-d", "-q")
        except git.GitError as error:
            _log.warning("cannot pack %s, it stays larger than it could be: %s", self.path, error)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"cannot write {self.path} ({error.strerror}): check the disk and your rights to "
                "the folder, then resume the run"
            ) from error

    def _write_commit(self, program: Program, parents: Sequence[str], message: str) -> str:
        """Write blob, tree and commit in git's own format, and return the commit's sha."""
        blob = self._write_object("blob", program.source.encode("utf-8"))
        tree = self._write_object(
            "tree", b"100644 " + PROGRAM_FILE.encode("ascii") + b"\0" + bytes.fromhex(blob)
        )
        signature = f"{_AUTHOR} {int(program.created_at.timestamp())} +0000"
        header = [
            f"tree {tree}",
            # git refuses a parent named twice, as by a crossover of a program with itself
            *(f"parent {parent}" for parent in dict.fromkeys(parents)),
            f"author {signature}",
            f"committer {signature}",
        ]
        return self._write_object("commit", "\n".join([*header, "", message]).encode("utf-8"))

    def _write_object(self, kind: str, content: bytes) -> str:
        stream = IStream(kind.encode("ascii"), len(content), BytesIO(content))
        return str(self._objects.store(stream).hexsha.decode("ascii"))

    def _write_ref(self, name: str, sha: str) -> None:
        """Set a ref at once or not at all.

        Renamed into place without git's lock file: one left behind by a killed process would
        block the ref for ever, and the run's folder has only one writer.
        """
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=self.path, prefix="ref-")
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(f"{sha}\n")
        Path(temporary).replace(path)


def _make(path: Path) -> git.Repo:
    return git.Repo.init(
        path,
        bare=True,
        expand_vars=False,
        allow_unsafe_options=True,  # a template may bring hooks; ours is none
        template="",
        initial_branch=BEST,
        object_format="sha1",
    )


def _programs(repository: git.Repo) -> str:
    """List the programs' refs without looking at what they name."""
    form = "%(refname:lstrip=2) %(objectname)"
    return str(repository.git.for_each_ref("refs/programs", format=form))


def _is_whole(repository: git.Repo) -> bool:
    """Whether every object that a ref leads to is there: 0.1 s for thousands of programs."""
    try:
        repository.git.rev_list("--objects", "--quiet", "--all")
    except git.GitCommandError:
        return False
    return True


@contextmanager
def _own_environment() -> Iterator[None]:
    """Run git without the user's configuration, nor the caller's when that is itself a git hook.

    GitPython can add to a command's environment but not take away from it, so this process's own
    is changed for the moment.
    """
    hidden = {name: value for name, value in os.environ.items() if name.startswith("GIT_")}
    for name in hidden:
        del os.environ[name]
    ours = {
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_SYSTEM": os.devnull,
    }
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)
        os.environ.update(hidden)
