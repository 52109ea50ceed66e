from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

import nanochat.optim
from nanochat.contract import Horizon
from nanochat.loop import InProcess, train
from sandbox.altered import jail_seed
from sandbox.evaluator import Evaluator, UnusableConfigurationError, WarmModel
from sandbox.jobs import Gradients, Job, Limits, Outcome, Split, Status, WorkerSpec
from sandbox.zygote_process import Zygote

STEPS = 50  # beyond the shipped warm-up of 40
SOURCE = Path(nanochat.optim.__file__).read_text(encoding="utf-8")
ADAMW = """
import torch

class Optimizer(torch.optim.AdamW):
    def observe(self, state):
        pass

def build_optimizer(params, horizon):
    return Optimizer([p.tensor for p in params], lr=LR)
"""


@pytest.fixture(scope="module")
def evaluator(zygote: Zygote) -> Evaluator:
    return Evaluator(WorkerSpec(profile="micro"), zygote)


def _run(evaluator: Evaluator, source: str, **job: object) -> Outcome:
    fields = {"seed": 3, "steps": STEPS, "limits": Limits(cpu_s=30, wall_s=60)} | job
    return evaluator.run(Job(source=source, **fields), lambda _: None)  # type: ignore[arg-type]  # shorthand


def _train_in_process(module: ModuleType, source: str, profile: str) -> tuple[float, str]:
    """Train the same job with the optimizer in this very process."""
    warm = WarmModel(WorkerSpec(profile=profile))
    warm.initialise(3)
    exec(compile(source, "optim.py", "exec"), module.__dict__)  # noqa: S102 - our own optimizer
    horizon = Horizon(
        total_steps=STEPS,
        tokens_per_step=warm.profile.tokens_per_step,
        model_width=warm.profile.width,
    )
    service = InProcess(module.build_optimizer(warm.infos, horizon))
    train(warm.model, warm.batches(3), service, steps=STEPS)
    service.enter_eval()
    return warm.validate(Split.SEARCH), warm.fingerprint()


