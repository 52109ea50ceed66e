"""The GPT that optimizers are judged on: nanochat's architecture, sized by one dial.

Facts about the architecture are those of upstream nanochat (MIT, 2026-07); the code is our own.
Master weights are fp32; activations take the model's `activation_dtype`. Weights are NaN until
`init_weights` is called, so that a forgotten initialisation fails at the first loss instead of
becoming a baseline.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
import torch.nn.functional as F  # noqa: N812 -- the name torch users know it by
from torch import Tensor, nn

from nanochat.contract import ParamInfo, Role

__all__ = ["GPT", "GPTConfig"]

WIDTH_PER_LAYER = 64
ROTARY_BASE = 100_000.0
# q and k are each scaled by 1.2 after their norm; one factor on their product says the same.
ATTENTION_SHARPNESS = 1.2 * 1.2
SMEAR_CHANNELS = 24  # the smear gate reads this many channels
VALUE_GATE_CHANNELS = 12  # the value gates read this many
VALUE_GATE_SCALE = 3.0
LOGIT_CAP = 15.0
VOCAB_MULTIPLE = 64
WINDOW_MULTIPLE = 128
IGNORED_TARGET = -1

Reduction = Literal["mean", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GPTConfig:
    """The shape of a model. A size left at 0 follows from `depth`, as upstream does it.

    Attributes:
        depth: number of blocks.
        vocab_size: token ids are below this; tables are padded to a multiple of 64.
        sequence_length: longest context, in tokens.
        width: residual channels; 0 means `depth` x 64, rounded up to a multiple of `head_dim`.
        head_dim: channels per head, even.
        heads: query heads; 0 means `width / head_dim`.
        kv_heads: key and value heads, a divisor of `heads`; 0 means as many as `heads`.
        window_pattern: attention spans, repeated over the layers: S for a quarter of the
            sequence, L for all of it. The last layer always sees all of it.

    Raises:
        ValueError: the sizes do not fit together.
    """

    depth: int
    vocab_size: int
    sequence_length: int
    width: int = 0
    head_dim: int = 128
    heads: int = 0
    kv_heads: int = 0
    window_pattern: str = "SSSL"

    def __post_init__(self) -> None:
        if min(self.depth, self.vocab_size, self.sequence_length, self.head_dim) < 1:
            raise ValueError(f"sizes must be positive: {self}")
        if self.head_dim % 2:
            raise ValueError(f"head_dim must be even for rotary pairs, found {self.head_dim}")
        width = self.width or _round_up(self.depth * WIDTH_PER_LAYER, self.head_dim)
        heads = self.heads or width // self.head_dim
        kv_heads = self.kv_heads or heads
        # A frozen record fills its derived sizes once, here.
        object.__setattr__(self, "width", width)
        object.__setattr__(self, "heads", heads)
        object.__setattr__(self, "kv_heads", kv_heads)
        if heads * self.head_dim != width:
            raise ValueError(f"width {width} is not {heads} heads of {self.head_dim} channels")
        if heads % kv_heads:
            raise ValueError(f"{heads} heads cannot share {kv_heads} key-value heads evenly")
        if width < SMEAR_CHANNELS:
            raise ValueError(f"width must be at least {SMEAR_CHANNELS}, found {width}")
        if not self.window_pattern or set(self.window_pattern) - {"S", "L"}:
            raise ValueError(f"window_pattern is made of S and L, found {self.window_pattern!r}")

    @property
    def padded_vocab_size(self) -> int:
        """Rows of the embedding and unembedding tables."""
        return _round_up(self.vocab_size, VOCAB_MULTIPLE)

    @property
    def windows(self) -> tuple[int, ...]:
        """How many earlier tokens each layer sees, besides the current one."""
        full = self.sequence_length
        short = min(full, _round_up(math.ceil(full / 4), WINDOW_MULTIPLE))
        spans = {"S": short, "L": full}
        pattern = self.window_pattern
        chosen = [spans[pattern[layer % len(pattern)]] for layer in range(self.depth)]
        return (*chosen[:-1], full)

    @property
    def backout_layer(self) -> int:
        """The layer whose output is partly subtracted at the end; -1 for the embedding.

        Upstream takes layer `depth // 2`. At depths 1 and 2 that is the last one, where
        subtracting only rescales a stream that is normalised next: the gradient of
        `backout_lambda` would be rounding noise, which Adam turns into a random walk across 1.
        """
        return min(self.depth // 2, self.depth - 2)

    def has_value_embedding(self, layer: int) -> bool:
        """Whether the layer mixes a value table in: every second one, the last included."""
        return layer % 2 == (self.depth - 1) % 2


class GPT(nn.Module):
    """A decoder-only transformer with rotary attention, value embeddings, smear and backout."""

    def __init__(self, config: GPTConfig, activation_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.config = config
        self.activation_dtype = activation_dtype
        kv_width = config.kv_heads * config.head_dim
        self.wte = _unset(config.padded_vocab_size, config.width)
        self.value_embeddings = nn.ParameterDict(
            {
                str(layer): _unset(config.padded_vocab_size, kv_width)
                for layer in range(config.depth)
                if config.has_value_embedding(layer)
            }
        )
        self.blocks = nn.ModuleList(_Block(config, layer) for layer in range(config.depth))
        self.lm_head = _Linear(config.width, config.padded_vocab_size)
        self.resid_lambdas = _unset(config.depth)
        self.x0_lambdas = _unset(config.depth)
        self.smear_gate = _Linear(SMEAR_CHANNELS, 1)
        self.smear_lambda = _unset(1)
        self.backout_lambda = _unset(1)
        cos, sin = _rotary_tables(config.sequence_length, config.head_dim)
        self.register_buffer("cos", cos.to(activation_dtype), persistent=False)
        self.register_buffer("sin", sin.to(activation_dtype), persistent=False)

    @torch.no_grad()
    def init_weights(self, generator: torch.Generator) -> None:
        """Draw all weights from the generator, always in the same order.

        They are drawn on the generator's device and copied: one CPU generator gives the same
        weights on every device.
        """
        width = self.config.width
        bound = math.sqrt(3.0 / width)  # a uniform of this half-width has variance 1 / width
        _draw_normal(self.wte, 0.8, generator)
        for table in self.value_embeddings.values():
            _draw_uniform(table, -bound, bound, generator)
        for block in self.blocks:
            cast(_Block, block).init_weights(generator, bound)
        _draw_normal(self.lm_head.weight, 0.001, generator)
        self.resid_lambdas.copy_(torch.linspace(1.15, 1.05, self.config.depth))
        self.x0_lambdas.copy_(torch.linspace(0.20, 0.05, self.config.depth))
        _draw_uniform(self.smear_gate.weight, 0.0, 0.02, generator)
        self.smear_lambda.zero_()
        self.backout_lambda.fill_(0.2)

    def forward(self, x: Tensor, y: Tensor, loss_reduction: Reduction = "mean") -> Tensor:
        """Compute the cross-entropy of the next tokens, in nats.

        Args:
            x: (B, T) token ids, T at most `sequence_length`.
            y: (B, T) targets; positions with -1 do not count.
            loss_reduction: `mean` over the targets that count, or `none` for (B, T) losses.

        Returns:
            A scalar, or (B, T) losses with 0 at ignored targets.
        """
        logits = self.logits(x)
        loss = F.cross_entropy(
            logits.view(-1, logits.size(-1)),
            y.reshape(-1),
            ignore_index=IGNORED_TARGET,
            reduction=loss_reduction,
        )
        return loss if loss_reduction == "mean" else loss.view(y.shape)

    def logits(self, x: Tensor) -> Tensor:
        """Compute fp32 logits of the next token, capped to +-15: (B, T) -> (B, T, vocab)."""
        T = x.size(1)
        cos, sin = self.get_buffer("cos")[:T], self.get_buffer("sin")[:T]
        h = F.embedding(x, self.wte).to(self.activation_dtype)  # (B, T, C)
        h = self._smear(_rms_norm(h))
        first, halfway = h, h
        resid, x0 = self.resid_lambdas.unbind(), self.x0_lambdas.unbind()
        for layer, block in enumerate(self.blocks):
            # At the first layer both streams are the same tensor: one product does.
            h = (resid[0] + x0[0]) * h if layer == 0 else resid[layer] * h + x0[layer] * first
            table = self.value_embeddings[str(layer)] if block.has_value_embedding else None
            values = None if table is None else F.embedding(x, table).to(h.dtype)
            h = block(h, values, cos, sin)
            if layer == self.config.backout_layer:
                halfway = h
        h = _rms_norm(h - self.backout_lambda * halfway)
        # Cropping the weight instead of the logits, and dividing before the product, spares
        # passes over the widest tensor of the model.
        weight = self.lm_head.weight[: self.config.vocab_size].to(h.dtype)
        return LOGIT_CAP * torch.tanh(F.linear(h / LOGIT_CAP, weight).float())

    def _smear(self, h: Tensor) -> Tensor:
        """Add a gated share of the previous token's embedding to each token's."""
        previous = F.pad(h[:, :-1], (0, 0, 1, 0))  # the first token has none
        gate = torch.sigmoid(self.smear_gate(h[..., :SMEAR_CHANNELS]))  # (B, T, 1)
        return h + self.smear_lambda.to(h.dtype) * gate * previous

    def param_infos(self) -> list[ParamInfo]:
        """List every parameter with its role, always in the same order."""
        return [
            ParamInfo(tensor=tensor, name=name, role=_role(name), layer=_layer(name))
            for name, tensor in self.named_parameters()
        ]

    def flops_per_token(self) -> int:
        """Estimate the floating-point operations of one token's forward and backward pass.

        Six per parameter of a linear layer, and twelve per channel and visible token of each
        attention (Chowdhery et al. 2022, PaLM, appendix B, arXiv:2204.02311), with the window
        in place of the whole sequence.
        """
        linear = sum(
            module.weight.numel() for module in self.modules() if isinstance(module, _Linear)
        )
        channels = self.config.heads * self.config.head_dim
        return 6 * linear + sum(12 * channels * window for window in self.config.windows)


class _Linear(nn.Module):
    """A matrix without bias that takes the dtype of its input."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = _unset(outputs, inputs)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


