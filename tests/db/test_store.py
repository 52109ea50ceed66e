from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy.exc import StatementError

from db.records import Evaluation, Event, Look, Score
from db.sources import deflate, inflate
from db.store import DATABASE, RecordError, Store, StoreError
from tests.db.builders import START, after, evaluation, program, proposal, run, verdict


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "run", run()) as store:
        yield store


@pytest.fixture
def seeded(store: Store) -> Store:
    store.add_proposal(proposal(), program())
    return store


# -- opening ----------------------------------------------------------------------------------


def test_an_opened_store_holds_the_run_it_was_created_with(tmp_path: Path) -> None:
    Store.create(tmp_path / "deep" / "run", run()).close()

    with Store.open(tmp_path / "deep" / "run") as store:
        assert store.run() == run()


def test_a_second_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    Store.create(tmp_path, run()).close()

    with pytest.raises(StoreError, match="holds a run already"):
        Store.create(tmp_path, run())


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no run"):
        Store.open(tmp_path)


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(StoreError, match="cannot make the folder"):
        Store.create(tmp_path / "file" / "run", run())


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lock").mkdir()  # root may write anywhere, but not into a folder as into a file

    with pytest.raises(StoreError, match="cannot write"):
        Store.create(tmp_path, run())


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / DATABASE).write_text("bpb\n" * 1000)

    with pytest.raises(StoreError, match="not a database"):
        Store.open(tmp_path)


def test_a_run_whose_creation_was_interrupted_can_be_created_but_not_opened(
    tmp_path: Path,
) -> None:
    (tmp_path / DATABASE).touch()

    with pytest.raises(StoreError, match="interrupted"):
        Store.open(tmp_path)

    Store.create(tmp_path, run()).close()


def test_readers_and_writers_of_an_empty_database_are_told_the_same(tmp_path: Path) -> None:
    (tmp_path / DATABASE).touch()

    with pytest.raises(StoreError) as to_writer:
        Store.open(tmp_path)
    with pytest.raises(StoreError) as to_reader:
        Store.open(tmp_path, exclusive=False)

    assert str(to_reader.value) == str(to_writer.value)
    assert f"{DATABASE} is empty" in str(to_reader.value)


def test_a_failed_opening_leaves_the_folder_unlocked(tmp_path: Path) -> None:
    Store.create(tmp_path, run()).close()
    with pytest.raises(StoreError):
        Store.create(tmp_path, run())

    Store.open(tmp_path).close()


def test_a_reader_sees_what_is_added_after_it_opened(store: Store, tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", exclusive=False) as reader:
        store.add_proposal(proposal(), program())

        assert list(reader.programs()) == [program()]


def test_a_reader_cannot_write(store: Store, tmp_path: Path) -> None:
    with Store.open(tmp_path / "run", exclusive=False) as reader, pytest.raises(StoreError):
        reader.add_event(Event(at=START, kind="started", detail={}))

    assert store.events() == ()


# -- records ----------------------------------------------------------------------------------

times = st.datetimes(
    min_value=datetime(1970, 1, 3),  # noqa: DTZ001  # the time zone is drawn separately
    max_value=datetime(2200, 1, 1),  # noqa: DTZ001
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda m: timezone(timedelta(minutes=m))),
)
losses = st.floats(allow_nan=False)
steps = st.integers(0, 2**32 - 1)
big = st.integers(-(2**63), 2**63 - 1)


@st.composite
def evaluations(draw: st.DrawFn) -> Evaluation:
    status = draw(st.sampled_from(["ok", "crash", "nan", "policy_violation"]))
    return evaluation(
        program().id,
        seed=draw(big),
        status=status,
        reason=draw(st.text()),
        line=draw(st.none() | st.integers(1, 10_000)),
        bpb=draw(losses) if status == "ok" else None,
        curve=tuple(draw(st.lists(st.tuples(steps, losses), max_size=5))),
        fingerprint=draw(st.none() | st.text()),
        output_tail=draw(st.text()),
        unsafe=draw(st.booleans()),
        finished_at=draw(times),
        gradients=draw(st.sampled_from(["true", "zero", "permuted"])),
        horizon=draw(st.integers(1, 10**6)),
        evidence=draw(st.none() | st.just({"untrained_bpb": 8.5, "movement": [["wte", [0.1]]]})),
    )


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(drawn=st.lists(evaluations(), max_size=3, unique_by=lambda e: e.seed))
def test_evaluations_come_back_as_they_went_in(
    drawn: list[Evaluation], tmp_path_factory: pytest.TempPathFactory
) -> None:
    with Store.create(tmp_path_factory.mktemp("run"), run()) as store:
        store.add_proposal(proposal(), program())
        for each in drawn:
            store.add_evaluation(each)

        assert store.evaluations() == tuple(drawn)


