from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from agent.run_folder import RunFolderError, find_run, make_run_folder
from db.store import DATABASE

NOW = datetime(2026, 11, 20, 4, 12, 7, tzinfo=UTC)


def test_a_run_is_named_after_its_start_and_seed(tmp_path: Path) -> None:
    assert make_run_folder(tmp_path / "runs", seed=3, now=NOW).name == "20261120-041207-s3"


def test_runs_started_in_the_same_second_get_different_folders(tmp_path: Path) -> None:
    folders = {make_run_folder(tmp_path, seed=3, now=NOW) for _ in range(3)}

    assert len(folders) == 3


def test_a_place_that_cannot_hold_folders_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(RunFolderError, match="--runs-dir"):
        make_run_folder(tmp_path / "file", seed=3, now=NOW)


def test_a_run_is_found_by_path_id_and_as_the_latest(tmp_path: Path) -> None:
    for name in ("20261120-041207-s3", "20261120-041208-s1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / DATABASE).write_text("")
    (tmp_path / "20270101-000000-s1").mkdir()  # no run was begun there

    assert find_run("20261120-041207-s3", tmp_path).name == "20261120-041207-s3"
    assert find_run(str(tmp_path / "20261120-041207-s3"), Path("none")).name.endswith("07-s3")
    assert find_run("latest", tmp_path).name == "20261120-041208-s1"


@pytest.mark.parametrize("name", ["latest", "20261120-041207-s3"])
def test_a_run_that_does_not_exist_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunFolderError, match="no run"):
        find_run(name, tmp_path)
