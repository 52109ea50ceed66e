from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from agent.controller import Ending, EndingKind
from agent.proposals import Brief, NothingToPropose, ProposedPatch
from agent.seeds import race_seeds, screen_seed, smoke_seed
from agent.session import RunMismatchError, create_run, open_session
from agent.settings import Settings
from agent.stages.smoke import SMOKE_STEPS
from agent.summary import findings
from db.history import BEST, REPOSITORY
from db.records import Evaluation, Program, Proposal, Verdict
from db.store import RecordError, Store, StoreError
from sandbox.executor import PoolError
from sandbox.jobs import Gradients, Job, Outcome, Status
from sandbox.knobs import set_knobs
from sandbox.source_form import digest
from tests.agent.fakes import (
    READY,
    SEED_SOURCE,
    STEPS,
    FakePool,
    ScriptedProposer,
    clock,
    outcome,
    parts,
    scored,
    settings,
)
from tests.agent.lineages import go_on, lineage_of, resume, search

BUDGET = 48  # training runs; the first champion is promoted within them


async def searched(folder: Path, budget: int = BUDGET, **values: object) -> Ending:
    return await search(folder, settings(budget_evals=budget, **values), parts(FakePool()))


async def test_equal_seeds_give_equal_lineages(tmp_path: Path) -> None:
    await searched(tmp_path / "a")
    await searched(tmp_path / "b")

    assert lineage_of(tmp_path / "a") == lineage_of(tmp_path / "b")


async def test_another_seed_tries_other_programs(tmp_path: Path) -> None:
    await searched(tmp_path / "a", seed=1)
    await searched(tmp_path / "b", seed=2)

    assert lineage_of(tmp_path / "a")["programs"] != lineage_of(tmp_path / "b")["programs"]


class WatchedStore(Store):
    """A store that calls `on_write` before and after each of its writes."""

    on_write: Callable[[], None] = staticmethod(lambda: None)

    def add_proposal(self, proposal: Proposal, program: Program | None = None) -> None:
        super().add_proposal(proposal, program)
        self.on_write()

    def add_evaluation(self, evaluation: Evaluation) -> None:
        super().add_evaluation(evaluation)
        self.on_write()

    def add_verdict(self, verdict: Verdict) -> None:
        super().add_verdict(verdict)
        self.on_write()

    def set_commit(self, program_id: str, sha: str) -> None:
        self.on_write()  # git has the commit, the database does not know
        super().set_commit(program_id, sha)
        self.on_write()


async def test_a_run_killed_after_any_write_resumes_to_the_same_lineage(tmp_path: Path) -> None:
    """A copy of the folder after a write is what `kill -9` would leave at that moment."""
    folder, chosen = tmp_path / "whole", settings(budget_evals=50)
    # Promoted after a quarantine, out of bounds, a duplicate of the first, promoted or not.
    script = ScriptedProposer(0.08, 7.0, 0.08, 0.1)
    create_run(folder, chosen, READY, parts(FakePool()).clock).close()
    store = WatchedStore.open(folder)
    copies: list[Path] = []

    def copy() -> None:
        copies.append(tmp_path / f"killed{len(copies)}")
        shutil.copytree(folder, copies[-1])

    store.on_write = copy
    pool = FakePool(much_better)
    with store, open_session(store, folder, chosen, parts(pool, script)) as session:
        await session.search(1)
    expected = lineage_of(folder)

    for killed in copies:
        await resume(killed, _unbudgeted(), parts(FakePool(much_better), script))
        assert lineage_of(killed) == expected, killed.name

    stages = {(stage, decision) for _, stage, decision, *_ in expected["verdicts"]}
    assert ("replicate", "promote") in stages
    assert {("quarantine", "pass"), ("gates", "pass")} <= stages
    assert {status for _, status, *_ in expected["proposals"]} >= {"duplicate", "preflight_reject"}
    assert len(copies) > 50


def _unbudgeted() -> Settings:
    return Settings.model_validate({"profile": "micro", "workers": 1, "seed": 1})


