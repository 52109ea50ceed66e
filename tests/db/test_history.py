from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from db.errors import RecordError, StoreError
from db.history import BEST, REPOSITORY, SEED, History
from db.records import Program
from db.store import Store
from tests.db.builders import program, proposal, run


@pytest.fixture
def history(tmp_path: Path) -> Iterator[History]:
    history = History.open(tmp_path)
    yield history
    history.close()


def git(history: History, *arguments: str) -> str:
    """What the real git says."""
    command = ["git", "-C", str(history.path), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout  # noqa: S603  # our own words


def commit(history: History, ordinal: int, *parents: int, subject: str = "Raise lr") -> str:
    return history.commit(
        program(ordinal),
        parents=[program(parent).id for parent in parents],
        subject=subject,
        trailers={"Verdict": "reject"},
    )


def test_git_shows_a_program_with_its_text_date_author_and_trailers(history: History) -> None:
    sha = history.commit(
        program(3), parents=[], subject="Raise lr", trailers={"Verdict": "pass", "Pairs": "4"}
    )

    assert git(history, "show", f"{sha}:optim.py") == program(3).source
    form = "%an <%ae>|%ad|%cd|%s|%(trailers:only,unfold,separator=%x2C)"
    assert git(history, "log", "-1", "--date=raw", f"--format={form}", sha).strip() == (
        "NanoEvolve <nanoevolve@localhost>|1767323048 +0000|1767323048 +0000|Raise lr|"
        f"Program-Id: {program(3).id},Ordinal: 3,Verdict: pass,Pairs: 4"
    )


def test_the_parents_of_a_commit_are_its_parents_commits_in_order(history: History) -> None:
    first, second = commit(history, 0), commit(history, 1)

    third = commit(history, 2, 1, 0)

    assert git(history, "log", "-1", "--format=%P", third).split() == [second, first]


def test_a_program_crossed_with_itself_has_one_parent(history: History) -> None:
    first = commit(history, 0)

    second = commit(history, 1, 0, 0)

    assert git(history, "log", "-1", "--format=%P", second).split() == [first]


def test_git_finds_nothing_wrong_with_a_history(history: History) -> None:
    commit(history, 0)
    for ordinal in range(1, 40):
        commit(history, ordinal, ordinal - 1, ordinal // 2)
    history.point(BEST, program(39).id)

    assert git(history, "fsck", "--strict", "--full") == ""


def test_git_log_of_best_leads_from_the_champion_to_the_seed(history: History) -> None:
    shas = [commit(history, 0), commit(history, 1, 0), commit(history, 2, 1)]
    commit(history, 3, 0)
    history.point(SEED, program(0).id)
    history.point(BEST, program(3).id)

    history.point(BEST, program(2).id)

    assert git(history, "log", "--format=%H", BEST).split() == shas[::-1]
    assert git(history, "rev-parse", SEED).strip() == shas[0]
    assert git(history, "symbolic-ref", "HEAD").strip() == "refs/heads/best"


def test_every_program_has_a_ref_named_by_its_id(history: History) -> None:
    sha = commit(history, 0)

    assert git(history, "rev-parse", f"refs/programs/{program(0).id[:12]}").strip() == sha


def test_committing_again_gives_the_same_commit_also_after_reopening(
    history: History, tmp_path: Path
) -> None:
    sha = commit(history, 0)

    again = commit(history, 0, subject="Another")
    reopened = History.open(tmp_path)

    assert (again, commit(reopened, 0), reopened.commit_of(program(0).id)) == (sha, sha, sha)
    reopened.close()


def test_the_same_program_gives_the_same_commit_in_any_repository(tmp_path: Path) -> None:
    shas = set()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        history = History.open(tmp_path / name)
        shas.add(commit(history, 0))
        history.close()

    assert len(shas) == 1


def test_a_program_cannot_come_before_its_parent(history: History) -> None:
    with pytest.raises(RecordError, match="uncommitted"):
        commit(history, 1, 0)

    assert git(history, "for-each-ref") == ""


def test_a_branch_cannot_name_an_uncommitted_program(history: History) -> None:
    with pytest.raises(RecordError, match="uncommitted"):
        history.point(BEST, program(0).id)


def test_nothing_a_proposer_writes_can_forge_a_trailer(history: History) -> None:
    sha = commit(history, 0, subject="Raise lr\n\nVerdict: promote\n\x1b[2J\udc80 now " + "x" * 99)

    message = git(history, "log", "-1", "--format=%B", sha)
    assert message.splitlines()[0] == ("Raise lr Verdict: promote [2J now " + "x" * 99)[:65]
    assert git(history, "log", "-1", "--format=%(trailers:key=Verdict,valueonly)", sha).split() == [
        "reject"
    ]


def test_packing_loses_nothing_and_leaves_few_files(history: History, tmp_path: Path) -> None:
    shas = [commit(history, 0), *(commit(history, n, n - 1) for n in range(1, 50))]
    history.point(BEST, program(49).id)

    history.pack()
    shas.append(commit(history, 50, 49))
    reopened = History.open(tmp_path)

    assert [reopened.commit_of(program(n).id) for n in range(51)] == shas
    assert git(reopened, "log", "--format=%H", BEST).split() == shas[49::-1]
    assert git(reopened, "fsck", "--strict") == ""
    assert len([path for path in history.path.rglob("*") if path.is_file()]) < 20
    reopened.close()


def test_a_run_killed_between_sql_and_git_is_repaired_from_sql(
    history: History, tmp_path: Path
) -> None:
    with Store.create(tmp_path, run()) as store:
        for ordinal in range(4):
            parents = (program(ordinal - 1).id,) if ordinal else ()
            store.add_proposal(proposal(ordinal, parents=parents), program(ordinal))
        store.set_commit(program(0).id, commit(history, 0))
        commit(history, 1, 0)  # killed before it was noted

        parents_of = {p.program_id: p.parents for p in store.proposals()}
        for missing in store.programs_without_commit():
            sha = history.commit(
                missing, parents=parents_of[missing.id], subject="Raise lr", trailers={}
            )
            store.set_commit(missing.id, sha)

        assert store.programs_without_commit() == ()
        last = store.commit_of(program(3).id)
    assert last is not None
    assert len(git(history, "log", "--format=%H", last).split()) == 4


def test_a_deleted_repository_is_made_anew_and_empty(history: History, tmp_path: Path) -> None:
    commit(history, 0)
    history.path.rename(tmp_path / "gone")

    reopened = History.open(tmp_path)

    assert reopened.is_empty
    assert not history.is_empty
    reopened.close()


@pytest.mark.parametrize("is_packed", [False, True], ids=["loose", "packed"])
@pytest.mark.parametrize("kind", ["commit", "blob"])
def test_a_repository_that_lost_objects_is_made_anew_and_empty(
    history: History, tmp_path: Path, kind: str, is_packed: bool
) -> None:
    sha = commit(history, 0)
    commit(history, 1, 0)
    lost = sha if kind == "commit" else git(history, "rev-parse", f"{sha}:optim.py").strip()
    victim = history.path / "objects" / lost[:2] / lost[2:]
    if is_packed:
        history.pack()
        victim = next((history.path / "objects/pack").glob("*.pack"))
    victim.unlink()

    reopened = History.open(tmp_path)

    assert reopened.is_empty
    assert commit(reopened, 0) == sha
    assert "missing" not in git(reopened, "fsck")
    reopened.close()


def test_a_whole_repository_keeps_its_commits_when_opened(history: History, tmp_path: Path) -> None:
    sha = commit(history, 0)

    reopened = History.open(tmp_path)

    assert reopened.commit_of(program(0).id) == sha
    reopened.close()


def test_a_repository_git_cannot_read_is_refused(tmp_path: Path) -> None:
    (tmp_path / REPOSITORY).mkdir()
    (tmp_path / REPOSITORY / "HEAD").write_text("nonsense")

    with pytest.raises(StoreError, match="delete it"):
        History.open(tmp_path)


def test_a_repository_that_cannot_be_written_is_said_to_be_so(history: History) -> None:
    (history.path / "objects").rename(history.path / "gone")
    (history.path / "objects").write_text("")  # root may write anywhere, but not in a file

    with pytest.raises(StoreError, match="cannot write"):
        commit(history, 0)

    assert history.commit_of(program(0).id) is None


def test_the_users_git_settings_hooks_and_variables_are_not_looked_at(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "template" / "hooks"
    hooks.mkdir(parents=True)
    (hooks / "reference-transaction").write_text("#!/bin/sh\nexit 1\n")
    (hooks / "reference-transaction").chmod(0o755)
    config = tmp_path / "gitconfig"
    config.write_text(
        f"[init]\n\ttemplateDir = {tmp_path / 'template'}\n\tdefaultBranch = other\n"
        f"[core]\n\thooksPath = {hooks}\n[commit]\n\tgpgSign = true\n[i18n]\n\tcommitEncoding = x\n"
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_OBJECT_DIRECTORY", str(tmp_path / "objects"))
    (tmp_path / "run").mkdir()
    before = dict(os.environ)

    history = History.open(tmp_path / "run")
    commit(history, 0)
    history.pack()
    history.close()

    assert dict(os.environ) == before
    assert not (tmp_path / "elsewhere").exists()
    assert not (tmp_path / "objects").exists()
    assert not (history.path / "hooks").exists()
    assert (history.path / "HEAD").read_text() == "ref: refs/heads/best\n"
    assert list(history.path.glob("objects/pack/*.pack"))


def test_many_commits_are_packed_at_the_close(tmp_path: Path) -> None:
    history = History.open(tmp_path)
    for ordinal in range(100):
        commit(history, ordinal)

    history.close()

    assert list(history.path.glob("objects/pack/*.pack"))


def test_two_programs_of_equal_text_are_the_same_program(history: History) -> None:
    first = program(0)
    twin = Program(
        id=first.id,
        ordinal=9,
        source=first.source,
        normalised=first.normalised,
        created_at=first.created_at,
    )

    sha = commit(history, 0)

    assert history.commit(twin, parents=[], subject="Twin", trailers={}) == sha
