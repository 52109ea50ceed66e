"""The gate of the policy: sensors, formula, actuators, and what they do to training."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nanochat import optim
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState

ACTUATORS = ["update_multiplier", "trust_ratio_mix", "orthogonal_mix", "clip_threshold", "beta2"]


def stack(gradients: list[list[list[float]]], weights: float = 1.0) -> optim.Stack:
    g = torch.tensor(gradients)
    return optim.Stack(list(torch.full_like(g, weights).unbind()), g, torch.zeros_like(g), {})


def test_the_loss_sensor_starts_from_the_first_loss() -> None:
    sensors = optim.Sensors()

    sensors.read_loss(5.0)

    assert sensors.loss == 5.0
    assert sensors.improvement is None


def test_the_improvement_is_the_smoothed_fall_of_the_smoothed_loss() -> None:
    sensors = optim.Sensors()

    for loss in (5.0, 4.0, 6.0):
        sensors.read_loss(loss)

    second = 0.9 * 5.0 + 0.1 * 4.0
    third = 0.9 * second + 0.1 * 6.0
    assert sensors.loss == pytest.approx(third)
    assert sensors.improvement == pytest.approx(0.9 * (5.0 - second) + 0.1 * (second - third))


def test_the_gradient_norm_is_the_mean_over_stacks_of_the_largest() -> None:
    sensors = optim.Sensors()

    sensors.read_gradients([stack([[[3.0, 4.0]], [[0.0, 1.0]]]), stack([[[2.0], [0.0]]])])

    assert sensors.grad_norm == pytest.approx((5.0 + 2.0) / 2)


def test_the_alignment_is_the_cosine_of_consecutive_mean_gradients() -> None:
    sensors = optim.Sensors()
    first = stack([[[2.0, 0.0]], [[0.0, 0.0]]])

    sensors.read_gradients([first])
    assert sensors.alignment is None
    first.gradients = torch.tensor([[[1.0, 1.0]], [[0.0, 0.0]]])
    sensors.read_gradients([first])

    assert sensors.alignment == pytest.approx(math.sqrt(0.5))


def test_the_update_ratio_compares_the_step_with_the_weights_before_it() -> None:
    sensors = optim.Sensors()
    moved = stack([[[0.0, 0.0]], [[0.0, 0.0]]])
    moved.params = [torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 0.0]])]  # one is still zero
    moved.weights = torch.tensor([[[3.0, 4.5]], [[0.0, 0.5]]])

    sensors.read_update([moved])

    assert sensors.update_ratio == pytest.approx(1.0 / 5.0)


def test_the_gate_is_the_sigmoid_of_the_weighted_normalised_sensors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = {
        "gate_loss": 0.4,
        "gate_improvement": -0.8,
        "gate_grad_norm": 0.5,
        "gate_update_ratio": 0.3,
        "gate_alignment": 0.7,
        "gate_step_fraction": -0.6,
        "gate_bias": 0.2,
        "gate_sharpness": 1.5,
    }
    for key, value in weights.items():
        monkeypatch.setattr(optim.POLICY, key, value)
    sensors = optim.Sensors(
        loss=3.0, improvement=0.01, grad_norm=0.5, update_ratio=0.02, alignment=-0.25
    )

    got = optim.gate(sensors, 0.25)

    drive = 0.2 + 0.4 * 3.0 / 2.0 - 0.8 * 0.01 / 0.05 + 0.5 * 0.5 / 1.0 + 0.3 * 0.02 / 0.05
    drive += 0.7 * -0.25 - 0.6 * 0.25
    assert got == pytest.approx(1.0 / (1.0 + math.exp(-1.5 * drive)), rel=1e-12)


def test_the_gate_is_half_open_before_anything_was_read() -> None:
    assert optim.gate(optim.Sensors(), 0.0) == 0.5


def test_the_gate_survives_an_exploding_sensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "gate_grad_norm", -8.0)

    assert optim.gate(optim.Sensors(grad_norm=1e30), 0.0) == 0.0


@pytest.mark.parametrize("name", ACTUATORS)
def test_each_actuator_moves_from_its_conservative_to_its_aggressive_pole(name: str) -> None:
    poles = dict(optim.POLICY)
    calm, bold = poles[f"{name}_conservative"], poles[f"{name}_aggressive"]

    found = [getattr(optim.gated_actuators(g), name) for g in (0.0, 0.25, 1.0)]

    assert found == pytest.approx([calm, 0.75 * calm + 0.25 * bold, bold])


def test_the_gated_multiplier_multiplies_the_policys_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "update_multiplier", 2.0)

    assert optim.gated_actuators(1.0).update_multiplier == pytest.approx(2.0 * 1.15)


def train(steps: int) -> list[Tensor]:
    """Take a few steps on a fixed quadratic; return the weights afterwards."""
    generator = torch.Generator().manual_seed(5)
    shapes = [(6, 4), (4, 6), (6, 4)]
    params = [
        ParamInfo(
            tensor=torch.nn.Parameter(torch.randn(*shape, generator=generator)),
            name=str(index),
            role=Role.MATRIX,
            layer=index,
        )
        for index, shape in enumerate(shapes)
    ]
    optimizer = optim.build_optimizer(
        params, Horizon(total_steps=60, tokens_per_step=1, model_width=768)
    )
    for step in range(steps):
        loss = sum(float(param.tensor.detach().square().sum()) for param in params)
        for param in params:
            noise = torch.randn(param.shape, generator=generator)
            param.tensor.grad = 2.0 * param.tensor.detach() + noise
        optimizer.observe(TrainingState(step=step, total_steps=60, loss=loss, tokens=0))
        optimizer.step()
    return [param.tensor.detach() for param in params]


def test_without_control_the_gate_is_never_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = train(6)

    def refuse(*_: object) -> None:
        raise AssertionError("the policy was consulted")

    for name in ("gate", "gated_actuators"):
        monkeypatch.setattr(optim, name, refuse)
    for name in ("read_loss", "read_gradients", "read_update"):
        monkeypatch.setattr(optim.Sensors, name, refuse)

    assert all(map(torch.equal, train(6), expected))


def test_control_with_equal_poles_at_the_fields_is_no_control(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = train(6)
    monkeypatch.setattr(optim.POLICY, "control", True)
    fields = optim.fixed_actuators()
    for name in ACTUATORS:
        for pole in ("aggressive", "conservative"):
            value = 1.0 if name == "update_multiplier" else getattr(fields, name)
            monkeypatch.setattr(optim.POLICY, f"{name}_{pole}", value)

    for got, want in zip(train(6), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)


def test_an_open_and_a_shut_gate_train_differently(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "control", True)
    monkeypatch.setattr(optim.POLICY, "gate_bias", 8.0)
    bold = train(4)
    monkeypatch.setattr(optim.POLICY, "gate_bias", -8.0)
    calm = train(4)

    assert not any(map(torch.equal, bold, calm))
