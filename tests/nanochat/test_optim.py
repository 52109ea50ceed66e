"""The optimizer as a whole: its contract, its state, and its knobs being alive and in bounds."""

from __future__ import annotations

import ast
import inspect
import io
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat import optim
from nanochat.contract import Bounds, Choice, Horizon, Knobs, ParamInfo, Role, TrainingState

TABLES = ["ROUTES", "SCHEDULE", "POLICY", "MUON", "ADAMW"]
TOTAL = 30
SHAPES = {
    "blocks.0.a": (Role.MATRIX, (6, 4)),
    "blocks.0.b": (Role.MATRIX, (4, 6)),
    "blocks.1.a": (Role.MATRIX, (6, 4)),
    "wte": (Role.EMBEDDING, (7, 4)),
    "value_embeddings.1": (Role.VALUE_EMBEDDING, (7, 4)),
    "lm_head": (Role.UNEMBEDDING, (7, 4)),
    "resid": (Role.RESID_SCALE, (2,)),
    "x0": (Role.X0_SCALE, (2,)),
    "smear": (Role.MIXING, (1, 4)),
}


class Run:
    """A short training run on made-up gradients, so that only the optimizer decides."""

    def __init__(self, gradient_size: float = 1.0) -> None:
        self.gradient_size = gradient_size
        self.params = [
            ParamInfo(
                tensor=torch.nn.Parameter(gaussian(*shape, seed=index)),
                name=name,
                role=role,
                layer=None,
            )
            for index, (name, (role, shape)) in enumerate(SHAPES.items())
        ]
        self.optimizer = optim.build_optimizer(
            self.params, Horizon(total_steps=TOTAL, tokens_per_step=8, model_width=96)
        )

    def steps(self, first: int, last: int) -> Run:
        for step in range(first, last):
            for index, param in enumerate(self.params):
                seed = 1000 * (step + 1) + index
                param.tensor.grad = self.gradient_size * gaussian(*param.shape, seed=seed)
            state = TrainingState(
                step=step, total_steps=TOTAL, loss=4.0 - 0.1 * step, tokens=8 * step
            )
            self.optimizer.observe(state)
            self.optimizer.step()
        return self

    def weights(self) -> Tensor:
        return torch.cat([param.tensor.detach().flatten() for param in self.params])