@pytest.mark.parametrize(
    "source",
    [
        pytest.param(SOURCE, id="shipped"),
        pytest.param(
            SOURCE.replace("tail_ema_horizon=0", "tail_ema_horizon=20").replace(
                "control=False", "control=True"
            ),
            id="tail average and control on",
        ),
        pytest.param(ADAMW.replace("LR", "3e-3"), id="AdamW"),
    ],
)
def test_a_jailed_run_is_bit_identical_to_the_same_run_in_process(
    evaluator: Evaluator, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("optimizer_in_process")
    monkeypatch.setitem(__import__("sys").modules, module.__name__, module)

    outcome = _run(evaluator, source)
    bpb, fingerprint = _train_in_process(module, source, "micro")

    assert outcome.status is Status.OK, outcome.reason
    assert outcome.bpb == bpb
    assert outcome.fingerprint == fingerprint


def test_a_repeated_job_gives_the_same_bits(evaluator: Evaluator) -> None:
    first = _run(evaluator, SOURCE)
    _run(evaluator, SOURCE, seed=4)

    assert _run(evaluator, SOURCE).bpb == first.bpb


def test_the_seed_changes_the_score(evaluator: Evaluator) -> None:
    assert _run(evaluator, SOURCE).bpb != _run(evaluator, SOURCE, seed=4).bpb


def test_the_splits_are_different_texts(evaluator: Evaluator) -> None:
    scores = {_run(evaluator, SOURCE, split=split).bpb for split in Split}

    assert len(scores) == len(Split)


@pytest.mark.parametrize(
    ("source", "status"),
    [
        (ADAMW.replace("LR", "float('nan')"), Status.CRASH),  # torch refuses the rate
        (
            ADAMW.replace("LR", "1e-3") + "\nOptimizer.step = lambda self: [p.data.normal_(0, 9)"
            " for p in self.param_groups[0]['params']]",
            Status.DIVERGED,
        ),
        (
            ADAMW.replace("LR", "1e-3").replace(
                "        pass",
                "        self.param_groups[0]['params'][0].data.fill_(float('nan'))",
            ),
            Status.NAN,
        ),
        (
            ADAMW.replace("LR", "1e-3")
            + "\nOptimizer.eval = lambda self: [p.data.fill_(float('inf'))"
            " for p in self.param_groups[0]['params']]",
            Status.NAN,
        ),
        ("import os\nos.listdir('/')", Status.POLICY_VIOLATION),
        ("def build_optimizer(params):\n    pass\n", Status.CRASH),
    ],
)
def test_a_failure_is_a_status_with_a_reason_and_never_a_score(
    evaluator: Evaluator, source: str, status: Status
) -> None:
    outcome = _run(evaluator, source)

    assert outcome.status is status, outcome.reason
    assert outcome.bpb is None
    assert outcome.fingerprint is None
    assert len(outcome.reason) > 10


def test_a_failed_job_leaves_no_trace_in_the_next_one(evaluator: Evaluator) -> None:
    before = _run(evaluator, SOURCE)
    poison = ADAMW.replace("LR", "1e-3") + (
        "\nOptimizer.step = lambda self: [(p.data.fill_(7), p.grad.fill_(float('nan')))"
        " for p in self.param_groups[0]['params']] and 1 / 0"
    )
    assert _run(evaluator, poison).status is Status.CRASH

    assert _run(evaluator, SOURCE).bpb == before.bpb


def test_what_a_program_writes_beside_its_parameters_reaches_nobody(
    evaluator: Evaluator,
) -> None:
    """The maps have padding; neither the next program nor a fingerprint may see it."""
    honest = ADAMW.replace("LR", "1e-3")
    storage = "self.param_groups[0]['params'][0].untyped_storage()"
    scribble = honest.replace(
        "        pass",
        f"        whole = torch.tensor([], dtype=torch.float32).set_({storage})\n"
        "        inside = torch.zeros(len(whole), dtype=torch.bool)\n"
        "        for p in self.param_groups[0]['params']:\n"
        "            start = p.storage_offset()\n"
        "            inside[start : start + p.numel()] = True\n"
        "        print('saw', float(whole[~inside].abs().sum()), int((~inside).sum()))\n"
        "        whole[~inside] = 7.0",
    )
    reference = _run(evaluator, honest, seed=77)
    first, second = (_run(evaluator, scribble, seed=seed, steps=1) for seed in (77, 78))

    assert first.status is Status.OK, first.reason
    assert first.output_tail.split()[2] != "0"  # there is padding to write to
    assert second.output_tail.startswith("saw 0.0 ")
    assert _run(evaluator, honest, seed=77).fingerprint == reference.fingerprint
    unseen = _run(evaluator, scribble, seed=79, steps=1)
    assert unseen.fingerprint == _run(evaluator, honest, seed=79, steps=1).fingerprint


def test_a_program_that_draws_random_numbers_repeats_in_every_worker(
    evaluator: Evaluator,
) -> None:
    source = ADAMW.replace("LR", "1e-3").replace(
        "        pass",
        "        for p in self.param_groups[0]['params']:\n"
        "            p.grad.add_(torch.randn_like(p), alpha=1e-3 * len(str(list({'a', 'bc'}))))\n"
        "        print(list({'a', 'b', 'c', 'd'}))",
    )
    other_zygote = Zygote()
    try:
        other = Evaluator(WorkerSpec(profile="micro"), other_zygote)
        _run(other, source, seed=1)  # another history

        here, there = (_run(each, source, seed=2) for each in (evaluator, other))
    finally:
        other_zygote.close()

    assert here.status is Status.OK, here.reason
    assert here.bpb == there.bpb
    assert here.output_tail == there.output_tail


def test_the_first_steps_of_a_long_run_follow_the_long_runs_schedules(
    evaluator: Evaluator,
) -> None:
    """The shipped warm-up of 40 steps cannot end in a run of 8, but can in one of 50."""
    refused = _run(evaluator, SOURCE, steps=8)
    begun = _run(evaluator, SOURCE, steps=8, horizon=STEPS)
    whole = _run(evaluator, SOURCE, steps=STEPS)

    assert refused.status is Status.CRASH
    assert "HorizonError" in refused.reason
    assert begun.status is Status.OK, begun.reason
    assert begun.curve == whole.curve[:8]


def test_evidence_changes_no_bit_of_a_run(evaluator: Evaluator) -> None:
    plain = _run(evaluator, SOURCE)
    shown = _run(evaluator, SOURCE, evidence=True)

    assert (shown.bpb, shown.fingerprint) == (plain.bpb, plain.fingerprint)
    assert plain.evidence is None
    assert shown.evidence is not None
    assert shown.bpb is not None
    assert shown.evidence.untrained_bpb > shown.bpb + 1.0
    names = [info.name for info in evaluator.warm.infos]
    assert [name for name, _ in shown.evidence.movement] == names
    assert all(any(numbers) for _, numbers in shown.evidence.movement)


KEEPER = ADAMW.replace("LR", "1e-3").replace(
    "    def observe(self, state):\n        pass",
    "    kept = None\n\n    def observe(self, state):\n"
    "        self.kept = torch.ones(1 << 22) if self.kept is None else self.kept",
)


def test_vitals_change_no_bit_of_a_run_and_hold_every_gradient(evaluator: Evaluator) -> None:
    plain = _run(evaluator, SOURCE)
    watched = _run(evaluator, SOURCE, vitals=True)

    assert (watched.bpb, watched.fingerprint) == (plain.bpb, plain.fingerprint)
    assert plain.vitals is None
    assert watched.vitals is not None
    steps, norms = zip(*watched.vitals.gradient_norms, strict=True)
    assert steps == tuple(range(STEPS))
    assert all(0.0 < norm < 100.0 for norm in norms)


def test_memory_that_an_optimizer_keeps_is_seen_from_outside(evaluator: Evaluator) -> None:
    plain, keeper = (
        _run(evaluator, source, vitals=True, steps=2).vitals
        for source in (ADAMW.replace("LR", "1e-3"), KEEPER)
    )

    assert plain is not None
    assert keeper is not None
    assert plain.resident_bytes is not None
    assert keeper.resident_bytes is not None
    assert keeper.resident_bytes - plain.resident_bytes == pytest.approx(16 << 20, rel=0.1)


def test_a_run_that_fails_tells_the_vitals_it_had(evaluator: Evaluator) -> None:
    failed = _run(evaluator, ADAMW.replace("LR", "1e30"), vitals=True)

    assert failed.status is not Status.OK
    assert failed.vitals is not None
    assert 0 < len(failed.vitals.gradient_norms) <= STEPS
    assert failed.vitals.resident_bytes is None


def test_a_model_of_another_size_keeps_all_else_of_its_profile() -> None:
    usual, larger = (WarmModel(WorkerSpec(profile="micro", size=size)) for size in (0, 1))

    assert (larger.model.config.depth, larger.model.config.width) == (2, 64)
    assert larger.profile.steps == usual.profile.steps
    assert larger.corpus.digest == usual.corpus.digest


def test_a_model_that_cannot_be_smaller_is_refused() -> None:
    with pytest.raises(UnusableConfigurationError, match="width"):
        WarmModel(WorkerSpec(profile="micro", size=-1))


def test_the_untrained_score_owes_nothing_to_what_a_program_does_when_it_is_built(
    evaluator: Evaluator,
) -> None:
    honest = ADAMW.replace("LR", "1e-3")
    early = honest.replace(
        "def build_optimizer(params, horizon):\n",
        "def build_optimizer(params, horizon):\n    params[0].tensor.data.fill_(3.0)\n",
    )
    fields = {"steps": 2, "evidence": True, "seed": 81}

    found, reference = (_run(evaluator, source, **fields) for source in (early, honest))

    assert found.fingerprint != reference.fingerprint
    assert found.evidence is not None
    assert reference.evidence is not None
    assert found.evidence.untrained_bpb == reference.evidence.untrained_bpb


def test_without_gradients_an_honest_program_learns_nothing(evaluator: Evaluator) -> None:
    source = ADAMW.replace("LR", "1e-3, weight_decay=0.0")
    true, zero, permuted = (
        _run(evaluator, source, gradients=gradients, evidence=True) for gradients in Gradients
    )
    assert true.bpb is not None
    assert zero.evidence is not None
    assert permuted.bpb is not None

    assert zero.bpb == zero.evidence.untrained_bpb
    assert not any(any(numbers) for _, numbers in zero.evidence.movement)
    assert permuted.bpb > zero.bpb - 0.1 * (zero.bpb - true.bpb)


def test_altered_gradients_of_one_run_do_not_reach_the_next(evaluator: Evaluator) -> None:
    before = _run(evaluator, SOURCE)
    for gradients in (Gradients.ZERO, Gradients.PERMUTED):
        _run(evaluator, SOURCE, gradients=gradients)

    assert _run(evaluator, SOURCE).fingerprint == before.fingerprint


def test_a_program_can_tell_nothing_from_its_own_seed(
    evaluator: Evaluator,
) -> None:
    source = ADAMW.replace("LR", "1e-3").replace(
        "        pass", "        print(torch.initial_seed())"
    )
    said = {
        gradients: _run(evaluator, source, gradients=gradients, steps=1).output_tail.strip()
        for gradients in Gradients
    }

    assert set(said.values()) == {str(jail_seed(3))} != {"3"}


def test_the_curve_has_every_step(evaluator: Evaluator) -> None:
    outcome = _run(evaluator, ADAMW.replace("LR", "1e-3"), steps=12)

    assert [step for step, _ in outcome.curve] == list(range(12))
    assert outcome.curve[-1][1] < outcome.curve[0][1]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (WorkerSpec(profile="nope"), "unknown profile"),
        (WorkerSpec(profile="micro", data_path="missing.txt"), "missing.txt"),
        (WorkerSpec(profile="micro", device="abacus"), "abacus"),
        (WorkerSpec(profile="micro", tokenizer="runes"), "runes"),
    ],
)
def test_an_unusable_configuration_says_what_is_wrong(
    zygote: Zygote, spec: WorkerSpec, words: str
) -> None:
    with pytest.raises(UnusableConfigurationError, match=words):
        Evaluator(spec, zygote)
