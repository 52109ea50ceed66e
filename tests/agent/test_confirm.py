"""The command `agent.confirm` on a fake pool: what it says, what it refuses, how it goes on."""

from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from agent import confirm, yardstick
from agent.confirmation.admission import SEALED_LOOKS
from agent.confirmation.measures import STATELESS_PROGRAM
from agent.proposals import Brief, NothingToPropose, ProposedPatch
from db.confirmations import Confirmations
from db.store import DATABASE, Store
from sandbox.executor import WorkerRefused
from sandbox.jobs import Gradients, Job, Outcome, Split, Status, Vitals, WorkerSpec
from sandbox.knobs import read_knobs, set_knobs
from sandbox.patches import make_patch
from tests.agent.fakes import (
    SEED_SOURCE,
    UNTRAINED_BPB,
    FakePool,
    FullStream,
    ScriptedProposer,
    StartingPool,
    evidence,
    noise,
    outcome,
    parts,
    settings,
)
from tests.agent.lineages import search

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs" / "confirm.md").read_text(encoding="utf-8")

Invoke = Callable[..., tuple[int, str, str]]

SMALL = ("--pairs", "5")


class DecayProposer:
    """Proposes one other weight decay, then nothing."""

    name = "decay"

    async def propose(self, brief: Brief) -> ProposedPatch:
        if brief.ordinal > 1:
            raise NothingToPropose("that was all")
        source = brief.parent.source
        return ProposedPatch(
            patch=make_patch(source, source.replace("weight_decay=0.1", "weight_decay=0.3")),
            description="more decay",
            proposer=self.name,
            parents=(brief.parent.program_id,),
        )


def trained(job: Job) -> Outcome:
    """Score best at a learning rate of .02 and, .02 bpb better, at a weight decay of .3.

    Gradient descent without knobs hardly learns.
    """
    if job.source == STATELESS_PROGRAM:
        return outcome(bpb=7.0, fingerprint="stateless")
    knobs = read_knobs(job.source)
    rate, decay = (float(knobs[f"MUON.{name}"].value) for name in ("lr", "weight_decay"))
    common, own = noise("common", job.seed), noise("own", decay, job.seed)
    gain = 0.02 if decay == 0.3 else 0.0
    bpb = 2.0 + 0.03 * abs(math.log(rate / 0.02)) - gain + 0.02 * common + 0.002 * own
    fingerprint = f"{rate}/{decay}/{job.seed}/{job.steps}/{job.gradients}"
    if job.gradients is not Gradients.TRUE:
        bpb = UNTRAINED_BPB
    return outcome(bpb=bpb, fingerprint=fingerprint, evidence=evidence(job))


def untouched(job: Job) -> Outcome:
    """Score every program the same on a seed: no edit is a win."""
    return outcome(bpb=2.0 + 0.001 * (job.seed % 7), fingerprint=f"{job.seed}/{job.steps}")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run whose only program is a real win."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    values = settings(budget_evals=40)
    asyncio.run(search(folder, values, parts(FakePool(trained), DecayProposer())))
    return folder


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Path:
    """A copy of the run's database, to be confirmed."""
    folder = tmp_path / "runs" / "run"
    folder.mkdir(parents=True)
    with (
        closing(sqlite3.connect(searched / DATABASE)) as source,
        closing(sqlite3.connect(folder / DATABASE)) as copy,
    ):
        source.backup(copy)
    return folder


@pytest.fixture
def invoke(monkeypatch: pytest.MonkeyPatch, run: Path) -> Invoke:
    """Return a function that runs the command on a pool: exit code, output, complaints."""
    monkeypatch.setattr(yardstick, "seed_program", lambda _profile: SEED_SOURCE)

    def invoked(
        *words: str, pool: FakePool | None = None, pools: dict[int, FakePool] | None = None
    ) -> tuple[int, str, str]:
        usual = pool or StartingPool(trained)

        def make_pool(spec: WorkerSpec, _workers: int) -> FakePool:
            return (pools or {}).get(spec.size, usual)

        monkeypatch.setattr(confirm, "LocalPool", make_pool)
        given = [str(run), *words, "--runs-dir", str(run.parent), "--workers", "2"]
        result = CliRunner().invoke(confirm.app, given)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return invoked


def refused(invoke: Invoke, *words: str, **pools: Any) -> str:
    code, output, complaint = invoke(*words, **pools)
    assert (code, output) == (2, ""), complaint
    assert complaint.startswith("error: ")
    assert complaint.count("\n") == 1, "one sentence"
    return complaint