async def test_the_budget_counts_every_training_run(tmp_path: Path) -> None:
    ending = await searched(tmp_path / "run", 20)

    assert ending.kind is EndingKind.SPENT
    assert len(lineage_of(tmp_path / "run")["evaluations"]) == 20


@pytest.mark.parametrize("workers", [2, 5])
async def test_several_workers_never_exceed_the_budget(tmp_path: Path, workers: int) -> None:
    await searched(tmp_path / "run", 33, workers=workers)

    assert len(lineage_of(tmp_path / "run")["evaluations"]) == 33


async def test_a_budget_given_on_resume_counts_from_there(tmp_path: Path) -> None:
    await searched(tmp_path / "run", 20)

    await resume(tmp_path / "run", settings(budget_evals=7), parts(FakePool()))

    assert len(lineage_of(tmp_path / "run")["evaluations"]) == 27


async def test_a_spent_budget_is_not_refilled_by_resuming(tmp_path: Path) -> None:
    await searched(tmp_path / "run", 20)

    ending = await resume(tmp_path / "run", _unbudgeted(), parts(FakePool()))

    assert ending.kind is EndingKind.SPENT
    assert len(lineage_of(tmp_path / "run")["evaluations"]) == 20


async def test_hours_end_a_run_too(tmp_path: Path) -> None:
    # The test clock advances by a second whenever it is read.
    ending = await search(tmp_path / "run", settings(budget_hours=100 / 3600), parts(FakePool()))

    assert ending.kind is EndingKind.SPENT
    with Store.open(tmp_path / "run") as store:
        assert 90 <= store.elapsed_s() <= 130


async def test_a_rejected_patch_is_recorded_and_never_trained(tmp_path: Path) -> None:
    folder, pool = tmp_path / "run", FakePool()

    await search(folder, settings(budget_evals=10), parts(pool, ScriptedProposer(7.0)))

    with Store.open(folder) as store:
        rejected = store.proposals()[1]
    assert (rejected.status, rejected.program_id) == ("preflight_reject", None)
    assert rejected.reason.startswith("knob: ")
    assert not any("lr=7.0" in job.source for job in pool.jobs)


async def test_a_comment_does_not_make_a_new_program(tmp_path: Path) -> None:
    await searched(tmp_path / "run", 100)

    with Store.open(tmp_path / "run") as store:
        programs = {p.id: p.ordinal for p in store.programs()}
        duplicates = [p for p in store.proposals() if p.status == "duplicate"]
        assert duplicates
        for proposal in duplicates:
            assert proposal.program_id is not None
            assert programs[proposal.program_id] < proposal.ordinal


async def test_a_program_that_behaves_like_another_is_refused_by_the_screen(
    tmp_path: Path,
) -> None:
    await searched(tmp_path / "run", 150)

    with Store.open(tmp_path / "run") as store:
        refused = [v for v in store.verdicts() if v.reason.startswith("same behaviour")]
        assert refused
        for verdict in refused:
            stages = [e.stage for e in store.evaluations(verdict.program_id)]
            assert stages == ["smoke", "screen"]


