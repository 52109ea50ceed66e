"""The AdamW part against `torch.optim.AdamW` in float64, step by step."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from nanochat import optim
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState

ROLES = [
    Role.EMBEDDING,
    Role.VALUE_EMBEDDING,
    Role.UNEMBEDDING,
    Role.RESID_SCALE,
    Role.X0_SCALE,
    Role.MIXING,
]
HORIZON = Horizon(total_steps=1000, tokens_per_step=1, model_width=768)


def make_params() -> list[ParamInfo]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(7, 4), (7, 4), (7, 4), (2,), (2,), (1, 4)]
    return [
        ParamInfo(
            tensor=torch.nn.Parameter(
                torch.randn(*shape, generator=generator, dtype=torch.float64)
            ),
            name=role.value,
            role=role,
            layer=None,
        )
        for role, shape in zip(ROLES, shapes, strict=True)
    ]


def set_gradients(tensors: list[torch.Tensor], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for tensor in tensors:
        tensor.grad = torch.randn(tensor.shape, generator=generator, dtype=torch.float64)


def constants(role: Role, step: int = 500) -> optim.AdamWConstants:
    return optim.adamw_constants(role, step, HORIZON)


def test_every_role_follows_torchs_adamw_with_its_own_constants(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(optim.ADAMW, "x0_scale_weight_decay", 0.3)
    params = make_params()
    optimizer = optim.build_optimizer(params, HORIZON)
    twins = [param.tensor.detach().clone().requires_grad_() for param in params]
    groups = [{"params": [twin]} for twin in twins]
    reference = torch.optim.AdamW(groups, foreach=False)

    for step in range(30):  # 30 steps: all within the warm-up, so the rates change
        for param, group in zip(params, reference.param_groups, strict=True):
            at = optim.adamw_constants(param.role, step, HORIZON)
            group.update(
                lr=at.lr, betas=(at.beta1, at.beta2), eps=at.eps, weight_decay=at.weight_decay
            )
        set_gradients([param.tensor for param in params], step)
        set_gradients(twins, step)
        optimizer.observe(TrainingState(step=step, total_steps=1000, loss=1.0, tokens=0))
        optimizer.step()
        reference.step()

        for param, twin in zip(params, twins, strict=True):
            torch.testing.assert_close(param.tensor, twin, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("role", "lr", "beta1", "beta2", "weight_decay"),
    [
        (Role.UNEMBEDDING, 0.008, 0.8, 0.96, 0.01),
        (Role.EMBEDDING, 0.3, 0.8, 0.995, 0.001),
        (Role.VALUE_EMBEDDING, 0.15, 0.8, 0.995, 0.01),
        (Role.RESID_SCALE, 0.005, 0.8, 0.95, 0.05),
        (Role.X0_SCALE, 0.5, 0.96, 0.95, 0.0),
        (Role.MIXING, 0.2, 0.8, 0.95, 0.0),
    ],
)
def test_the_shipped_constants_are_upstreams(
    role: Role, lr: float, beta1: float, beta2: float, weight_decay: float
) -> None:
    at = constants(role, step=100)

    found = (at.lr, at.beta1, at.beta2, at.eps, at.weight_decay)
    assert found == pytest.approx((lr, beta1, beta2, 1e-10, weight_decay), rel=1e-12)


def test_only_tables_take_larger_steps_in_narrow_models() -> None:
    narrow = replace(HORIZON, model_width=192)

    factors = {
        role: optim.adamw_constants(role, 100, narrow).lr / constants(role, 100).lr
        for role in ROLES
    }

    wide = {Role.EMBEDDING, Role.VALUE_EMBEDDING, Role.UNEMBEDDING}
    assert factors == pytest.approx({role: 2.0 if role in wide else 1.0 for role in ROLES})


def test_eps_moves_on_a_log_scale_over_training(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.ADAMW, "eps_start", 1e-6)

    found = [constants(Role.MIXING, step).eps for step in (0, 500, 1000)]

    assert found == pytest.approx([1e-6, 1e-8, 1e-10], rel=1e-9)


def test_the_betas_start_below_and_fade_to_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.ADAMW, "beta1_start_offset", -0.3)
    monkeypatch.setattr(optim.ADAMW, "beta2_start_offset", -0.1)

    found = [constants(Role.MIXING, step) for step in (0, 150, 300, 1000)]

    assert [at.beta1 for at in found] == pytest.approx([0.5, 0.65, 0.8, 0.8])
    assert [at.beta2 for at in found] == pytest.approx([0.85, 0.9, 0.95, 0.95])


def test_a_constant_gradient_moves_by_the_rate_while_the_betas_move(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # With equal gradients both averages, corrected for their bias, are exact at every step.
    monkeypatch.setattr(optim.ADAMW, "beta1_start_offset", -0.3)
    monkeypatch.setattr(optim.ADAMW, "beta2_start_offset", -0.3)
    tensor = torch.nn.Parameter(torch.zeros(3, dtype=torch.float64))
    param = ParamInfo(tensor=tensor, name="x0", role=Role.X0_SCALE, layer=None)
    optimizer = optim.build_optimizer([param], HORIZON)

    for step in range(5):
        before = tensor.detach().clone()
        tensor.grad = torch.full_like(tensor, 2.0)
        optimizer.observe(TrainingState(step=step, total_steps=1000, loss=1.0, tokens=0))
        optimizer.step()
        moved = before - tensor.detach()
        assert math.isclose(float(moved[0]), constants(Role.X0_SCALE, step).lr, rel_tol=1e-9)
