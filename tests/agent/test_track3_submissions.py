from __future__ import annotations

from pathlib import Path

import pytest

from agent.track3.submissions import Collection, LogsError, borrowed, collect
from tests.agent.track3_logs import (
    HEADER,
    curve,
    rows,
    run_text,
    validation,
    whole_log,
    write_runs,
)


def sizes(collection: Collection) -> dict[str, int]:
    return {Path(one.name).name: len(one.runs) for one in collection.submissions}


def test_the_runs_of_a_folder_are_a_submission(tmp_path: Path) -> None:
    write_runs(tmp_path / "a", [3.277, 3.278])
    write_runs(tmp_path / "b", [3.279])

    assert sizes(collect([tmp_path])) == {"a": 2, "b": 1}


def test_files_of_a_folder_named_one_by_one_are_a_submission_too(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "a", [3.277, 3.278, 3.279])

    assert sizes(collect(sorted(folder.iterdir())[:2])) == {"a": 2}


def test_runs_planned_for_different_numbers_of_steps_are_different_submissions(
    tmp_path: Path,
) -> None:
    write_runs(tmp_path / "a", [3.277, 3.278], planned=3000)
    (tmp_path / "a" / "other.txt").write_text(run_text(curve(3.279), 3250), encoding="utf-8")

    assert sizes(collect([tmp_path])) == {"a [3000 steps]": 2, "a [3250 steps]": 1}


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "a", [3.277])

    (submission,) = collect([folder, folder / "run_0.txt"]).submissions

    assert (len(submission.runs), len(submission.repeats)) == (1, 0)


def test_a_run_in_two_files_and_lines_quoted_from_it_count_once(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "a", [3.277, 3.278])
    losses = curve(3.278)
    quoted = "".join(validation(step, losses[step]) for step in (2950, 2975, 3000))
    (folder / "captured.out").write_text(quoted + run_text(losses), encoding="utf-8")

    (submission,) = collect([folder]).submissions

    assert [run.losses for run in submission.runs] == [losses, curve(3.277)]
    assert len(submission.repeats) == 2


def test_two_runs_that_end_at_the_same_loss_are_two_runs(tmp_path: Path) -> None:
    folder = write_runs(tmp_path / "a", [3.277])
    other = curve(3.277) | {125: 4.0}
    (folder / "run_1.txt").write_text(run_text(other), encoding="utf-8")

    assert sizes(collect([folder])) == {"a": 2}


def test_two_final_losses_alone_are_two_runs_though_they_be_equal(tmp_path: Path) -> None:
    lines = [validation(3000, loss) for loss in (3.277, 3.278, 3.277)]
    (tmp_path / "finals.txt").write_text("".join(lines), encoding="utf-8")

    (submission,) = collect([tmp_path]).submissions

    assert len(submission.runs) == 3


def test_different_training_scripts_are_counted(tmp_path: Path) -> None:
    for seed, more in enumerate(["", "", "lr = 0.1"]):
        text = whole_log(curve(3.278 + seed / 1000), seed=seed, more=more)
        (tmp_path / f"{seed}.txt").write_text(text, encoding="utf-8")

    (submission,) = collect([tmp_path]).submissions

    assert (submission.sources, submission.script_lines) == (2, 6)


def test_an_unreadable_log_is_a_problem_of_every_submission_of_its_folder(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.277], planned=3000)
    (tmp_path / "b.txt").write_text(run_text(curve(3.279), 3250), encoding="utf-8")
    (tmp_path / "lost.txt").write_text("step:125/3000 val_lo", encoding="utf-8")

    collection = collect([tmp_path])

    assert [len(one.problems) for one in collection.submissions] == [1, 1]


def test_a_bad_line_is_a_problem_of_its_own_submission_alone(tmp_path: Path) -> None:
    write_runs(tmp_path, [3.277], planned=3000)
    bad = run_text(curve(3.279), 3250) + "step:nonsense\nstep:1 nonsense\n"
    (tmp_path / "b.txt").write_text(bad, encoding="utf-8")

    collection = collect([tmp_path])

    assert [len(one.problems) for one in collection.submissions] == [0, 1]


def test_files_that_are_no_logs_are_listed_in_folders_and_a_problem_when_named(
    tmp_path: Path,
) -> None:
    folder = write_runs(tmp_path / "a", [3.277])
    manifest = folder / "manifest.txt"
    manifest.write_text("host=box\n", encoding="utf-8")
    (folder / "train.py").write_text(validation(125, 4.5), encoding="utf-8")

    assert collect([folder]).without_runs == (manifest,)
    assert "no line of it" in collect([folder / "manifest.txt"]).submissions[0].problems[0].message


def test_a_part_of_a_table_is_taken_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    names = ["muon", "muonh", "soap"]
    text = "".join(rows(name, 1, curve(3.27 + i / 1000)) for i, name in enumerate(names))
    path.write_text(HEADER + text, encoding="utf-8")

    assert sizes(collect([path])) == {"muon": 1, "muonh": 1, "soap": 1}
    assert sizes(collect([Path(f"{path}:muon")])) == {"muon": 1}
    assert sizes(collect([Path(f"{path}:muon*")])) == {"muon": 1, "muonh": 1}


def test_a_bad_row_spoils_its_own_submission_alone(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    text = rows("a", 1, curve(3.277)) + "a,2,125\n" + rows("b", 1, curve(3.278))
    path.write_text(HEADER + text, encoding="utf-8")

    assert [(one.name, len(one.problems)) for one in collect([path]).submissions] == [
        ("a", 1),
        ("b", 0),
    ]


@pytest.mark.parametrize("name", ["gone", "empty", "curves.csv:nobody", "gone.csv:a"])
def test_nothing_to_read_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "curves.csv").write_text(HEADER + rows("a", 1, curve(3.277)), encoding="utf-8")

    with pytest.raises(LogsError, match=r"does not exist|no run found"):
        collect([tmp_path / name])


def test_runs_of_another_submission_are_found_under_the_smaller_one(tmp_path: Path) -> None:
    write_runs(tmp_path / "own", [3.277, 3.278, 3.279])
    write_runs(tmp_path / "copy", [3.276, 3.278])

    found = borrowed(collect([tmp_path]).submissions)

    ((name, (repeat,)),) = found.items()
    assert Path(name).name == "copy"
    assert (repeat.run.losses[3000], repeat.of.path.parent.name) == (3.278, "own")