async def test_a_better_program_is_promoted_and_found_in_all_places(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await search(folder, settings(budget_evals=60), parts(FakePool(), ScriptedProposer(0.08)))

    with Store.open(folder) as store:
        promoted = [v for v in store.verdicts() if v.decision == "promote"][-1]
        best = store.program(promoted.program_id)
        commit = store.commit_of(best.id)
    assert "lr=0.08" in best.source
    assert (folder / "best.py").read_text(encoding="utf-8") == best.source
    assert (folder / REPOSITORY / "refs/heads" / BEST).read_text().strip() == commit


async def test_the_reported_effect_rests_on_seeds_the_race_never_saw(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await search(folder, settings(budget_evals=60), parts(FakePool(), ScriptedProposer(0.08)))

    with Store.open(folder) as store:
        verdicts = store.verdicts()
        raced = next(v for v in verdicts if v.stage == "race" and v.decision == "pass")
        measured = next(v for v in verdicts if v.stage == "baseline" and v.reference_id)
    assert measured.pairs == len(measured.seeds) == 4
    assert not set(raced.seeds) & set(measured.seeds)


async def test_a_race_win_that_does_not_hold_on_fresh_seeds_is_no_promotion(
    tmp_path: Path,
) -> None:
    lucky_source = set_knobs(SEED_SOURCE, {"MUON.lr": 0.03})
    fresh = set(itertools.islice(race_seeds(1, digest(lucky_source), season=0), 4))

    def lucky(job: Job) -> Outcome:
        """Score one program far too well, except on the fresh seeds."""
        result = scored(job)
        assert result.bpb is not None
        if job.source != lucky_source:
            return result
        shift = 0.05 if job.seed in fresh else -0.05
        return replace(result, bpb=result.bpb + shift)

    folder, proposer = tmp_path / "run", ScriptedProposer(0.03)
    await search(folder, settings(budget_evals=60), parts(FakePool(lucky), proposer))

    with Store.open(folder) as store:
        last = [v for v in store.verdicts() if v.ordinal == 1][-1]
    assert (last.stage, last.decision) == ("replicate", "reject")
    assert last.reason.startswith("did not hold")


async def test_a_failing_candidate_is_rejected_with_the_reason_and_gets_no_score(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    await search(folder, settings(budget_evals=10), parts(FakePool(), ScriptedProposer(0.45)))

    with Store.open(folder) as store:
        last = [v for v in store.verdicts() if v.ordinal == 1][-1]
    assert (last.stage, last.decision) == ("smoke", "reject")
    assert last.reason == "diverged: the loss grew to 9.0 at step 3"


async def test_the_smoke_test_begins_a_run_of_the_full_horizon(tmp_path: Path) -> None:
    pool = FakePool()
    await search(tmp_path / "run", settings(budget_evals=20), parts(pool, ScriptedProposer(0.08)))

    assert {job.horizon for job in pool.jobs if job.seed == smoke_seed(1)} == {STEPS}
    assert {job.horizon for job in pool.jobs if job.steps != SMOKE_STEPS} == {None}


# Candidates whose order in the screen is that in the race; the last is far behind.
TELLING = (0.019, 0.018, 0.015, 0.012, 0.01, 0.008, 0.006, 0.005, 0.004, 0.003, 0.002)


async def test_a_clearly_worse_program_is_screened_out_once_the_screen_has_proved_itself(
    tmp_path: Path,
) -> None:
    folder, chosen = tmp_path / "run", settings(budget_evals=400, sample_share=0.0)
    await search(folder, chosen, parts(FakePool(), ScriptedProposer(*TELLING)))

    with Store.open(folder) as store:
        verdicts = store.verdicts()
        first = [v for v in verdicts if v.ordinal == TELLING.index(0.01) + 1]
        last = [v for v in verdicts if v.ordinal == len(TELLING)]
        runs = store.evaluations(last[-1].program_id)
    assert [(v.stage, v.is_sample) for v in first] == [
        ("smoke", True),
        ("screen", True),
        ("race", False),
    ]
    assert [(v.stage, v.decision) for v in last] == [("smoke", "pass"), ("screen", "reject")]
    assert [run.steps for run in runs] == [8, 10]


async def test_a_program_spared_by_the_lot_is_raced_however_far_behind_it_is(
    tmp_path: Path,
) -> None:
    folder, chosen = tmp_path / "run", settings(budget_evals=400, sample_share=1.0)
    await search(folder, chosen, parts(FakePool(), ScriptedProposer(*TELLING)))

    with Store.open(folder) as store:
        last = [v for v in store.verdicts() if v.ordinal == len(TELLING)]
    assert [v.stage for v in last] == ["smoke", "screen", "race"]
    assert last[1].reason.startswith("spared: far behind")


async def test_a_seed_program_that_does_not_train_refuses_the_run(tmp_path: Path) -> None:
    pool = FakePool(lambda _: outcome(Status.CRASH, reason="horizon too short"))

    ending = await search(tmp_path / "run", settings(), parts(pool))

    assert ending.kind is EndingKind.REFUSED
    assert "horizon too short" in ending.message


async def test_a_lost_pool_pauses_the_run_and_blames_no_program(tmp_path: Path) -> None:
    def lost(count: int) -> None:
        if count == 12:
            raise PoolError("no worker can be started")

    folder, pool = tmp_path / "run", FakePool()
    pool.before_job = lost
    await searched(tmp_path / "whole", 30)

    ending = await search(folder, settings(budget_evals=30), parts(pool))
    assert (ending.kind, ending.message) == (EndingKind.PAUSED, "no worker can be started")

    await resume(folder, _unbudgeted(), parts(FakePool()))
    assert lineage_of(folder) == lineage_of(tmp_path / "whole")


async def test_a_sandbox_error_never_becomes_an_evaluation(tmp_path: Path) -> None:
    pool = FakePool(lambda _: outcome(Status.SANDBOX_ERROR, reason="the jail would not start"))

    ending = await search(tmp_path / "run", settings(), parts(pool))

    assert ending.kind is EndingKind.PAUSED
    assert lineage_of(tmp_path / "run")["evaluations"] == []


async def test_a_full_disk_pauses_the_run(tmp_path: Path) -> None:
    def full(count: int) -> None:
        if count == 5:
            raise StoreError("disk is full")

    pool = FakePool()
    pool.before_job = full

    ending = await search(tmp_path / "run", settings(), parts(pool))

    assert ending.kind is EndingKind.PAUSED


async def test_a_contradiction_in_the_records_is_a_defect_and_stops_the_run(
    tmp_path: Path,
) -> None:
    def contradict(count: int) -> None:
        raise RecordError("used twice")

    pool = FakePool()
    pool.before_job = contradict

    with pytest.raises(ExceptionGroup):
        await search(tmp_path / "run", settings(), parts(pool))


async def test_stopping_ends_the_run_and_resuming_completes_it(tmp_path: Path) -> None:
    folder, pool, chosen = tmp_path / "run", FakePool(), settings(budget_evals=30)
    together = parts(pool)
    await searched(tmp_path / "whole", 30)

    with (
        create_run(folder, chosen, READY, together.clock) as store,
        open_session(store, folder, chosen, together) as session,
    ):
        pool.before_job = lambda count: session.controller.stop() if count == 17 else None
        ending = await session.search(1)
    assert ending.kind is EndingKind.STOPPED

    await resume(folder, _unbudgeted(), parts(FakePool()))
    assert lineage_of(folder) == lineage_of(tmp_path / "whole")


async def test_a_proposer_at_its_end_ends_the_run(tmp_path: Path) -> None:
    ending = await search(tmp_path / "run", settings(), parts(FakePool(), ScriptedProposer()))

    assert ending.kind is EndingKind.EXHAUSTED


async def test_a_proposer_is_told_why_earlier_candidates_failed(tmp_path: Path) -> None:
    class Listening(ScriptedProposer):
        heard: tuple[str, ...] = ()

        async def propose(self, brief: Brief) -> ProposedPatch:
            self.heard = brief.failures
            if brief.ordinal > 2:
                raise NothingToPropose("done")
            return await super().propose(brief)

    proposer = Listening(0.45, 0.002)

    await search(tmp_path / "run", settings(budget_evals=12), parts(FakePool(), proposer))

    assert proposer.heard[0] == "lr 0.45: diverged: the loss grew to 9.0 at step 3"
    assert proposer.heard[1].startswith("lr 0.002: not better: little chance of a win")


async def test_a_program_promoted_meanwhile_has_to_be_beaten_too(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    proposer = ScriptedProposer(0.05, 0.09)

    await search(folder, settings(budget_evals=120, workers=2), parts(FakePool(), proposer))

    with Store.open(folder) as store:
        champions = [v.program_id for v in store.verdicts() if v.decision == "promote"]
        last = [v for v in store.verdicts(champions[-1]) if v.stage in {"race", "replicate"}]
    assert len(champions) == 3
    assert last[-1].reference_id == champions[-2]
    assert last[-2].reference_id == champions[-2]


async def test_resuming_with_another_corpus_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await searched(folder, 5)
    pool = FakePool()
    pool.facts = {"corpus_digest": "1" * 64}

    with pytest.raises(RunMismatchError, match="corpus_digest"):
        await resume(folder, _unbudgeted(), parts(pool))


async def test_the_seed_program_is_read_from_the_store_when_resuming(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    await searched(folder, 5)

    await resume(folder, settings(budget_evals=5), parts(FakePool(), ScriptedProposer()))

    with Store.open(folder) as store:
        assert next(iter(store.programs())).source == SEED_SOURCE


async def test_cancelling_the_search_abandons_training_under_way(tmp_path: Path) -> None:
    folder, chosen = tmp_path / "run", settings(budget_evals=30)
    together = parts(FakePool())

    with (
        create_run(folder, chosen, READY, together.clock) as store,
        open_session(store, folder, chosen, together) as session,
    ):
        task = asyncio.ensure_future(session.search(1))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert session.evaluator.running == ()


async def test_a_history_whose_objects_were_destroyed_is_made_again_on_resume(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "run"
    await searched(folder)
    before = commits(folder)
    shutil.rmtree(folder / REPOSITORY / "objects")
    (folder / REPOSITORY / "objects").mkdir()

    await resume(folder, settings(budget_evals=1), parts(FakePool()))

    after = commits(folder)
    assert before.items() <= after.items()
    assert is_whole(folder / REPOSITORY)


def is_whole(repository: Path) -> bool:
    check = ["git", "-C", str(repository), "fsck", "--strict"]
    return subprocess.run(check, check=False).returncode == 0  # noqa: S603 - our own words


def commits(folder: Path) -> dict[str, str]:
    with Store.open(folder, exclusive=False) as store:
        found = {p.id: store.commit_of(p.id) for p in store.programs()}
    return {program: commit for program, commit in found.items() if commit}


class FullAtTheEnd(Store):
    """A store on a disk that is full when the end of a session is to be noted."""

    error: StoreError = StoreError("database or disk is full")

    def touch_session(self, _now: datetime) -> None:
        raise self.error


async def ended_on(store: FullAtTheEnd, folder: Path) -> Ending:
    with store:
        return await go_on(store, folder, settings(budget_evals=2), parts(FakePool()))


async def test_a_disk_too_full_to_note_the_end_pauses_the_run(tmp_path: Path) -> None:
    create_run(tmp_path, settings(), READY, clock()).close()

    ending = await ended_on(FullAtTheEnd.open(tmp_path), tmp_path)

    assert ending == Ending(kind=EndingKind.PAUSED, message="database or disk is full")


async def test_a_record_refused_at_the_end_is_a_defect(tmp_path: Path) -> None:
    create_run(tmp_path, settings(), READY, clock()).close()
    store = FullAtTheEnd.open(tmp_path)
    store.error = RecordError("no session was begun")

    with pytest.raises(RecordError):
        await ended_on(store, tmp_path)


def much_better(job: Job) -> Outcome:
    """Score all but the seed program far better, as after a baseline nobody tuned."""
    found = scored(job)
    if found.bpb is None or job.source == SEED_SOURCE or job.gradients != "true":
        return found
    return replace(found, bpb=found.bpb - 0.4)


async def test_a_huge_gain_that_is_real_survives_quarantine_and_is_promoted(
    tmp_path: Path,
) -> None:
    folder, pool = tmp_path / "run", FakePool(much_better)
    await search(folder, settings(budget_evals=60), parts(pool, ScriptedProposer(0.08)))

    with Store.open(folder) as store:
        verdicts = [(v.stage, v.decision) for v in store.verdicts() if v.ordinal == 1]
    assert verdicts == [
        ("smoke", "pass"),
        ("screen", "pass"),
        ("quarantine", "pass"),
        ("gates", "pass"),
        ("race", "pass"),
        ("baseline", "pass"),
        ("replicate", "promote"),
    ]


async def test_a_screen_too_good_to_be_true_is_refused_before_the_race(tmp_path: Path) -> None:
    lucky_seed = screen_seed(1, digest(SEED_SOURCE))

    def lucky(job: Job) -> Outcome:
        found = much_better(job)
        return found if job.seed == lucky_seed else scored(job)

    folder, pool = tmp_path / "run", FakePool(lucky)
    await search(folder, settings(budget_evals=60), parts(pool, ScriptedProposer(0.022)))

    with Store.open(folder) as store:
        last = [v for v in store.verdicts() if v.ordinal == 1][-1]
        counted = findings(store).failures
    assert (last.stage, last.decision) == ("quarantine", "reject")
    assert last.reason.startswith("implausible: ")
    assert counted == {"quarantine: implausible": 1, "nothing": 500}
    assert not any(job.steps == STEPS for job in pool.jobs if job.source != SEED_SOURCE)


async def test_a_race_too_good_to_be_true_is_refused_before_the_gates(tmp_path: Path) -> None:
    raced = set(itertools.islice(race_seeds(1, digest(SEED_SOURCE), season=0), 24))

    def lucky(job: Job) -> Outcome:
        return much_better(job) if job.seed in raced else scored(job)

    folder, pool = tmp_path / "run", FakePool(lucky)
    await search(folder, settings(budget_evals=60), parts(pool, ScriptedProposer(0.022)))

    with Store.open(folder) as store:
        stages = [v.stage for v in store.verdicts() if v.ordinal == 1]
    assert stages == ["smoke", "screen", "race", "quarantine"]


async def test_a_race_winner_that_ignores_its_gradients_is_refused_before_replication(
    tmp_path: Path,
) -> None:
    def smuggled(job: Job) -> Outcome:
        return scored(replace(job, gradients=Gradients.TRUE))

    folder, pool = tmp_path / "run", FakePool(smuggled)
    await search(folder, settings(budget_evals=60), parts(pool, ScriptedProposer(0.08)))

    with Store.open(folder) as store:
        verdicts = [v for v in store.verdicts() if v.ordinal == 1]
    assert [v.stage for v in verdicts] == ["smoke", "screen", "race", "gates"]
    assert verdicts[-1].decision == "reject"
    assert verdicts[-1].reason.startswith("ignores gradients: ")


async def test_a_champions_runs_are_made_anew_when_its_season_is_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.stages.race.SEASON", 2)
    folder = tmp_path / "run"
    proposer = ScriptedProposer(0.019, 0.018, 0.015, 0.012)

    await search(folder, settings(budget_evals=60), parts(FakePool(), proposer))

    with Store.open(folder) as store:
        races = [v for v in store.verdicts() if v.stage == "race"]
    first, second, third, fourth = [set(race.seeds) for race in races[:4]]
    assert first & second
    assert third & fourth
    assert not (first | second) & (third | fourth)
    assert third <= set(itertools.islice(race_seeds(1, digest(SEED_SOURCE), season=1), 24))


async def test_a_program_refused_for_its_price_has_no_children(tmp_path: Path) -> None:
    def dear(job: Job) -> Outcome:
        return replace(scored(job), jail_cpu_s=0.01 if job.source == SEED_SOURCE else 0.03)

    folder, chosen = tmp_path / "run", settings(budget_evals=80)
    await search(folder, chosen, parts(FakePool(dear), ScriptedProposer(0.08)))

    with (
        Store.open(folder) as store,
        open_session(store, folder, settings(budget_evals=1), parts(FakePool())) as session,
    ):
        last = [v for v in store.verdicts() if v.ordinal == 1][-1]
        members = [member.ordinal for member in session.lineage.population.members]
    assert (last.stage, last.stopped) == ("replicate", "guardrail")
    assert members == [0]
