"""The matrix rule against independent references in float64, factor by factor and as a whole."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nanochat import optim
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState

SHAPES = [(6, 4), (4, 6), (5, 5)]


def gaussian(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def polynomial_of_singular_values(x: Tensor, steps: int) -> Tensor:
    """Apply the Polar Express polynomials to the singular values of one matrix, by its SVD."""
    u, s, vh = torch.linalg.svd(x / (1.01 * x.norm() + 1e-6), full_matrices=False)
    for a, b, c in optim.POLAR_EXPRESS[:steps]:
        s = a * s + b * s**3 + c * s**5
    result: Tensor = u @ torch.diag(s) @ vh
    return result


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_orthogonalization_acts_on_singular_values_alone(
    shape: tuple[int, int], steps: int
) -> None:
    stack = gaussian(3, *shape)

    got = optim.orthogonalize(stack, steps)

    for matrix, result in zip(stack, got, strict=True):
        expected = polynomial_of_singular_values(matrix, steps)
        torch.testing.assert_close(result, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("shape", [(64, 64), (256, 64), (64, 256)])
def test_orthogonalization_comes_close_to_the_polar_factor(shape: tuple[int, int]) -> None:
    # Singular values from 0.01 to 1 before; five Polar Express steps leave them in a band.
    u, _, vh = torch.linalg.svd(gaussian(*shape), full_matrices=False)
    spread = torch.logspace(-2, 0, min(shape), dtype=torch.float64)
    matrix = u @ torch.diag(spread) @ vh

    got = optim.orthogonalize(matrix[None], 5)[0]

    singular_values = torch.linalg.svdvals(got)
    assert float(singular_values.min()) > 0.85
    assert float(singular_values.max()) < 1.15
    assert float((got - u @ vh).norm() / (u @ vh).norm()) < 0.1


@pytest.mark.parametrize("steps", [0, 6, 7])
def test_a_step_count_without_coefficients_is_refused(steps: int) -> None:
    with pytest.raises(ValueError, match="ns_steps must be 1 to 5"):
        optim.orthogonalize(gaussian(1, 4, 4), steps)


def test_equilibrated_rows_have_the_mean_norm_and_keep_their_directions() -> None:
    x = gaussian(2, 5, 3)

    y = optim.equilibrate_rows(x)

    mean = x.norm(dim=2).mean(dim=1, keepdim=True)  # (2, 1)
    torch.testing.assert_close(y.norm(dim=2), mean.expand(2, 5))
    cosines = torch.nn.functional.cosine_similarity(x, y, dim=2)
    torch.testing.assert_close(cosines, torch.ones(2, 5, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_snapped_norm_is_that_of_an_orthogonal_matrix(shape: tuple[int, int]) -> None:
    x = gaussian(3, *shape)

    y = optim.snap_norm(x)

    expected = torch.full((3,), math.sqrt(min(shape)), dtype=torch.float64)
    torch.testing.assert_close(y.norm(dim=(1, 2)), expected)
    cosines = torch.nn.functional.cosine_similarity(x.flatten(1), y.flatten(1))
    torch.testing.assert_close(cosines, torch.ones(3, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES)
def test_the_factored_second_moment_keeps_each_norm(shape: tuple[int, int]) -> None:
    x = gaussian(3, *shape)

    y = optim.normalize_factored(x, {}, 0.9)

    torch.testing.assert_close(y.norm(dim=(1, 2)), x.norm(dim=(1, 2)))


@pytest.mark.parametrize(("shape", "reduced"), [((6, 4), 1), ((5, 5), 1), ((4, 6), 0)])
def test_the_factored_second_moment_evens_out_the_larger_side(
    shape: tuple[int, int], reduced: int
) -> None:
    first, second = gaussian(1, *shape, seed=1), gaussian(1, *shape, seed=2)
    state: dict[str, Tensor] = {}

    optim.normalize_factored(first, state, 0.7)
    got = optim.normalize_factored(second, state, 0.7)[0]

    powers = [x[0].square().mean(reduced, keepdim=True) for x in (first, second)]
    average = 0.3 * 0.7 * powers[0] + 0.3 * powers[1]
    expected = second[0] / average.sqrt()
    expected *= second.norm() / expected.norm()
    torch.testing.assert_close(got, expected)


def test_the_momentum_is_an_average_and_nesterov_looks_ahead() -> None:
    g1, g2 = gaussian(1, 3, 3, seed=1), gaussian(1, 3, 3, seed=2)
    at = settings(momentum=0.9, nesterov_blend=0.8)
    state: dict[str, Tensor] = {}

    optim.apply_momentum(g1, state, at)
    got = optim.apply_momentum(g2, state, at)

    average = 0.9 * 0.1 * g1 + 0.1 * g2
    torch.testing.assert_close(got, 0.2 * g2 + 0.8 * average)


def test_without_nesterov_the_update_is_the_average(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "nesterov", False)
    g = gaussian(1, 3, 3)

    got = optim.apply_momentum(g, {}, settings(momentum=0.9, nesterov_blend=0.8))

    torch.testing.assert_close(got, 0.1 * g)


@pytest.mark.parametrize(
    ("weight_norm", "expected"), [(0.0, 0.25), (0.5, 0.25), (2.0, 1.0), (4.0, 2.0), (100.0, 4.0)]
)
def test_the_trust_ratio_is_clamped_between_its_ends(weight_norm: float, expected: float) -> None:
    weights, update = torch.eye(4)[None] * weight_norm / 2, torch.eye(4)[None]

    ratio = optim.trust_ratio(update, weights, 1.0)
    half = optim.trust_ratio(update, weights, 0.5)

    assert float(ratio) == pytest.approx(expected, rel=1e-6)
    assert float(half) == pytest.approx(1.0 + 0.5 * (expected - 1.0), rel=1e-6)


def test_only_rows_above_the_threshold_are_clipped() -> None:
    # A row of an orthogonal 4 x 2 matrix has a norm of √(2/4) on average.
    unit = math.sqrt(2 / 4)
    norms = torch.tensor([0.5, 0.8, 1.0, 3.0]) * unit
    update = torch.stack([norms, torch.zeros(4)], dim=1)[None]

    clipped = optim.clip_rows(update, 0.8)

    expected = torch.tensor([0.5, 0.8, 0.8, 0.8]) * unit
    torch.testing.assert_close(clipped.norm(dim=2)[0], expected)


def test_the_global_norm_is_measured_in_orthogonal_updates() -> None:
    updates = [2.0 * torch.eye(3)[None], 2.0 * torch.eye(3, 5)[None].repeat(2, 1, 1)]

    assert optim.clip_global_norm(updates, 1.0) == pytest.approx(0.5)
    assert optim.clip_global_norm(updates, 3.0) == 1.0


def test_cautious_decay_spares_weights_the_update_enlarges(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    weights = torch.tensor([[[2.0, -2.0, 2.0, -2.0]]])
    update = torch.tensor([[[1.0, -1.0, -1.0, 1.0]]])  # subtracted: shrinks the first two

    optim.decay_weights(weights, update, 0.1)

    torch.testing.assert_close(weights, torch.tensor([[[1.8, -1.8, 2.0, -2.0]]]))


def test_decoupled_decay_shrinks_every_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "decay", "decoupled")
    weights = torch.tensor([[[2.0, -2.0]]])

    optim.decay_weights(weights, torch.tensor([[[1.0, 1.0]]]), 0.1)

    torch.testing.assert_close(weights, torch.tensor([[[1.8, -1.8]]]))


@pytest.mark.parametrize(("shape", "expected"), [((8, 2), 2.0), ((2, 8), 1.0), ((3, 3), 1.0)])
def test_only_tall_matrices_take_larger_steps(shape: tuple[int, int], expected: float) -> None:
    assert optim.aspect_scale(torch.empty(1, *shape)) == expected


def test_the_mix_blends_a_raw_part_of_equal_norm(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(optim.POLICY, "norm_snap", False)
    monkeypatch.setattr(optim.POLICY, "row_equilibration", False)
    x = 1000.0 * gaussian(2, 4, 4)

    whole = optim.direction(x, 1.0)
    mixed = optim.direction(x, 0.3)

    for matrix, orthogonal, got in zip(x, whole, mixed, strict=True):
        raw = matrix / matrix.norm() * orthogonal.norm()
        torch.testing.assert_close(got, 0.3 * orthogonal + 0.7 * raw)


@pytest.mark.parametrize("shape", [(6, 4), (4, 6), (5, 5)])
def test_a_zero_gradient_gives_a_zero_update(shape: tuple[int, int]) -> None:
    weights = gaussian(2, *shape)
    stack = optim.Stack([], torch.zeros_like(weights), weights.clone(), {})

    update = optim.muon_update(stack, settings(), optim.fixed_actuators())

    assert torch.equal(update, torch.zeros_like(weights))


def settings(**changes: float) -> optim.MatrixSettings:
    defaults = {
        "lr": 0.02,
        "weight_decay": 0.1,
        "momentum": 0.9,
        "nesterov_blend": 0.9,
        "beta2_warmup": 1.0,
    }
    return optim.MatrixSettings(**{**defaults, **changes})


class PlainMuon:
    """The shipped matrix rule for one matrix, written once more, as plainly as possible."""

    def __init__(self, weight: Tensor) -> None:
        self.weight = weight.clone()
        self.momentum = torch.zeros_like(weight)
        self.power = torch.zeros(())

    def step(self, gradient: Tensor, lr: float, mu: float, weight_decay: float) -> None:
        rows, columns = gradient.shape
        self.momentum = mu * self.momentum + (1 - mu) * gradient
        x = (1 - mu) * gradient + mu * self.momentum
        x = x / x.norm(dim=1, keepdim=True) * x.norm(dim=1).mean()
        x = polynomial_of_singular_values(x, 5)
        x = x / x.norm() * math.sqrt(min(rows, columns))
        self.power = 0.9 * self.power + 0.1 * x.square().mean(
            1 if rows >= columns else 0, keepdim=True
        )
        scaled = x / self.power.sqrt()
        x = scaled / scaled.norm() * x.norm()
        lr = lr * math.sqrt(max(1.0, rows / columns))
        decay = torch.where(x * self.weight >= 0, self.weight, torch.zeros_like(x))
        self.weight = self.weight - lr * x - lr * weight_decay * decay


def test_at_shipped_defaults_a_run_of_steps_is_upstreams_rule() -> None:
    total, checked = 400, (0, 39, 40, 139, 140, 270, 399)
    infos = [
        ParamInfo(
            tensor=torch.nn.Parameter(gaussian(*shape, seed=index)),
            name=f"m{index}",
            role=Role.MATRIX,
            layer=0,
        )
        for index, shape in enumerate([*SHAPES, *SHAPES])
    ]
    plain = [PlainMuon(info.tensor.detach()) for info in infos]
    optimizer = optim.build_optimizer(
        infos, Horizon(total_steps=total, tokens_per_step=1, model_width=768)
    )

    for step in checked:
        # trapezoid 40 up, 260 down to 5 %; momentum .85 to .97 over 400, to .90 in the warm-down
        fall = max(0.0, (step - 140) / 260)
        lr = 0.02 * min((step + 1) / 40, 1 - 0.95 * fall)
        risen = 0.85 + 0.12 * step / 400
        weight_decay = 0.28 * (1 + math.cos(math.pi * step / 400)) / 2
        for index, (info, reference) in enumerate(zip(infos, plain, strict=True)):
            gradient = gaussian(*info.shape, seed=100 * step + index)
            info.tensor.grad = gradient.clone()
            reference.step(gradient, lr, risen + (0.90 - risen) * fall, weight_decay)
        optimizer.observe(TrainingState(step=step, total_steps=total, loss=1.0, tokens=0))
        optimizer.step()

    for info, reference in zip(infos, plain, strict=True):
        torch.testing.assert_close(info.tensor.detach(), reference.weight, rtol=0, atol=1e-7)
