from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.track3.curves import is_curves, read_curves
from agent.track3.logs import MOST_PROBLEMS, read_log
from agent.track3.runs import Reading
from tests.agent.track3_logs import (
    BAR,
    HEADER,
    curve,
    rows,
    run_text,
    training,
    validation,
    whole_log,
)

ANY_BYTES = st.lists(
    st.one_of(
        st.binary(max_size=40),
        st.sampled_from(
            [
                b"step:125/3000 val_loss:3.27771 train_time:1s step_avg:1ms",
                b"step:3000/3000 val_loss:nan",
                b"step:3000/3000 train_time:",
                b"step:9999999999/1 val_loss:3.27771",
                b"step:1/1 val_loss:1e999",
                b"Using seed=3",
                b"import os",
                b"=" * 100,
                b"record,run,step,planned_steps,val_loss_nats",
                b'a,1,1,2,3.5\n"',
                b"a,1,1,2,nan",
                b"a,\xff,1,2",
            ]
        ),
    ),
    max_size=12,
)


def read(tmp_path: Path, text: str | bytes, name: str = "log.txt") -> Reading:
    path = tmp_path / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_log(path)


def problems(reading: Reading) -> list[tuple[int, str]]:
    return [(problem.line, problem.message) for problem in reading.problems]


def test_a_run_is_its_validation_losses_by_step(tmp_path: Path) -> None:
    losses = {0: 10.82584, 125: 4.60846, 3000: 3.2768}

    reading = read(tmp_path, run_text(losses))

    (run,) = reading.runs
    assert (run.losses, run.planned_steps, run.line) == (losses, 3000, 2)
    assert (run.first_step, run.last_step, run.widest_gap) == (0, 3000, 2875)
    assert not reading.problems


def test_runs_one_after_the_other_are_told_apart_with_and_without_step_0(tmp_path: Path) -> None:
    first, second = curve(3.277), curve(3.278)
    without_0 = {step: loss for step, loss in curve(3.279).items() if step}

    reading = read(tmp_path, run_text(first) + run_text(second) + run_text(without_0))

    assert [run.losses for run in reading.runs] == [first, second, without_0]
    assert [run.line for run in reading.runs] == [2, 18, 34]


def test_another_number_of_planned_steps_begins_another_run(tmp_path: Path) -> None:
    text = validation(125, 4.5, 3000) + validation(250, 4.1, 3250)

    assert [run.planned_steps for run in read(tmp_path, text).runs] == [3000, 3250]


def test_results_quoted_in_the_training_script_are_no_results(tmp_path: Path) -> None:
    reading = read(tmp_path, whole_log(curve(3.278), seed=7))

    assert [run.losses for run in reading.runs] == [curve(3.278)]
    assert (reading.runs[0].seed, reading.script_lines) == (7, 2)
    assert not reading.problems


def test_whole_logs_one_after_the_other_give_all_their_runs(tmp_path: Path) -> None:
    script = f"import torch\n{BAR}\nUsing seed={{}}\n{BAR}\n"
    text = "".join(script.format(seed) + run_text(curve(3.27 + seed / 100)) for seed in (1, 2))

    assert [run.seed for run in read(tmp_path, text).runs] == [1, 2]


def test_captured_output_without_a_script_keeps_what_stands_above_a_bar(tmp_path: Path) -> None:
    text = run_text(curve(3.278)) + BAR + "\nthe end\n"

    assert [run.losses for run in read(tmp_path, text).runs] == [curve(3.278)]


def test_scripts_that_differ_in_the_seed_alone_have_one_digest(tmp_path: Path) -> None:
    first, second = (whole_log(curve(3.278), seed=seed) for seed in (1, 2))
    third = whole_log(curve(3.278), seed=1, more="lr = 0.1")

    digests = [read(tmp_path, text).source_digest for text in (first, second, third)]

    assert digests[0] == digests[1] != digests[2]
    assert read(tmp_path, run_text(curve(3.278))).source_digest is None


def test_a_seed_set_in_the_script_is_not_the_seed_of_the_run(tmp_path: Path) -> None:
    text = f"import torch\nseed=0\n{BAR}\n{run_text(curve(3.278))}"

    assert read(tmp_path, text).runs[0].seed is None


