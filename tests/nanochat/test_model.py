"""The model against a float64 re-derivation, its parts against their formulas."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from nanochat.contract import Role
from nanochat.model import GPT, GPTConfig, _rotary_tables, _rotate, _window_mask

Array = NDArray[np.float64]


def small_config(depth: int = 3, sequence_length: int = 160) -> GPTConfig:
    return GPTConfig(
        depth=depth,
        width=32,
        head_dim=8,
        kv_heads=2,
        vocab_size=70,
        sequence_length=sequence_length,
    )


def initialised(config: GPTConfig, seed: int = 0) -> GPT:
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def scrambled(config: GPTConfig) -> GPT:
    """A model with every weight away from its initial value, so that no part is switched off."""
    model = initialised(config)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return model


def reference_logits(model: GPT, ids: list[int]) -> Array:
    """Recompute the logits of one sequence in float64, one formula after the other."""
    config = model.config
    w = {name: p.detach().double().numpy() for name, p in model.named_parameters()}
    h = norm(w["wte"][ids])
    smeared = h.copy()
    for t in range(1, len(ids)):
        gate = sigmoid(w["smear_gate.weight"] @ h[t, :24])
        smeared[t] = h[t] + w["smear_lambda"] * gate * h[t - 1]
    x0 = h = smeared
    kept = x0
    for i in range(config.depth):
        h = w["resid_lambdas"][i] * h + w["x0_lambdas"][i] * x0
        h = h + reference_attention(config, w, i, norm(h), ids)
        hidden = np.maximum(norm(h) @ w[f"blocks.{i}.up.weight"].T, 0) ** 2
        h = h + hidden @ w[f"blocks.{i}.down.weight"].T
        if i == config.depth // 2:
            kept = h
    h = norm(h - w["backout_lambda"] * kept)
    logits: Array = 15 * np.tanh(h @ w["lm_head.weight"][: config.vocab_size].T / 15)
    return logits


def reference_attention(
    config: GPTConfig, w: dict[str, Array], i: int, x: Array, ids: list[int]
) -> Array:
    part = f"blocks.{i}.attention."
    length, channels = len(x), config.head_dim
    q = (x @ w[part + "q.weight"].T).reshape(length, config.heads, channels)
    k = (x @ w[part + "k.weight"].T).reshape(length, config.kv_heads, channels)
    v = (x @ w[part + "v.weight"].T).reshape(length, config.kv_heads, channels)
    if i % 2 == (config.depth - 1) % 2:
        gate = 3 * sigmoid(x[:, :12] @ w[part + "value_gate.weight"].T)
        v = v + gate[:, :, None] * w[f"value_embeddings.{i}"][ids].reshape(v.shape)
    q, k = 1.2 * norm(turned(q)), 1.2 * norm(turned(k))
    mixed = np.zeros((length, config.heads, channels))
    for head in range(config.heads):
        source = head * config.kv_heads // config.heads
        for t in range(length):
            first = max(0, t - config.windows[i])
            scores = k[first : t + 1, source] @ q[t, head] / math.sqrt(channels)
            shares = np.exp(scores - scores.max())
            mixed[t, head] = (shares / shares.sum()) @ v[first : t + 1, source]
    out: Array = mixed.reshape(length, -1) @ w[part + "out.weight"].T
    return out


def norm(x: Array) -> Array:
    eps = float(np.finfo(np.float32).eps)  # what rms_norm adds in fp32
    normed: Array = x / np.sqrt((x**2).mean(-1, keepdims=True) + eps)
    return normed


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def turned(x: Array) -> Array:
    """Rotate channel pairs (d, d + D/2) of (T, H, D) by t * 100000^(-2d/D), clockwise."""
    half = x.shape[-1] // 2
    angle = np.arange(len(x))[:, None, None] * 100_000.0 ** (-np.arange(half) / half)
    a, b = x[..., :half], x[..., half:]
    return np.concatenate(
        [a * np.cos(angle) + b * np.sin(angle), b * np.cos(angle) - a * np.sin(angle)], -1
    )


@pytest.mark.parametrize("depth", [3, 4])
def test_logits_are_those_of_the_formulas_in_float64(depth: int) -> None:
    config = small_config(depth)
    assert config.windows[0] < config.sequence_length - 1  # a short window is at work
    model = scrambled(config)
    ids = np.random.default_rng(0).integers(0, 70, 160).tolist()

    found = model.logits(torch.tensor([ids]))[0].detach().numpy()

    np.testing.assert_allclose(found, reference_logits(model, ids), rtol=2e-4, atol=2e-5)


def test_the_loss_is_the_mean_over_targets_that_count() -> None:
    model = scrambled(small_config())
    x = torch.tensor([[1, 2, 3, 4]])
    y = torch.tensor([[2, -1, 4, 5]])

    each = model(x, y, loss_reduction="none")
    mean = model(x, y)

    shares = torch.log_softmax(model.logits(x)[0], -1)
    assert each.shape == (1, 4)
    assert each[0, 1] == 0
    torch.testing.assert_close(each[0, 2], -shares[2, 4])
    torch.testing.assert_close(mean, each.sum() / 3)


def test_the_untrained_model_predicts_a_uniform_distribution() -> None:
    model = initialised(small_config())
    x = torch.arange(64).view(2, 32)

    loss = model(x, x).item()

    assert loss == pytest.approx(math.log(70), abs=0.01)


def test_a_later_token_never_changes_an_earlier_prediction() -> None:
    model = scrambled(small_config())
    x = torch.randint(0, 70, (1, 160), generator=torch.Generator().manual_seed(3))
    changed = x.clone()
    changed[0, 100] = (changed[0, 100] + 1) % 70

    before, after = model.logits(x), model.logits(changed)

    torch.testing.assert_close(before[:, :100], after[:, :100])
    assert not torch.allclose(before[:, 100], after[:, 100])


def test_rotation_keeps_the_length_of_queries() -> None:
    cos, sin = _rotary_tables(64, 16)
    x = torch.randn(2, 64, 3, 16, dtype=torch.float64)

    turned_x = _rotate(x, cos, sin)

    torch.testing.assert_close(turned_x.norm(dim=-1), x.norm(dim=-1))


def test_a_rotated_product_depends_on_the_distance_only() -> None:
    cos, sin = _rotary_tables(64, 16)
    q, k = torch.randn(16, dtype=torch.float64), torch.randn(16, dtype=torch.float64)

    turned_q = _rotate(q.expand(1, 64, 1, 16), cos, sin)[0, :, 0]
    turned_k = _rotate(k.expand(1, 64, 1, 16), cos, sin)[0, :, 0]

    products = turned_q @ turned_k.T  # (64, 64)
    for distance in (0, 1, 7):
        along = products.diagonal(-distance)
        torch.testing.assert_close(along, along[:1].expand_as(along))
    assert not math.isclose(products[0, 0], products[7, 0], rel_tol=1e-3)


def test_the_window_mask_is_that_of_its_definition() -> None:
    mask = _window_mask(9, 3, torch.device("cpu"))

    brute = [[0 <= t - s <= 3 for s in range(9)] for t in range(9)]
    assert mask.tolist() == brute


def test_windows_follow_the_pattern_and_the_last_layer_sees_everything() -> None:
    config = GPTConfig(depth=6, vocab_size=100, sequence_length=2048, window_pattern="SSSL")

    assert config.windows == (512, 512, 512, 2048, 512, 2048)


def test_a_short_window_is_rounded_up_to_128_tokens() -> None:
    config = GPTConfig(depth=2, vocab_size=100, sequence_length=600)

    assert config.windows == (256, 600)


def test_depth_alone_gives_upstreams_width_and_heads() -> None:
    config = GPTConfig(depth=5, vocab_size=32768, sequence_length=64)

    assert (config.width, config.heads, config.kv_heads) == (384, 3, 3)


@pytest.mark.parametrize(
    ("sizes", "complaint"),
    [
        ({"width": 100, "head_dim": 32}, "width 100"),
        ({"width": 64, "head_dim": 16, "kv_heads": 3}, "4 heads"),
        ({"width": 63, "head_dim": 21}, "even"),
        ({"width": 16, "head_dim": 8}, "at least 24"),
        ({"window_pattern": "SX"}, "'SX'"),
        ({"vocab_size": 0}, "positive"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(sizes: dict[str, Any], complaint: str) -> None:
    arguments: dict[str, Any] = {"depth": 1, "vocab_size": 10, "sequence_length": 8, **sizes}

    with pytest.raises(ValueError, match=complaint):
        GPTConfig(**arguments)


def test_a_forgotten_initialisation_shows_at_the_first_loss() -> None:
    model = GPT(small_config())
    x = torch.zeros(1, 4, dtype=torch.long)

    assert math.isnan(model(x, x).item())


def test_initial_weights_follow_from_the_generator_alone() -> None:
    config = small_config()

    first, again, other = (initialised(config, seed).state_dict() for seed in (7, 7, 8))

    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["wte"], other["wte"])


def test_initial_weights_have_the_stated_distributions() -> None:
    config = GPTConfig(depth=2, width=256, head_dim=64, vocab_size=4096, sequence_length=64)
    weights = dict(initialised(config).named_parameters())
    bound = math.sqrt(3 / 256)

    assert weights["wte"].std().item() == pytest.approx(0.8, rel=0.01)
    assert weights["lm_head.weight"].std().item() == pytest.approx(0.001, rel=0.01)
    for name in (
        "blocks.0.attention.q.weight",
        "blocks.1.attention.v.weight",
        "value_embeddings.1",
    ):
        assert weights[name].abs().max().item() == pytest.approx(bound, rel=0.01)
        assert weights[name].std().item() == pytest.approx(256**-0.5, rel=0.01)
    assert weights["blocks.0.up.weight"].std().item() == pytest.approx(0.4 * 256**-0.5, rel=0.01)
    for name in ("blocks.0.attention.out.weight", "blocks.1.down.weight", "smear_lambda"):
        assert not weights[name].any()
    assert weights["resid_lambdas"].tolist() == pytest.approx([1.15, 1.05])
    assert weights["x0_lambdas"].tolist() == pytest.approx([0.20, 0.05])
    assert weights["backout_lambda"].tolist() == pytest.approx([0.2])
    for name in ("smear_gate.weight", "blocks.1.attention.value_gate.weight"):
        assert 0 <= weights[name].min() < weights[name].max() <= 0.02


def test_flops_count_linear_layers_and_visible_tokens() -> None:
    config = GPTConfig(depth=2, width=64, head_dim=32, vocab_size=257, sequence_length=128)

    found = initialised(config).flops_per_token()

    blocks = 2 * 12 * 64 * 64 + 12 * 2  # q, k, v, out and the MLP; one value gate for two heads
    head = 320 * 64  # 257 ids padded to 320
    smear_gate = 24
    assert found == 6 * (blocks + head + smear_gate) + 2 * 12 * 64 * 128


def test_every_parameter_is_listed_once_with_its_role_and_layer() -> None:
    model = initialised(small_config(depth=3))

    infos = {info.name: info for info in model.param_infos()}

    assert [id(i.tensor) for i in infos.values()] == [id(p) for p in model.parameters()]
    roles = {name: info.role for name, info in infos.items()}
    assert roles["wte"] is Role.EMBEDDING
    assert roles["lm_head.weight"] is Role.UNEMBEDDING
    assert roles["value_embeddings.0"] is roles["value_embeddings.2"] is Role.VALUE_EMBEDDING
    assert roles["resid_lambdas"] is Role.RESID_SCALE
    assert roles["x0_lambdas"] is Role.X0_SCALE
    mixing = {name for name, role in roles.items() if role is Role.MIXING}
    assert mixing == {"smear_gate.weight", "smear_lambda", "backout_lambda"}
    matrices = {name for name, role in roles.items() if role is Role.MATRIX}
    assert matrices == {name for name in infos if name.startswith("blocks.")}
    assert infos["blocks.2.up.weight"].layer == infos["value_embeddings.2"].layer == 2
    assert infos["wte"].layer is None


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_backout_changes_the_prediction_at_every_depth(depth: int) -> None:
    model = scrambled(small_config(depth, sequence_length=16))
    x = torch.arange(16)[None]
    before = model.logits(x)

    with torch.no_grad():
        model.backout_lambda.fill_(0.5)

    assert (model.logits(x) - before).abs().max() > 0.01


def test_bfloat16_activations_give_nearly_the_same_fp32_loss() -> None:
    config = small_config(sequence_length=32)
    model = scrambled(config)
    half = GPT(config, torch.bfloat16)
    half.load_state_dict(model.state_dict())
    x = torch.randint(0, 70, (2, 32), generator=torch.Generator().manual_seed(3))

    loss = half(x, x)

    assert loss.dtype == torch.float32
    assert loss.item() == pytest.approx(model(x, x).item(), rel=0.02)