def test_a_curve_keeps_losses_that_are_not_finite(seeded: Store) -> None:
    curve = ((0, math.inf), (1, math.nan))

    seeded.add_evaluation(evaluation(program().id, status="nan", bpb=None, curve=curve))

    (found,) = seeded.evaluations()
    assert found.curve[0] == (0, math.inf)
    assert math.isnan(found.curve[1][1])


def test_verdicts_come_back_as_they_went_in_and_in_order(seeded: Store) -> None:
    first = verdict(program().id, stage="screen", effect_bpb=None, reference_id=None, seeds=())
    second = verdict(program().id)

    seeded.add_verdict(first)
    seeded.add_verdict(second)

    assert seeded.verdicts() == (first, second)


def test_events_come_back_as_they_went_in(store: Store) -> None:
    event = Event(at=START, kind="paused", detail={"why": "no worker", "tries": [1, 2.5, None]})

    store.add_event(event)

    assert store.events() == (event,)


def test_a_reply_with_a_lone_surrogate_is_stored_escaped(seeded: Store) -> None:
    seeded.add_evaluation(evaluation(program().id, output_tail="caf\udce9"))

    assert seeded.evaluations()[0].output_tail == "caf\\udce9"


def test_a_time_without_a_time_zone_is_refused(store: Store) -> None:
    with pytest.raises(StatementError, match="without a time zone"):
        store.add_event(Event(at=START.replace(tzinfo=None), kind="started", detail={}))


def test_evaluations_and_verdicts_can_be_asked_for_one_program(seeded: Store) -> None:
    seeded.add_proposal(proposal(1, parents=(program().id,)), program(1))
    for ordinal in (0, 1):
        seeded.add_evaluation(evaluation(program(ordinal).id))
        seeded.add_verdict(verdict(program(ordinal).id))

    assert [e.program_id for e in seeded.evaluations(program(1).id)] == [program(1).id]
    assert [v.program_id for v in seeded.verdicts(program(1).id)] == [program(1).id]


# -- proposals and programs -------------------------------------------------------------------


def test_parents_keep_their_order_which_is_not_that_of_their_ids(store: Store) -> None:
    store.add_proposal(proposal(0), program(0))
    store.add_proposal(proposal(1), program(1))
    forth = (program(0).id, program(1).id)
    store.add_proposal(proposal(2, parents=forth), program(2))
    store.add_proposal(proposal(3, parents=forth[::-1]), program(3))

    assert [p.parents for p in store.proposals()] == [(), (), forth, forth[::-1]]


def test_refused_and_duplicate_proposals_are_kept_with_their_reason(seeded: Store) -> None:
    refused = proposal(1, status="preflight_reject", reason="line 3: import os", program_id=None)
    twin = proposal(2, status="duplicate", reason="of the seed", program_id=program().id)

    seeded.add_proposal(refused)
    seeded.add_proposal(twin)

    assert seeded.proposals() == (proposal(), refused, twin)
    assert list(seeded.programs()) == [program()]


def test_a_proposal_with_an_unknown_parent_leaves_nothing_behind(seeded: Store) -> None:
    with pytest.raises(RecordError):
        seeded.add_proposal(proposal(1, parents=("0" * 64,)), program(1))

    assert list(seeded.programs()) == [program()]
    assert seeded.proposals() == (proposal(),)


def test_an_ordinal_is_used_once(seeded: Store) -> None:
    with pytest.raises(RecordError):
        seeded.add_proposal(proposal(0, program_id=None, status="preflight_reject"))


def test_a_program_whose_id_is_not_its_digest_is_refused(store: Store) -> None:
    forged = replace(program(), source="lr = 1000\n")

    with pytest.raises(RecordError, match="another digest"):
        store.add_proposal(proposal(), forged)


