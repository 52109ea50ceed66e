"""A confirmation with real workers and jails, killed in the middle and gone on with."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from db.confirmations import Confirmations
from db.records import Program, Proposal
from db.store import Store
from sandbox.knobs import set_knobs
from sandbox.patches import make_patch, to_json
from sandbox.source_form import normalised_digest

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 300.0

# The gate lets training run at full strength first and calms it down.
GATED = {
    "POLICY.control": True,
    "POLICY.gate_step_fraction": -4.0,
    "POLICY.gate_bias": 2.0,
    "POLICY.orthogonal_mix_conservative": 1.0,
}


def command(module: str, *words: str) -> list[str]:
    return [sys.executable, "-m", module, *words]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one program that a search could have proposed."""
    runs = tmp_path_factory.mktemp("runs")
    words = ("--profile", "micro", "--workers", "1", "--budget-evals", "1")
    subprocess.run(  # noqa: S603 - ours
        command("agent.run", *words, "--runs-dir", str(runs)),
        check=True,
        capture_output=True,
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )
    (folder,) = runs.iterdir()
    with Store.open(folder) as store:
        seed = next(iter(store.programs()))
        source = set_knobs(seed.source, GATED)
        ordinal = 1 + max(p.ordinal for p in store.proposals())
        now = datetime.now(UTC)
        program = Program(
            id=hashlib.sha256(source.encode()).hexdigest(),
            ordinal=ordinal,
            source=source,
            normalised=normalised_digest(source),
            created_at=now,
        )
        proposal = Proposal(
            ordinal=ordinal,
            proposer="test",
            description="switch the gate on",
            patch=to_json(make_patch(seed.source, source)),
            parents=(seed.id,),
            status="accepted",
            reason="",
            program_id=program.id,
            created_at=now,
        )
        store.add_proposal(proposal, program)
    return folder


@pytest.mark.slow
def test_a_killed_confirmation_goes_on_and_judges_every_level_it_can(run: Path) -> None:
    with Store.open(run, exclusive=False) as store:
        name = f"#{max(p.ordinal for p in store.proposals())}"
    words = (str(run), "--program", name, "--quick", "--pairs", "5", "--workers", "2", "--json")
    with subprocess.Popen(  # noqa: S603 - ours
        command("agent.confirm", *words),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        process.kill()
    with Store.open(run, exclusive=False) as store:
        before = Confirmations(store).runs(1)

    ended = subprocess.run(  # noqa: S603 - ours
        command("agent.confirm", *words),
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=TIMEOUT_S,
    )

    assert first.startswith("sealed text:"), first
    assert ended.returncode in {0, 1}, ended.stderr
    with Store.open(run, exclusive=False) as store:
        runs = Confirmations(store).runs(1)
        sealed = store.looks("sealed")
    assert runs[: len(before)] == before
    assert len(sealed) == sum(run.split == "sealed" for run in runs)
    _require_judged(json.loads(ended.stdout))


def _require_judged(answer: dict[str, Any]) -> None:
    standings = [level["standing"] for level in answer["levels"]]
    assert answer["complete"]
    assert standings[0] == "held", answer["levels"][0]
    assert set(standings[1:3]) <= {"held", "failed"}
    assert standings[4] == "not_tested"
    assert answer["claim"]["number"] == 1
    assert answer["costs"]["state_bytes"] > 100_000, "43,060 parameters and their momenta"
    assert answer["stability"]["program"]["failures"] == 0
    assert len(answer["conditions"][0]["differences"]) == 5