def begun(run: Path) -> int:
    with Store.open(run, exclusive=False) as store:
        return len(Confirmations(store).all())


def test_a_real_win_is_claimed_with_evidence_for_every_level(invoke: Invoke) -> None:
    code, output, progress = invoke()

    assert code == 0, output
    assert "Confirmed: the win holds at level 5 of 5" in output
    for line in ("1. the evaluator", "2. the gate", "3. it beats", "4. it holds", "5. it holds"):
        assert line in output
    assert "over 20 fresh pairs, sealed text" in output
    assert progress.count("\n") == 7, "one line for every condition"


def test_an_edit_that_does_nothing_is_not_claimed(invoke: Invoke) -> None:
    code, output, _ = invoke(*SMALL, "--quick", pool=StartingPool(untouched))

    assert code == 1
    assert "Not confirmed" in output


def test_the_sealed_text_is_looked_at_by_both_programs_on_the_same_fresh_seeds(
    invoke: Invoke, run: Path
) -> None:
    with Store.open(run, exclusive=False) as store:
        used = {evaluation.seed for evaluation in store.evaluations()}
    pool = StartingPool(trained)

    invoke(*SMALL, "--quick", "--json", pool=pool)

    sealed = [j for j in pool.jobs if j.split is Split.SEALED and "rate" not in j.source_name]
    by_program = [
        {j.seed for j in sealed if j.source_name == name and j.steps == 40}
        for name in ("program.py", "baseline.py")
    ]
    assert by_program[0] == by_program[1]
    assert len(by_program[0]) == 5
    assert not used & {job.seed for job in pool.jobs}


def test_each_program_is_compared_at_its_best_learning_rate(invoke: Invoke) -> None:
    def score(job: Job) -> Outcome:
        """Let the baseline's learning rate be far too small."""
        if "weight_decay=0.1" not in job.source:
            return trained(job)
        rate = float(read_knobs(job.source)["MUON.lr"].value)
        return trained(replace(job, source=set_knobs(job.source, {"MUON.lr": rate / 3.0})))

    answer = json.loads(invoke(*SMALL, "--json", pool=StartingPool(score))[1])

    rates = answer["rates"]
    assert rates["best_program"] == 1.0
    assert rates["best_baseline"] == 2.8, "beyond the edge of the usual sweep"
    assert answer["effect_bpb"]["confirmed"]["mean"] == pytest.approx(-0.022, abs=0.006)


def test_a_baseline_that_the_sweep_misleads_is_fought_at_its_own_rates_too(
    invoke: Invoke,
) -> None:
    def score(job: Job) -> Outcome:
        """On search text the baseline looks better at higher rates; it is worse there."""
        found = trained(job)
        if found.bpb is None or job.source == STATELESS_PROGRAM:
            return found
        knobs = read_knobs(job.source)
        is_higher = (
            float(knobs["MUON.lr"].value) > 0.025 and knobs["MUON.weight_decay"].value == 0.1
        )
        bad_luck = -0.05 if is_higher and job.split is Split.SEARCH else 0.0
        no_gain = 0.02 if knobs["MUON.weight_decay"].value == 0.3 else 0.0
        return replace(found, bpb=found.bpb + bad_luck + no_gain)

    code, output, _ = invoke("--quick", "--json", pool=StartingPool(score))

    answer = json.loads(output)
    sealed = {c["title"]: c["p"] for c in answer["conditions"] if c["part"] == "sealed"}
    assert answer["rates"]["best_baseline"] == 1.41
    assert sealed["sealed text"] < 0.001, "a win that is none"
    assert code == 1
    assert answer["claim"]["p"] == sealed["sealed text, the baseline at its own learning rates"]


def test_lengths_and_sizes_are_those_of_the_plan(invoke: Invoke) -> None:
    usual, larger, smaller = (StartingPool(trained) for _ in range(3))

    invoke(*SMALL, pools={0: usual, 1: larger, -1: smaller})

    assert {job.steps for job in usual.jobs} == {10, 20, 40, 80, 160}
    assert {job.steps for job in larger.jobs} == {job.steps for job in smaller.jobs} == {10, 40}
    assert all(job.vitals for job in usual.jobs)