def test_a_proposal_comes_with_the_program_it_names(store: Store) -> None:
    with pytest.raises(RecordError, match="comes with"):
        store.add_proposal(proposal(0), program(1))


@settings(deadline=None)
@given(base=st.text(), text=st.text())
def test_a_source_survives_compression_against_any_other(base: str, text: str) -> None:
    assert inflate(deflate(text, base.encode()), base.encode()) == text


def test_sources_come_back_to_the_byte_after_reopening(tmp_path: Path) -> None:
    texts = ["lr = 1\n", "", "lr = 1\r\n\ttab = 'é'\n", "x" * 100_000]
    programs = [program(ordinal, source) for ordinal, source in enumerate(texts)]
    with Store.create(tmp_path, run()) as store:
        for each in programs:
            store.add_proposal(proposal(each.ordinal, program_id=each.id), each)

    with Store.open(tmp_path) as store:
        assert list(store.programs()) == programs


def test_programs_are_all_read_however_many_pages_they_fill(store: Store) -> None:
    for ordinal in range(1201):
        store.add_proposal(proposal(ordinal), program(ordinal))

    assert [p.ordinal for p in store.programs()] == list(range(1201))


def test_each_variation_of_a_25_kb_program_takes_less_than_a_kilobyte(
    store: Store, tmp_path: Path
) -> None:
    seed = "".join(f"knob_{n} = {math.sin(n)!r}\n" for n in range(850))
    assert len(seed) > 25_000
    for ordinal in range(20):
        each = program(ordinal, seed.replace(f"knob_{40 * ordinal} =", "knob = 2.0 *"))
        store.add_proposal(proposal(ordinal, program_id=each.id), each)

    with closing(sqlite3.connect(tmp_path / "run" / DATABASE)) as database:
        sizes = database.execute("SELECT length(source) FROM programs ORDER BY seq").fetchall()

    assert max(size for (size,) in sizes[1:]) < 1_000


def test_a_program_is_found_by_a_unique_prefix_in_either_case(seeded: Store) -> None:
    seeded.add_proposal(proposal(1), program(1))

    assert seeded.program(program(1).id) == program(1)
    assert seeded.program(program(1).id[:8].upper()) == program(1)


def test_an_ambiguous_prefix_is_refused(store: Store) -> None:
    for ordinal in range(17):  # of 17 digests two begin with the same of 16 digits
        store.add_proposal(proposal(ordinal), program(ordinal))
    digits = [program(ordinal).id[0] for ordinal in range(17)]
    shared = next(digit for digit in digits if digits.count(digit) > 1)

    with pytest.raises(StoreError, match="more than one program"):
        store.program(shared)


@pytest.mark.parametrize("prefix", ["", "0" * 65, "best", "%", "' OR 1=1"])
def test_what_cannot_begin_an_id_is_refused(seeded: Store, prefix: str) -> None:
    with pytest.raises(StoreError, match="hex digits"):
        seeded.program(prefix)


def test_a_prefix_of_no_program_is_refused(seeded: Store) -> None:
    with pytest.raises(StoreError, match="no program id begins with"):
        seeded.program("0" * 64)


# -- evaluations ------------------------------------------------------------------------------


def test_a_program_is_evaluated_once_per_split_steps_and_seed(seeded: Store) -> None:
    first = evaluation(program().id)
    seeded.add_evaluation(first)

    for change in ({"split": "sealed"}, {"steps": 100}, {"seed": 2}):
        seeded.add_evaluation(replace(first, **change))
    with pytest.raises(RecordError):
        seeded.add_evaluation(replace(first, stage="race", bpb=0.5))

    assert len(seeded.evaluations()) == 4


@pytest.mark.parametrize(("status", "bpb"), [("ok", None), ("ok", math.nan), ("crash", 1.0)])
def test_a_score_is_stored_only_for_a_run_that_ended_well(
    seeded: Store, status: str, bpb: float | None
) -> None:
    with pytest.raises(RecordError):
        seeded.add_evaluation(evaluation(program().id, status=status, bpb=bpb))


def test_an_evaluation_of_an_unknown_program_is_refused(seeded: Store) -> None:
    with pytest.raises(RecordError):
        seeded.add_evaluation(evaluation("0" * 64))

    assert seeded.looks() == ()