@pytest.mark.parametrize(
    ("name", "before", "seed"),
    [
        ("seed01.txt", "", 1),
        ("A40_seed7_5c1a.txt", "", 7),
        ("klsoap-seed-3.full.txt", "", 3),
        ("seed01.txt", "Using seed=4\n", 4),
        ("log.txt", "=== seed 2 start 2026-05-18 ===\n", 2),
        ("log.txt", "=== seed 2 exit_status=0 ===\n", None),
    ],
)
def test_a_seed_is_read_from_a_line_of_its_own_or_else_from_the_name(
    tmp_path: Path, name: str, before: str, seed: int | None
) -> None:
    assert read(tmp_path, before + run_text(curve(3.278)), name).runs[0].seed == seed


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("\n", "\r\n").encode(),
        lambda text: b"\xef\xbb\xbf" + text.encode(),
        lambda text: b"\xff\xfe\x00caf\xe9\n" + text.encode(),
        lambda text: b"x" * 65_536 + b"step:1/9 val_loss:1.00000 ms\n" + text.encode(),
        lambda text: text.replace("step:", "[default0]:step:").encode(),
        lambda text: text.replace("train_time", "val_ema_loss:3.1 train_time").encode(),
        lambda text: "".join(line * 2 for line in text.splitlines(True)).encode(),
        lambda text: text.encode().rstrip(b"\n"),
    ],
    ids=["crlf", "bom", "latin", "long line", "torchrun", "more losses", "doubled", "no newline"],
)
def test_what_surrounds_the_results_does_not_change_them(tmp_path: Path, change: object) -> None:
    assert callable(change)
    text = change("".join(validation(step, loss) for step, loss in curve(3.278).items()))

    reading = read(tmp_path, text)

    assert [run.losses for run in reading.runs] == [curve(3.278)]
    assert not reading.problems


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("step:3000/3000 val_lo", "cut off"),
        ("step:3000/3000 val_loss:3.2", "cut off"),
        ("step:3000/3000 val_loss:3.2777", "cut off"),
        ("step:30", "cut off"),
        ("step:3000/3000 val_loss:3.2\n", "four decimals"),
        ("step:3000/3000 val_loss:oops train_time:1s\n", "positive loss"),
        ("step:3000/3000 val_loss:-3.27771 train_time:1s\n", "positive loss"),
        ("step:3000/3000 val_loss:0.00000 train_time:1s\n", "positive loss"),
        ("step:3025/3000 val_loss:3.27771 train_time:1s\n", "beyond the 3000 planned"),
        ("step:29step:3000/3000 val_loss:3.27771 train_time:1s\n", "no metric line"),
    ],
)
def test_a_line_that_cannot_be_right_is_named_and_not_read(
    tmp_path: Path, line: str, message: str
) -> None:
    reading = read(tmp_path, validation(125, 4.5) + line)

    ((number, said),) = problems(reading)
    assert (number, message in said) == (2, True), said
    assert [run.losses for run in reading.runs] == [{125: 4.5}]


def test_a_log_cut_off_in_a_line_of_training_is_read_to_its_end(tmp_path: Path) -> None:
    reading = read(tmp_path, validation(125, 4.5) + training(126)[:30])

    assert not reading.problems


def test_losses_that_are_not_finite_are_results(tmp_path: Path) -> None:
    text = "step:125/3000 val_loss:nan train_time:1s\nstep:250/3000 val_loss:inf train_time:1s\n"

    (run,) = read(tmp_path, text).runs

    assert [str(loss) for loss in run.losses.values()] == ["nan", "inf"]


def test_a_script_without_results_is_a_lost_run_and_not_a_file_of_something_else(
    tmp_path: Path,
) -> None:
    crashed = whole_log({}, seed=1)

    assert "no validation follows" in problems(read(tmp_path, crashed))[0][1]
    assert read(tmp_path, "a shopping list\n") == Reading(runs=(), problems=())


def test_a_file_of_garbage_is_complained_of_a_few_times_only(tmp_path: Path) -> None:
    reading = read(tmp_path, "step:1 \x1b[31m\n" * 1000)

    assert len(reading.problems) == MOST_PROBLEMS
    assert "\x1b" not in str(reading.problems[0])


@given(lines=ANY_BYTES, end=st.sampled_from([b"\n", b"\r\n", b""]))
def test_no_bytes_make_the_readers_fail(
    tmp_path_factory: pytest.TempPathFactory, lines: list[bytes], end: bytes
) -> None:
    path = tmp_path_factory.mktemp("any") / "log.txt"
    path.write_bytes(end.join(lines))

    for reading in (read_log(path), read_curves(path)):
        for run in reading.runs:
            assert list(run.losses) == sorted(run.losses)
            assert 0 <= run.first_step <= run.last_step <= run.planned_steps


def test_a_table_of_curves_names_its_submissions_and_runs(tmp_path: Path) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(HEADER + rows("a", 1, curve(3.277)) + rows("b", 2, curve(3.278)), "utf-8")

    reading = read_curves(path)

    assert is_curves(path)
    assert [(run.submission, run.seed, run.line) for run in reading.runs] == [
        ("a", 1, 2),
        ("b", 2, 10),
    ]
    assert [run.losses for run in reading.runs] == [curve(3.277), curve(3.278)]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,1,3000,3000", "expected 5 fields, found 4"),
        ("a,x,3000,3000,3.2", "expected a number as run, found 'x'"),
        ("a,1,30.5,3000,3.2", "expected a number as step"),
        ("a,1,3000,3000,", "expected a positive loss, found ''"),
        ("a,1,3001,3000,3.2", "beyond the 3000 planned"),
        ("a,1,125,3000,3.2", "step 125 of run 1 does not come after step 125"),
    ],
)
def test_a_row_that_cannot_be_right_is_named_with_its_submission(
    tmp_path: Path, row: str, message: str
) -> None:
    path = tmp_path / "curves.csv"
    path.write_text(f"{HEADER}a,1,125,3000,4.5\n{row}\n", "utf-8")

    (problem,) = read_curves(path).problems

    assert (problem.line, problem.submission) == (3, "a")
    assert message in problem.message


def test_a_table_with_other_columns_is_no_table_of_curves(tmp_path: Path) -> None:
    path = tmp_path / "other.csv"
    path.write_text("step,loss\n1,2\n", encoding="utf-8")

    assert not is_curves(path)