def test_a_model_that_cannot_be_smaller_is_no_failure(invoke: Invoke) -> None:
    class Refusing(StartingPool):
        async def __aenter__(self) -> Any:
            raise WorkerRefused("width must be at least 24, found 16")

    code, output, _ = invoke(pools={-1: Refusing()})

    assert code == 0
    assert "level 5 of 5" in output
    assert "half the depth and width: not possible here, width must be at least 24" in output


def test_a_finished_confirmation_is_told_again_without_another_look(
    invoke: Invoke, run: Path
) -> None:
    first = invoke(*SMALL, "--quick")
    idle = StartingPool(trained)

    second = invoke(*SMALL, "--quick", pool=idle)

    assert second[:2] == first[:2]
    assert "--again" in second[2]
    assert idle.jobs == []
    assert begun(run) == 1


def test_another_look_has_other_seeds_and_a_lower_level(invoke: Invoke) -> None:
    first = json.loads(invoke(*SMALL, "--quick", "--json")[1])
    second = json.loads(invoke(*SMALL, "--quick", "--json", "--again")[1])

    assert (first["claim"]["number"], second["claim"]["number"]) == (1, 2)
    assert second["claim"]["level"] < first["claim"]["level"]
    seeds = [{s for part in answer["seeds"].values() for s in part} for answer in (first, second)]
    assert not seeds[0] & seeds[1]


def test_a_stopped_confirmation_goes_on_where_it_was_with_the_same_result(
    invoke: Invoke, run: Path, tmp_path: Path
) -> None:
    stopping, rest = StartingPool(trained), StartingPool(trained)
    stopping.before_job = lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 60 else None
    others: dict[int, FakePool] = {1: StartingPool(trained), -1: StartingPool(trained)}
    shutil.copytree(run, tmp_path / "before")

    code, partial, words = invoke(*SMALL, "--json", pool=stopping)
    resumed = invoke(*SMALL, "--json", pool=rest, pools=others)
    assert begun(run) == 1
    shutil.rmtree(run)
    shutil.copytree(tmp_path / "before", run)
    undisturbed = invoke(*SMALL, "--json")

    assert code == 0
    assert "the same command goes on from here" in words
    known = json.loads(partial)
    assert (known["complete"], known["claim"]) == (False, None)
    done = {(j.source, j.seed, j.steps, j.split) for j in stopping.jobs[:58]}
    again = {(j.source, j.seed, j.steps, j.split) for j in rest.jobs}
    assert not done & again
    assert resumed[:2] == undisturbed[:2]


def test_a_stop_before_anything_was_trained_says_so(invoke: Invoke) -> None:
    class Stopping(StartingPool):
        async def __aenter__(self) -> Any:
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.sleep(1)

    assert invoke(pool=Stopping()) == (0, "", "Stopped before anything was trained.\n")


def test_a_failing_sandbox_exits_with_3_tells_what_is_known_and_is_gone_on_from(
    invoke: Invoke,
) -> None:
    def score(job: Job) -> Outcome:
        if job.split is Split.OUT_OF_DISTRIBUTION:
            return outcome(Status.SANDBOX_ERROR, reason="the zygote is gone")
        return trained(job)

    code, output, complaint = invoke(*SMALL, "--quick", pool=StartingPool(score))
    mended = invoke(*SMALL, "--quick")

    assert code == 3
    assert "Confirmed: the win holds at level 3" in output
    assert "error: the zygote is gone" in complaint
    assert mended[0] == 0


def test_a_program_that_fails_on_a_fresh_seed_is_not_claimed(invoke: Invoke) -> None:
    def score(job: Job) -> Outcome:
        if job.source_name == "program.py" and job.split is Split.SEALED:
            return outcome(Status.NAN, reason="the loss of step 3 is not finite")
        return trained(job)

    code, output, _ = invoke(*SMALL, "--quick", pool=StartingPool(score))

    assert code == 1
    assert "program.py failed on seed" in output


def test_every_field_of_the_json_is_documented(invoke: Invoke) -> None:
    vitals = Vitals(gradient_norms=((0, 1.0),), resident_bytes=5)
    pool = StartingPool(lambda job: _with(trained(job), vitals))

    answer = json.loads(invoke(*SMALL, "--json", pool=pool)[1])

    fields = {*answer, *answer["claim"], *answer["levels"][0], *answer["conditions"][0]}
    fields |= {*answer["effect_bpb"], *answer["rates"], *answer["costs"]}
    fields |= {*answer["stability"]["program"], *answer["guardrails"]}
    assert [field for field in sorted(fields) if f"`{field}`" not in DOCUMENT] == []