def test_every_evaluation_is_a_look_at_its_split(seeded: Store) -> None:
    seeded.add_evaluation(evaluation(program().id))
    seeded.add_evaluation(evaluation(program().id, split="sealed", stage="confirm", seed=9))

    (look,) = seeded.looks("sealed")

    assert look == Look(
        at=after(60), program_id=program().id, split="sealed", stage="confirm", steps=400, seed=9
    )
    assert len(seeded.looks()) == 2


def test_looks_are_counted_by_split(seeded: Store) -> None:
    for seed, split in enumerate(("search", "sealed", "search")):
        seeded.add_evaluation(evaluation(program().id, split=split, seed=seed))

    assert seeded.looks_by_split() == {"search": 2, "sealed": 1}


def test_scores_are_those_of_the_runs_that_ended_well(seeded: Store) -> None:
    seeded.add_evaluation(evaluation(program().id, seed=3, gradients="zero", horizon=800))
    seeded.add_evaluation(evaluation(program().id, seed=4, status="nan", bpb=None))

    assert seeded.scores() == (
        Score(
            program_id=program().id,
            stage="screen",
            split="search",
            steps=400,
            horizon=800,
            gradients="zero",
            seed=3,
            bpb=1.0625,
            jail_cpu_s=1.5,
            peak_memory_bytes=3 << 30,
        ),
    )


def test_what_a_sequential_test_came_to_is_kept_with_its_verdict(seeded: Store) -> None:
    tested = verdict(program().id, log_e=-1.25, stopped="futile", is_sample=True)

    seeded.add_verdict(tested)
    seeded.add_verdict(verdict(program().id))

    assert seeded.verdicts() == (tested, verdict(program().id))
    assert [v.log_e for v in seeded.verdicts()] == [-1.25, None]


def test_counts_are_those_of_the_records(seeded: Store) -> None:
    seeded.add_evaluation(evaluation(program().id))
    seeded.add_proposal(proposal(1, status="preflight_reject", program_id=None))

    assert seeded.counts() == {
        "proposals": 2,
        "programs": 1,
        "evaluations": 1,
        "verdicts": 0,
        "looks": 1,
        "events": 0,
    }


# -- sessions ---------------------------------------------------------------------------------


def test_elapsed_time_is_that_of_all_sessions_and_not_of_the_pause_between(tmp_path: Path) -> None:
    with Store.create(tmp_path, run()) as store:
        store.begin_session(after(0))
        store.touch_session(after(10))
    with Store.open(tmp_path) as store:
        store.begin_session(after(1000))
        store.touch_session(after(1002.5))

        assert store.elapsed_s() == 12.5


def test_an_evaluation_counts_as_a_sign_of_life(seeded: Store) -> None:
    seeded.begin_session(after(0))

    seeded.add_evaluation(evaluation(program().id, finished_at=after(60)))

    assert seeded.elapsed_s() == 60


def test_a_session_does_not_shrink_when_the_clock_goes_back(store: Store) -> None:
    store.begin_session(after(0))
    store.touch_session(after(30))

    store.touch_session(after(-5))

    assert store.elapsed_s() == 30


def test_only_a_session_that_was_begun_can_be_touched(store: Store) -> None:
    with pytest.raises(RecordError, match="begin_session"):
        store.touch_session(after(1))


# -- commits ----------------------------------------------------------------------------------


def test_programs_without_a_commit_are_those_none_was_noted_for(seeded: Store) -> None:
    for ordinal in (1, 2):
        seeded.add_proposal(proposal(ordinal), program(ordinal))

    seeded.set_commit(program(1).id, "f" * 40)

    assert [p.ordinal for p in seeded.programs_without_commit()] == [0, 2]
    assert seeded.commit_of(program(1).id) == "f" * 40
    assert seeded.commit_of(program(2).id) is None


def test_forgotten_commits_are_to_be_made_again(seeded: Store) -> None:
    seeded.set_commit(program().id, "f" * 40)

    seeded.forget_commits()

    assert seeded.programs_without_commit() == (program(),)


def test_a_commit_of_an_unknown_program_is_refused(seeded: Store) -> None:
    with pytest.raises(RecordError):
        seeded.set_commit("0" * 64, "f" * 40)
