from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from agent.calibration.record import Record, RecordMismatchError
from agent.calibration.trial import Trial

FACTS = {"profile": "micro", "seed": 1}
TRIAL = Trial(
    plant="uphill",
    number=0,
    ended_at="race",
    reason="not better: little chance of a win after 2 pairs",
    promoted=False,
    race_pairs=2,
    race_effect_bpb=1.25,
    runs=8,
    claimed=None,
)


def written(path: Path) -> None:
    with Record(path, FACTS) as record:
        record.add_trial(TRIAL)
        record.add_differences("lr back", (-0.1, 0.25))
        record.add_trial(replace(TRIAL, number=1, promoted=True, claimed=False))


def test_a_record_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written(tmp_path / "record")

    with Record(tmp_path / "record", FACTS) as record:
        assert list(record.trials) == [("uphill", 0), ("uphill", 1)]
        assert record.trials["uphill", 0] == TRIAL
        assert record.differences == {"lr back": (-0.1, 0.25)}


def test_a_line_that_was_cut_off_is_dropped_and_the_record_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "record"
    written(path)
    path.write_text(path.read_text(encoding="utf-8")[:-20], encoding="utf-8")

    with Record(path, FACTS) as record:
        assert list(record.trials) == [("uphill", 0)]
        record.add_trial(replace(TRIAL, number=5))

    with Record(path, FACTS) as record:
        assert list(record.trials) == [("uphill", 0), ("uphill", 5)]


def test_a_record_of_other_facts_is_refused(tmp_path: Path) -> None:
    written(tmp_path / "record")

    with pytest.raises(RecordMismatchError, match="made with seed 1, now it is 2"):
        Record(tmp_path / "record", {**FACTS, "seed": 2})


@pytest.mark.parametrize("text", ["hello\n", "{}\n", '{"facts": {}}\n{"trial": {"plant": "x"}}\n'])
def test_a_file_that_is_no_record_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    path = tmp_path / "record"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(RecordMismatchError, match="no record of a calibration"):
        Record(path, FACTS)

    assert path.read_text(encoding="utf-8") == text


def test_without_a_file_nothing_is_kept_beyond_the_process() -> None:
    with Record(None, FACTS) as record:
        record.add_trial(TRIAL)

    assert list(record.trials) == [("uphill", 0)]