def _with(found: Outcome, vitals: Vitals) -> Outcome:
    fields = {name: getattr(found, name) for name in found.__dataclass_fields__}
    curve = tuple((step, 5.0 - 0.1 * step) for step in range(40))
    return Outcome(**(fields | {"vitals": vitals, "curve": curve}))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--pairs", "4"], "fewer than the test of a claim needs"),
        (["--program", "#99"], "no program #99"),
        (["--program", "#0"], "the baseline itself"),
        (["--program", "xyz"], "not the beginning of a program id"),
        (["--required-sandbox", "S9"], "S9"),
    ],
)
def test_a_bad_request_is_refused(invoke: Invoke, words: list[str], message: str) -> None:
    assert message in refused(invoke, *words)


def test_a_run_without_an_improvement_has_nothing_to_confirm(
    tmp_path: Path, invoke: Invoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "runs" / "none"
    pool = FakePool(untouched)
    asyncio.run(search(folder, settings(budget_evals=10), parts(pool, ScriptedProposer(0.03))))

    result = CliRunner().invoke(confirm.app, [str(folder)])

    assert result.exit_code == 2
    assert "nothing to confirm" in result.stderr


def test_seeds_that_were_used_are_refused(invoke: Invoke, run: Path) -> None:
    invoke(*SMALL, "--quick", "--seed", "5")

    complaint = refused(invoke, *SMALL, "--quick", "--seed", "5", "--again")

    assert "was used before, and a seed counts once" in complaint
    assert begun(run) == 1


def test_an_exhausted_sealed_text_is_refused(invoke: Invoke, run: Path) -> None:
    for _ in range(SEALED_LOOKS):
        invoke(*SMALL, "--quick", "--again")

    complaint = refused(invoke, *SMALL, "--quick", "--again")

    assert "the sealed text is exhausted" in complaint
    assert begun(run) == SEALED_LOOKS


@pytest.mark.parametrize(
    "facts", [{"device": "cuda"}, {"compile": True}, {"corpus_digest": "1" * 64}, {"steps": 80}]
)
def test_workers_unlike_those_of_the_search_are_refused(
    invoke: Invoke, run: Path, facts: dict[str, Any]
) -> None:
    pool = StartingPool(trained)
    pool.facts = facts

    assert "mixed settings: the run has" in refused(invoke, pool=pool)
    assert begun(run) == 0
    assert pool.jobs == []


def test_other_versions_in_the_middle_of_a_confirmation_are_refused(invoke: Invoke) -> None:
    stopping, other = StartingPool(trained), StartingPool(trained)
    stopping.before_job = lambda n: os.kill(os.getpid(), signal.SIGINT) if n == 30 else None
    other.facts = {"versions": {"torch": "1"}}
    invoke(*SMALL, pool=stopping)

    assert "confirmation 1 was begun with versions" in refused(invoke, *SMALL, pool=other)


def test_a_program_that_no_longer_passes_preflight_is_refused(invoke: Invoke, run: Path) -> None:
    with closing(sqlite3.connect(run / DATABASE)) as database, database:
        database.execute(
            "UPDATE proposals SET patch = replace(patch, 'weight_decay=0.3', 'weight_decay=99.0')"
        )

    complaint = refused(invoke)

    assert "no longer passes preflight" in complaint
    assert begun(run) == 0


def test_a_patch_that_makes_another_program_is_refused(invoke: Invoke, run: Path) -> None:
    with closing(sqlite3.connect(run / DATABASE)) as database, database:
        database.execute(
            "UPDATE proposals SET patch = replace(patch, 'weight_decay=0.3', 'weight_decay=0.2')"
        )

    assert "the lineage is damaged" in refused(invoke)


def test_a_run_that_is_going_is_not_confirmed(invoke: Invoke, run: Path) -> None:
    with Store.open(run):
        assert "in use" in refused(invoke)


def test_a_full_disk_behind_standard_output_exits_with_3_and_keeps_the_report(
    invoke: Invoke, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = StartingPool(trained)
    pool.before_job = lambda _: monkeypatch.setattr(sys, "stdout", FullStream())

    code, _, complaint = invoke(*SMALL, "--quick", pool=pool)

    assert code == 3
    assert "what was found is stored" in complaint
    with Store.open(run, exclusive=False) as store:
        assert Confirmations(store).report(1) is not None