class _Attention(nn.Module):
    """Causal attention over a window, with rotary positions and normalised q and k."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.head_dim, self.window = config.head_dim, config.windows[layer]
        kv_width = config.kv_heads * config.head_dim
        self.q = _Linear(config.width, config.width)
        self.k = _Linear(config.width, kv_width)
        self.v = _Linear(config.width, kv_width)
        self.out = _Linear(config.width, config.width)
        has_values = config.has_value_embedding(layer)
        self.value_gate = _Linear(VALUE_GATE_CHANNELS, config.kv_heads) if has_values else None

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x.shape
        q = self.q(x).view(B, T, self.heads, self.head_dim)
        k = self.k(x).view(B, T, self.kv_heads, self.head_dim)
        v = self.v(x).view(B, T, self.kv_heads, self.head_dim)
        if self.value_gate is not None and values is not None:
            gate = VALUE_GATE_SCALE * torch.sigmoid(self.value_gate(x[..., :VALUE_GATE_CHANNELS]))
            v = v + gate.unsqueeze(-1) * values.view_as(v)  # (B, T, kv_heads, 1) gates
        q = _rms_norm(_rotate(q, cos, sin)).transpose(1, 2)  # (B, H, T, D)
        k = _rms_norm(_rotate(k, cos, sin)).transpose(1, 2)
        mask = None if self.window >= T - 1 else _window_mask(T, self.window, x.device)
        mixed = F.scaled_dot_product_attention(
            q,
            k,
            v.transpose(1, 2),
            attn_mask=mask,
            is_causal=mask is None,
            scale=ATTENTION_SHARPNESS / math.sqrt(self.head_dim),
            enable_gqa=self.heads != self.kv_heads,
        )
        out: Tensor = self.out(mixed.transpose(1, 2).reshape(B, T, C))
        return out


class _Block(nn.Module):
    """Attention and a squared-ReLU MLP, each on a normalised copy of the residual stream."""

    def __init__(self, config: GPTConfig, layer: int) -> None:
        super().__init__()
        self.has_value_embedding = config.has_value_embedding(layer)
        self.attention = _Attention(config, layer)
        self.up = _Linear(config.width, 4 * config.width)
        self.down = _Linear(4 * config.width, config.width)

    def init_weights(self, generator: torch.Generator, bound: float) -> None:
        attention = self.attention
        for projection in (attention.q, attention.k, attention.v):
            _draw_uniform(projection.weight, -bound, bound, generator)
        attention.out.weight.zero_()
        if attention.value_gate is not None:
            _draw_uniform(attention.value_gate.weight, 0.0, 0.02, generator)
        _draw_uniform(self.up.weight, -0.4 * bound, 0.4 * bound, generator)
        self.down.weight.zero_()

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(_rms_norm(x), values, cos, sin)
        hidden = F.relu(self.up(_rms_norm(x))).square()  # (B, T, 4C)
        out: Tensor = x + self.down(hidden)
        return out


def _unset(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.full(shape, math.nan))


def _draw_normal(weights: Tensor, std: float, generator: torch.Generator) -> None:
    drawn = torch.empty(weights.shape, device=generator.device)
    weights.copy_(drawn.normal_(0.0, std, generator=generator))


def _draw_uniform(weights: Tensor, low: float, high: float, generator: torch.Generator) -> None:
    drawn = torch.empty(weights.shape, device=generator.device)
    weights.copy_(drawn.uniform_(low, high, generator=generator))


def _round_up(number: int, multiple: int) -> int:
    return math.ceil(number / multiple) * multiple


def _rms_norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.size(-1),))


def _rotary_tables(length: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """Cosines and sines of the rotary angles: (length, 1, head_dim) each.

    Su et al. 2021, RoFormer, arXiv:2104.09864, with the two channels of a pair half a head
    apart. The second half of the sines is negated, see `_rotate`.
    """
    exponents = torch.arange(0, head_dim, 2, dtype=torch.float64) / head_dim
    angles = torch.arange(length, dtype=torch.float64)[:, None] * ROTARY_BASE**-exponents
    cos, sin = angles.cos(), angles.sin()
    return torch.cat((cos, cos), 1)[:, None], torch.cat((sin, -sin), 1)[:, None]


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each channel pair of (B, T, H, D) by its position's angle."""
    swapped = x.roll(x.size(-1) // 2, -1)  # each channel's partner
    return torch.addcmul(x * cos, swapped, sin)


def _window_mask(length: int, window: int, device: torch.device) -> Tensor:
    """True where query t (row) may see key s (column): 0 <= t - s <= window."""
    position = torch.arange(length, device=device)
    distance = position[:, None] - position[None, :]
    return (distance >= 0) & (distance <= window)


def _role(name: str) -> Role:
    if name.startswith("blocks."):
        return Role.MATRIX
    if name.startswith("value_embeddings."):
        return Role.VALUE_EMBEDDING
    return {
        "wte": Role.EMBEDDING,
        "lm_head.weight": Role.UNEMBEDDING,
        "resid_lambdas": Role.RESID_SCALE,
        "x0_lambdas": Role.X0_SCALE,
    }.get(name, Role.MIXING)


def _layer(name: str) -> int | None:
    parts = name.split(".")
    return int(parts[1]) if parts[0] in {"blocks", "value_embeddings"} else None