def gaussian(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(autouse=True)
def short_schedules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorten every warm-up, so that a run of 30 steps sees all phases of all schedules."""
    turn(
        monkeypatch,
        {
            "SCHEDULE.warmup_steps": 3,
            "SCHEDULE.momentum_warmup_steps": 6,
            "SCHEDULE.nesterov_blend_steps": 6,
            "SCHEDULE.beta2_warmup_steps": 6,
            "ADAMW.warmup_steps": 3,
            "ADAMW.beta_warmup_steps": 6,
        },
    )


def turn(monkeypatch: pytest.MonkeyPatch, knobs: dict[str, Any]) -> None:
    for name, value in knobs.items():
        table, key = name.split(".")
        monkeypatch.setattr(getattr(optim, table), key, value)


@cache
def shipped_knobs() -> dict[str, Any]:
    """Every knob as the source declares it, whatever a fixture has changed since."""
    tree = ast.parse(inspect.getsource(optim))
    return {
        f"{node.targets[0].id}.{keyword.arg}": ast.literal_eval(keyword.value)
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Call)
        and isinstance(node.value.func, ast.Name)
        and node.value.func.id == "Knobs"
        for keyword in node.value.keywords
    }


def test_bounds_name_exactly_the_knobs_there_are() -> None:
    assert set(optim.BOUNDS) == set(shipped_knobs())
    assert {name.split(".")[0] for name in optim.BOUNDS} == set(TABLES)
    assert all(isinstance(getattr(optim, table), Knobs) for table in TABLES)


@pytest.mark.parametrize("name", sorted(optim.BOUNDS))
def test_every_shipped_knob_is_inside_its_bounds(name: str) -> None:
    value: Any = shipped_knobs()[name]
    bounds: Any = optim.BOUNDS[name]

    if isinstance(bounds, Choice):
        assert any(value is allowed or value == allowed for allowed in bounds.values)
    else:
        assert isinstance(bounds, Bounds)
        assert bounds.low <= value <= bounds.high
        assert isinstance(value, int if bounds.scale == "integer" else float)
        assert bounds.scale != "log" or bounds.low > 0


@pytest.mark.parametrize("suffix", sorted(optim.FAMILIES))
def test_every_family_is_an_ending_with_a_range(suffix: str) -> None:
    bounds = optim.FAMILIES[suffix]

    assert suffix.startswith("_")
    assert bounds.low < bounds.high


# What has to be set for a knob to matter, by the beginning of its name; the longest match counts.
GATED = {
    "POLICY.control": True,
    "POLICY.trust_ratio": "layerwise",
    "POLICY.clip": "update_rms",
    "POLICY.gate_loss": 0.2,
    "POLICY.gate_improvement": 0.2,
    "POLICY.gate_grad_norm": 0.2,
    "POLICY.gate_update_ratio": 0.2,
}
# Updates of the size of the gradients, to bring them near a floor or far beyond the weights.
RAW = {
    "POLICY.orthogonalization": "none",
    "POLICY.row_equilibration": False,
    "POLICY.norm_snap": False,
}
GRADIENT_SIZES = {"POLICY.second_moment_eps": 1e-3, "POLICY.trust_clamp_min": 1e3}
CONTEXTS: dict[str, dict[str, Any]] = {
    "": {},
    "SCHEDULE.nesterov_blend_": {"SCHEDULE.nesterov_blend": "scheduled"},
    "SCHEDULE.beta2_": {"SCHEDULE.beta2_warmup": True},
    "SCHEDULE.beta2_warmup": {},
    "SCHEDULE.beta2_warmup_steps": {"SCHEDULE.beta2_warmup": True},
    "POLICY.trust_": {"POLICY.trust_ratio": "layerwise"},
    "POLICY.trust_ratio": {},
    "POLICY.trust_clamp_max": {"POLICY.trust_ratio": "layerwise", "POLICY.trust_clamp_max": 2.0},
    "POLICY.trust_clamp_min": {"POLICY.trust_ratio": "layerwise", **RAW},
    "POLICY.clip": {"POLICY.clip_threshold": 0.5},
    "POLICY.clip_threshold": {"POLICY.clip": "update_rms"},
    "POLICY.second_moment_eps": RAW,
    "POLICY.tail_ema_mix": {"POLICY.tail_ema_horizon": 4},
    "POLICY.ema_beta": GATED,
    "POLICY.loss_normalizer": GATED,
    "POLICY.improvement_normalizer": GATED,
    "POLICY.grad_norm_normalizer": GATED,
    "POLICY.update_ratio_normalizer": GATED,
    "POLICY.gate_": GATED,
    "POLICY.update_multiplier_": GATED,
    "POLICY.trust_ratio_mix": GATED,
    "POLICY.orthogonal_mix": GATED,
    "POLICY.clip_threshold_": GATED,
    "POLICY.beta2_": GATED,
    "ADAMW.matrix_": {"ROUTES.matrix": "adamw"},
    "ADAMW.beta_warmup_steps": {"ADAMW.beta1_start_offset": -0.2},
}


def another_value(name: str, value: Any) -> Any:
    bounds: Any = optim.BOUNDS[name]
    if isinstance(bounds, Choice):
        return next(each for each in bounds.values if each != value)
    if bounds.scale == "integer":
        return value + 2 if value + 2 <= bounds.high else value - 2
    ends = (bounds.low, bounds.high)
    middle = [value + 0.3 * (end - value) for end in ends]
    return max(middle, key=lambda candidate: abs(candidate - value))


@pytest.mark.parametrize("name", sorted(optim.BOUNDS))
def test_every_knob_changes_what_is_validated(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    context = CONTEXTS[max((start for start in CONTEXTS if name.startswith(start)), key=len)]
    turn(monkeypatch, context)
    table, key = name.split(".")
    now = getattr(getattr(optim, table), key)

    def outcome() -> Tensor:
        run = Run(GRADIENT_SIZES.get(name, 1.0)).steps(0, 24)
        run.optimizer.eval()
        return run.weights()

    before = outcome()
    turn(monkeypatch, {name: another_value(name, now)})

    assert not torch.equal(outcome(), before)


MODES: dict[str, dict[str, Any]] = {
    "shipped": {},
    "controlled": {**GATED, "POLICY.tail_ema_horizon": 4},
    "all adamw": {"ROUTES.matrix": "adamw"},
    "no momentum tricks": {"POLICY.nesterov": False, "POLICY.second_moment": "none"},
}


@pytest.mark.parametrize("mode", MODES)
def test_a_restored_run_goes_on_to_the_bit(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    turn(monkeypatch, MODES[mode])
    undisturbed = Run().steps(0, 12)
    interrupted = Run().steps(0, 5)
    buffer = io.BytesIO()
    torch.save(interrupted.optimizer.state_dict(), buffer)

    resumed = Run()
    for new, old in zip(resumed.params, interrupted.params, strict=True):
        new.tensor.data.copy_(old.tensor.data)
    buffer.seek(0)
    resumed.optimizer.load_state_dict(torch.load(buffer, weights_only=True))
    resumed.steps(5, 12)

    assert torch.equal(resumed.weights(), undisturbed.weights())


@pytest.mark.parametrize("mode", MODES)
def test_equal_runs_are_equal_to_the_bit(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    turn(monkeypatch, MODES[mode])

    assert torch.equal(Run().steps(0, 8).weights(), Run().steps(0, 8).weights())


def test_validation_weights_blend_in_the_tail_average(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, {"POLICY.tail_ema_horizon": 4, "POLICY.tail_ema_mix": 0.25})
    run = Run()
    matrix, table = run.params[0].tensor, run.params[3].tensor
    average: Tensor | None = None
    for step in range(6):
        run.steps(step, step + 1)
        now = matrix.detach().clone()
        average = now if average is None else 0.75 * average + 0.25 * now
    assert average is not None
    table_before = table.detach().clone()
    before = matrix.detach().clone()

    run.optimizer.eval()

    torch.testing.assert_close(matrix.detach(), 0.75 * before + 0.25 * average)
    assert torch.equal(table.detach(), table_before)


def test_training_weights_come_back_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, {"POLICY.tail_ema_horizon": 4})
    run = Run().steps(0, 5)
    before = run.weights()

    run.optimizer.eval()
    run.optimizer.eval()
    during = run.weights()
    run.optimizer.train()

    assert not torch.equal(during, before)
    assert torch.equal(run.weights(), before)
    assert torch.equal(run.steps(5, 9).weights(), Run().steps(0, 9).weights())


def test_without_a_tail_average_validation_changes_nothing() -> None:
    run = Run().steps(0, 3)
    before = run.weights()

    run.optimizer.eval()

    assert torch.equal(run.weights(), before)


def test_a_step_on_validation_weights_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    turn(monkeypatch, {"POLICY.tail_ema_horizon": 4})
    run = Run().steps(0, 3)
    run.optimizer.eval()

    with pytest.raises(RuntimeError, match="call train"):
        run.steps(3, 4)


def test_a_step_without_a_training_state_is_refused() -> None:
    run = Run().steps(0, 1)

    with pytest.raises(RuntimeError, match="call observe"):
        run.optimizer.step()


def test_a_missing_gradient_is_named() -> None:
    run = Run()
    run.optimizer.observe(TrainingState(step=0, total_steps=TOTAL, loss=1.0, tokens=0))

    with pytest.raises(RuntimeError, match=r"shape \(7, 4\) has no gradient"):
        run.optimizer.step()


def test_a_closure_is_called_with_gradients_on() -> None:
    run = Run()
    run.optimizer.observe(TrainingState(step=0, total_steps=TOTAL, loss=1.0, tokens=0))

    def closure() -> float:
        loss = sum((param.tensor.square().sum() for param in run.params), torch.zeros(()))
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        return float(loss.detach())

    before = run.weights()
    loss = run.optimizer.step(closure)

    assert loss == pytest.approx(float(before.square().sum()), rel=1e-5)
    assert not torch.equal(run.weights(), before)


def test_a_step_writes_into_the_tensors_it_was_given() -> None:
    run = Run()
    addresses = [param.tensor.data_ptr() for param in run.params]

    run.steps(0, 2)

    assert [param.tensor.data_ptr() for param in run.params] == addresses


def test_gradients_survive_a_step() -> None:
    run = Run().steps(0, 1)

    for index, param in enumerate(run.params):
        assert param.tensor.grad is not None
        assert torch.equal(param.tensor.grad, gaussian(*param.shape, seed=1000 + index))


def test_vectors_never_follow_the_matrix_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    roles = {param.name: optim.rule_for(param) for param in Run().params}
    turn(monkeypatch, dict.fromkeys([f"ROUTES.{key}" for key in dict(optim.ROUTES)], "muon"))
    moved = {param.name: optim.rule_for(param) for param in Run().params}

    assert {name for name, rule in roles.items() if rule == "muon"} == {
        "blocks.0.a",
        "blocks.0.b",
        "blocks.1.a",
    }
    assert {name for name, rule in moved.items() if rule == "adamw"} == {"resid", "x0", "smear"}


def test_regions_are_the_scopes_and_hold_their_tables() -> None:
    lines = inspect.getsource(optim).splitlines()
    starts = [line.split()[-1] for line in lines if line.startswith("# EVOLVE-BLOCK-START ")]
    table_lines = [
        lines.index(f"{table} = Knobs(") > lines.index(f"# EVOLVE-BLOCK-START {region}")
        for table, region in zip(TABLES, starts, strict=True)
    ]

    assert starts == ["routing", "schedule", "policy", "muon", "adamw"]
    assert lines.count("# EVOLVE-BLOCK-END") == len(starts)
    assert all(table_lines)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an accelerator")
def test_on_an_accelerator_orthogonalization_agrees_with_the_cpus() -> None:
    x = gaussian(2, 64, 128, seed=1)

    got = optim.orthogonalize(x.cuda(), 5).cpu()

    expected = optim.orthogonalize(x, 5)
    assert got.dtype == torch.float32
    assert float((got - expected).norm() / expected.norm()) < 0.05  # bf16 has 8 bits
