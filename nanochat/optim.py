"""Muon for the matrices, AdamW for the rest: the one file that NanoEvolve evolves.

Read it from the bottom up: `build_optimizer` makes a `MuonAdamW`, whose `step` is one page. What
it calls lies in five regions, each between `EVOLVE-BLOCK-START` and `EVOLVE-BLOCK-END`, which a
search may rewrite; all other lines are locked.

    routing    which parameter follows which rule
    schedule   what changes over training for the matrices
    policy     the switches of the matrix rule, and a gate that moves five of them with training
    muon       the matrix rule, one small function per factor
    adamw      the rule for embeddings, head and scalars, with a schedule of its own

Every tunable constant is a *knob* in a table of its region. A tool may change it within `BOUNDS`,
or add one whose name ends like a member of `FAMILIES`; it reads both from the syntax tree.

As shipped the optimizer is the rule of upstream nanochat as of July 2026. Matrices of one shape
are worked on as one stack: (K, m, n) is K matrices with m rows (outputs) and n columns (inputs).
Tables are read at every step, so a program may set knobs after importing this module. Nothing
here may use `torch.compile`: it would need a compiler where candidates run.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from nanochat.contract import Bounds, Choice, Horizon, Knobs, ParamInfo, Role, TrainingState

__all__ = ["BOUNDS", "FAMILIES", "HorizonError", "MuonAdamW", "build_optimizer"]

BOUNDS = {
    # routing
    "ROUTES.matrix": Choice(("muon", "adamw")),
    "ROUTES.embedding": Choice(("adamw", "muon")),
    "ROUTES.value_embedding": Choice(("adamw", "muon")),
    "ROUTES.unembedding": Choice(("adamw", "muon")),
    # schedule
    "SCHEDULE.warmup_steps": Bounds(0, 1000, "integer"),
    "SCHEDULE.warmdown_fraction": Bounds(0.0, 1.0),
    "SCHEDULE.final_lr_fraction": Bounds(0.0, 1.0),
    "SCHEDULE.momentum_start": Bounds(0.0, 0.999),
    "SCHEDULE.momentum_peak": Bounds(0.0, 0.999),
    "SCHEDULE.momentum_end": Bounds(0.0, 0.999),
    "SCHEDULE.momentum_warmup_steps": Bounds(0, 2000, "integer"),
    "SCHEDULE.nesterov_blend": Choice(("momentum", "scheduled")),
    "SCHEDULE.nesterov_blend_start": Bounds(0.0, 1.0),
    "SCHEDULE.nesterov_blend_end": Bounds(0.0, 1.0),
    "SCHEDULE.nesterov_blend_steps": Bounds(0, 2000, "integer"),
    "SCHEDULE.beta2_warmup": Choice((False, True)),
    "SCHEDULE.beta2_start": Bounds(0.0, 0.999),
    "SCHEDULE.beta2_warmup_steps": Bounds(0, 2000, "integer"),
    "SCHEDULE.weight_decay_shape": Choice(("constant", "linear", "cosine")),
    # policy: the switches
    "POLICY.momentum_placement": Choice(("pre_orthogonal", "post_orthogonal")),
    "POLICY.nesterov": Choice((False, True)),
    "POLICY.orthogonalization": Choice(("polar_express", "none")),
    "POLICY.ns_steps": Bounds(1, 5, "integer"),
    "POLICY.row_equilibration": Choice((False, True)),
    "POLICY.norm_snap": Choice((False, True)),
    "POLICY.update_multiplier": Bounds(0.1, 4.0, "log"),
    "POLICY.lr_aspect_scale": Choice((False, True)),
    "POLICY.trust_ratio": Choice(("none", "layerwise")),
    "POLICY.trust_clamp_min": Bounds(0.01, 1.0, "log"),
    "POLICY.trust_clamp_max": Bounds(1.0, 10.0, "log"),
    "POLICY.trust_eps": Bounds(1e-12, 1e-3, "log"),
    "POLICY.clip": Choice(("none", "update_rms", "global_norm")),
    "POLICY.clip_threshold": Bounds(1e-3, 10.0, "log"),
    "POLICY.decay": Choice(("none", "decoupled", "cautious")),
    "POLICY.second_moment": Choice(("none", "factored_rms")),
    "POLICY.beta2": Bounds(0.0, 0.999),
    "POLICY.second_moment_eps": Bounds(1e-16, 1e-4, "log"),
    "POLICY.tail_ema_horizon": Bounds(0, 2000, "integer"),
    "POLICY.tail_ema_mix": Bounds(0.0, 1.0),
    # policy: the gate
    "POLICY.control": Choice((False, True)),
    "POLICY.ema_beta": Bounds(0.0, 0.999),
    "POLICY.loss_normalizer": Bounds(0.01, 100.0, "log"),
    "POLICY.improvement_normalizer": Bounds(1e-4, 10.0, "log"),
    "POLICY.grad_norm_normalizer": Bounds(1e-3, 1000.0, "log"),
    "POLICY.update_ratio_normalizer": Bounds(1e-4, 10.0, "log"),
    "POLICY.gate_loss": Bounds(-8.0, 8.0),
    "POLICY.gate_improvement": Bounds(-8.0, 8.0),
    "POLICY.gate_grad_norm": Bounds(-8.0, 8.0),
    "POLICY.gate_update_ratio": Bounds(-8.0, 8.0),
    "POLICY.gate_alignment": Bounds(-8.0, 8.0),
    "POLICY.gate_step_fraction": Bounds(-8.0, 8.0),
    "POLICY.gate_bias": Bounds(-8.0, 8.0),
    "POLICY.gate_sharpness": Bounds(0.01, 20.0, "log"),
    # policy: the two poles of each actuator
    "POLICY.update_multiplier_aggressive": Bounds(0.1, 4.0, "log"),
    "POLICY.update_multiplier_conservative": Bounds(0.1, 4.0, "log"),
    "POLICY.trust_ratio_mix_aggressive": Bounds(0.0, 1.0),
    "POLICY.trust_ratio_mix_conservative": Bounds(0.0, 1.0),
    "POLICY.orthogonal_mix_aggressive": Bounds(0.0, 1.0),
    "POLICY.orthogonal_mix_conservative": Bounds(0.0, 1.0),
    "POLICY.clip_threshold_aggressive": Bounds(1e-3, 10.0, "log"),
    "POLICY.clip_threshold_conservative": Bounds(1e-3, 10.0, "log"),
    "POLICY.beta2_aggressive": Bounds(0.0, 0.999),
    "POLICY.beta2_conservative": Bounds(0.0, 0.999),
    # muon
    "MUON.lr": Bounds(1e-4, 0.5, "log"),
    "MUON.weight_decay": Bounds(0.0, 2.0),
    # adamw
    "ADAMW.embedding_lr": Bounds(1e-4, 3.0, "log"),
    "ADAMW.embedding_beta1": Bounds(0.5, 0.995),
    "ADAMW.embedding_beta2": Bounds(0.5, 0.9999),
    "ADAMW.embedding_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.value_embedding_lr": Bounds(1e-4, 3.0, "log"),
    "ADAMW.value_embedding_beta1": Bounds(0.5, 0.995),
    "ADAMW.value_embedding_beta2": Bounds(0.5, 0.9999),
    "ADAMW.value_embedding_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.unembedding_lr": Bounds(1e-5, 1.0, "log"),
    "ADAMW.unembedding_beta1": Bounds(0.5, 0.995),
    "ADAMW.unembedding_beta2": Bounds(0.5, 0.9999),
    "ADAMW.unembedding_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.resid_scale_lr": Bounds(1e-5, 1.0, "log"),
    "ADAMW.resid_scale_beta1": Bounds(0.5, 0.995),
    "ADAMW.resid_scale_beta2": Bounds(0.5, 0.9999),
    "ADAMW.resid_scale_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.x0_scale_lr": Bounds(1e-5, 3.0, "log"),
    "ADAMW.x0_scale_beta1": Bounds(0.5, 0.995),
    "ADAMW.x0_scale_beta2": Bounds(0.5, 0.9999),
    "ADAMW.x0_scale_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.mixing_lr": Bounds(1e-5, 3.0, "log"),
    "ADAMW.mixing_beta1": Bounds(0.5, 0.995),
    "ADAMW.mixing_beta2": Bounds(0.5, 0.9999),
    "ADAMW.mixing_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.matrix_lr": Bounds(1e-5, 0.3, "log"),
    "ADAMW.matrix_beta1": Bounds(0.5, 0.995),
    "ADAMW.matrix_beta2": Bounds(0.5, 0.9999),
    "ADAMW.matrix_weight_decay": Bounds(0.0, 1.0),
    "ADAMW.eps_start": Bounds(1e-16, 1e-3, "log"),
    "ADAMW.eps_end": Bounds(1e-16, 1e-3, "log"),
    "ADAMW.beta1_start_offset": Bounds(-0.5, 0.0),
    "ADAMW.beta2_start_offset": Bounds(-0.5, 0.0),
    "ADAMW.beta_warmup_steps": Bounds(0, 2000, "integer"),
    "ADAMW.warmup_steps": Bounds(0, 1000, "integer"),
    "ADAMW.warmdown_fraction": Bounds(0.0, 1.0),
    "ADAMW.final_lr_fraction": Bounds(0.0, 1.0),
}

FAMILIES = {
    "_lr": Bounds(1e-5, 10.0, "log"),
    "_multiplier": Bounds(0.1, 4.0, "log"),
    "_scale": Bounds(0.01, 100.0, "log"),
    "_momentum": Bounds(0.0, 0.999),
    "_beta": Bounds(0.0, 0.9999),
    "_beta1": Bounds(0.0, 0.9999),
    "_beta2": Bounds(0.0, 0.9999),
    "_eps": Bounds(1e-16, 1e-3, "log"),
    "_weight_decay": Bounds(0.0, 2.0),
    "_steps": Bounds(0, 2000, "integer"),
    "_fraction": Bounds(0.0, 1.0),
    "_mix": Bounds(0.0, 1.0),
    "_blend": Bounds(0.0, 1.0),
    "_threshold": Bounds(1e-3, 10.0, "log"),
    "_exponent": Bounds(-4.0, 4.0),
    "_weight": Bounds(-8.0, 8.0),
    "_bias": Bounds(-8.0, 8.0),
    "_sharpness": Bounds(0.01, 20.0, "log"),
}

# One odd quintic a·s + b·s³ + c·s⁵ of the singular values per iteration, each the best that can
# follow the ones before it: Polar Express, Amsel et al. 2025, arXiv:2505.16932. These are for
# five iterations, with a safety factor of 0.02 and a cushion of 2; a sixth is not among them.
POLAR_EXPRESS = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)

MATRIX_DIMENSIONS = 2


class HorizonError(ValueError):
    """A training run is too short for the schedules to take their course.

    Attributes:
        total_steps: length of the run.
        needed_steps: the shortest run these knobs allow.
    """

    def __init__(self, *, total_steps: int, needed_steps: int, knob: str) -> None:
        super().__init__(
            f"a run of {total_steps} steps is shorter than the schedules need: {knob} asks for "
            f"at least {needed_steps} steps; train longer or lower {knob}"
        )
        self.total_steps = total_steps
        self.needed_steps = needed_steps


@dataclass(slots=True)
class Stack:
    """Matrices of one shape, worked on as one.

    A step fills `gradients` and `weights`, the matrix rule changes `weights` in place, and the
    optimizer writes them back. Tensors that the rule keeps in `state` are saved and restored.
    """

    params: list[Tensor]  # K tensors (m, n)
    gradients: Tensor  # (K, m, n)
    weights: Tensor  # (K, m, n)
    state: dict[str, Tensor]

    @classmethod
    def of(cls, params: list[Tensor]) -> Stack:
        """Make the stack of these parameters."""
        shape = (len(params), *params[0].shape)
        return cls(params, params[0].new_empty(shape), params[0].new_empty(shape), {})

    def gather(self, state: dict[str, Tensor]) -> None:
        """Copy gradients and weights in, and take the state to work with."""
        torch.stack([gradient_of(param) for param in self.params], out=self.gradients)
        torch.stack(self.params, out=self.weights)
        self.state = state

    def scatter(self) -> None:
        """Copy the weights back into the parameters."""
        torch._foreach_copy_(self.params, list(self.weights.unbind()))


def gradient_of(tensor: Tensor) -> Tensor:
    """Give a parameter's gradient.

    Raises:
        RuntimeError: there is none.
    """
    if tensor.grad is None:
        raise RuntimeError(f"a parameter of shape {tuple(tensor.shape)} has no gradient")
    return tensor.grad


def ramp(step: int, steps: int) -> float:
    """Rise linearly from 0 at step 0 to 1 at step `steps`, then stay; no steps mean 1 at once."""
    return min(1.0, step / steps) if steps > 0 else 1.0


def warmdown_progress(step: int, total_steps: int, fraction: float) -> float:
    """Rise linearly from 0 to 1 over the last `fraction` of training; 1 would be step `total`."""
    steps = round(fraction * total_steps)
    return max(0.0, 1.0 - (total_steps - step) / steps) if steps > 0 else 0.0


def trapezoid(
    step: int, total_steps: int, warmup_steps: int, warmdown_fraction: float, final_fraction: float
) -> float:
    """Give the learning rate at `step` as a fraction of its peak: up, flat, down to `final`.

    The warm-up reaches 1 with its last step, the warm-down would reach `final_fraction` one step
    after the last. In a run so short that they overlap, the lower of the two counts.
    """
    up = min(1.0, (step + 1) / warmup_steps) if warmup_steps > 0 else 1.0
    down = 1.0 - (1.0 - final_fraction) * warmdown_progress(step, total_steps, warmdown_fraction)
    return min(up, down)


def frobenius(x: Tensor) -> Tensor:
    """Give the Frobenius norm of each matrix: (K, m, n) -> (K, 1, 1)."""
    norm: Tensor = torch.linalg.vector_norm(x, dim=(-2, -1), keepdim=True)
    return norm


# EVOLVE-BLOCK-START routing
ROUTES = Knobs(
    matrix="muon",
    embedding="adamw",
    value_embedding="adamw",
    unembedding="adamw",
)


def rule_for(param: ParamInfo) -> str:
    """Name the rule a parameter follows: "muon" (two dimensions only) or "adamw"."""
    if param.tensor.ndim != MATRIX_DIMENSIONS:
        return "adamw"
    return str(dict(ROUTES).get(param.role, "adamw"))


# EVOLVE-BLOCK-END


# EVOLVE-BLOCK-START schedule
SCHEDULE = Knobs(
    warmup_steps=40,
    warmdown_fraction=0.65,
    final_lr_fraction=0.05,
    momentum_start=0.85,
    momentum_peak=0.97,
    momentum_end=0.90,
    momentum_warmup_steps=400,
    nesterov_blend="momentum",  # "scheduled": decoupled from the momentum, see the next three
    nesterov_blend_start=0.7,
    nesterov_blend_end=0.95,
    nesterov_blend_steps=500,
    beta2_warmup=False,
    beta2_start=0.8,
    beta2_warmup_steps=500,
    weight_decay_shape="cosine",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class MatrixSettings:
    """What the schedules prescribe for the matrices at one step, before the policy acts."""

    lr: float
    weight_decay: float
    momentum: float
    nesterov_blend: float
    beta2_warmup: float  # 0 at the start of the warm-up, 1 from its end


def matrix_settings(step: int, total_steps: int) -> MatrixSettings:
    """Evaluate every schedule of the matrices at `step`, counted from 0."""
    lr_fraction = trapezoid(
        step,
        total_steps,
        SCHEDULE.warmup_steps,
        SCHEDULE.warmdown_fraction,
        SCHEDULE.final_lr_fraction,
    )
    momentum = momentum_at(step, total_steps)
    return MatrixSettings(
        lr=MUON.lr * lr_fraction,
        weight_decay=MUON.weight_decay * weight_decay_fraction(step / total_steps),
        momentum=momentum,
        nesterov_blend=nesterov_blend_at(step, momentum),
        beta2_warmup=ramp(step, SCHEDULE.beta2_warmup_steps) if SCHEDULE.beta2_warmup else 1.0,
    )


def momentum_at(step: int, total_steps: int) -> float:
    """Rise from start to peak over the momentum's warm-up, fall to its end in the warm-down.

    In a run so short that both overlap, the fall starts from where the rise has come to.
    """
    low, peak, end = SCHEDULE.momentum_start, SCHEDULE.momentum_peak, SCHEDULE.momentum_end
    risen = low + (peak - low) * ramp(step, SCHEDULE.momentum_warmup_steps)
    falling = warmdown_progress(step, total_steps, SCHEDULE.warmdown_fraction)
    return float(risen + (end - risen) * falling)


def nesterov_blend_at(step: int, momentum: float) -> float:
    """Give the weight of the momentum buffer in the look-ahead; coupled, it is the momentum."""
    if SCHEDULE.nesterov_blend == "momentum":
        return momentum
    start, end = SCHEDULE.nesterov_blend_start, SCHEDULE.nesterov_blend_end
    return float(start + (end - start) * ramp(step, SCHEDULE.nesterov_blend_steps))


def weight_decay_fraction(progress: float) -> float:
    """Give the share of the weight decay left when `progress` of the training is over."""
    if SCHEDULE.weight_decay_shape == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * progress))
    return 1.0 - progress if SCHEDULE.weight_decay_shape == "linear" else 1.0


# EVOLVE-BLOCK-END


# EVOLVE-BLOCK-START policy
POLICY = Knobs(
    # the factors of the matrix rule
    momentum_placement="pre_orthogonal",
    nesterov=True,
    orthogonalization="polar_express",
    ns_steps=5,
    row_equilibration=True,
    norm_snap=True,
    second_moment="factored_rms",
    beta2=0.9,
    second_moment_eps=1e-10,
    trust_ratio="none",
    trust_clamp_min=0.25,
    trust_clamp_max=4.0,
    trust_eps=1e-8,
    clip="none",
    clip_threshold=1.0,  # 1 is the size of an orthogonal update
    update_multiplier=1.0,
    lr_aspect_scale=True,
    decay="cautious",
    # weights to validate with: tail_ema_mix of an average over about tail_ema_horizon steps
    tail_ema_horizon=0,
    tail_ema_mix=0.6,
    # the gate: six sensors, smoothed; off unless control is set
    control=False,
    ema_beta=0.9,
    loss_normalizer=2.0,
    improvement_normalizer=0.05,
    grad_norm_normalizer=1.0,
    update_ratio_normalizer=0.05,
    gate_loss=0.0,
    gate_improvement=0.0,
    gate_grad_norm=0.0,
    gate_update_ratio=0.0,
    gate_alignment=0.0,
    gate_step_fraction=0.0,
    gate_bias=0.0,
    gate_sharpness=1.0,
    # the actuators: their values at gate 1 (aggressive) and gate 0 (conservative)
    update_multiplier_aggressive=1.15,
    update_multiplier_conservative=0.85,
    trust_ratio_mix_aggressive=1.0,
    trust_ratio_mix_conservative=0.0,
    orthogonal_mix_aggressive=1.0,
    orthogonal_mix_conservative=0.35,
    clip_threshold_aggressive=2.0,
    clip_threshold_conservative=0.5,
    beta2_aggressive=0.90,
    beta2_conservative=0.99,
)


@dataclass(slots=True, kw_only=True)
class Sensors:
    """Smoothed readings of the training run; None until there is something to read.

    Every average starts from its first value, so none of them has to climb out of a zero.
    """

    loss: float | None = None  # nats
    improvement: float | None = None  # fall of the smoothed loss per step, nats
    grad_norm: float | None = None  # mean over stacks of the largest norm of one matrix
    update_ratio: float | None = None  # size of a step relative to the weights
    alignment: float | None = None  # cosine of this gradient and the last

    def read_loss(self, loss: float) -> None:
        """Take in the training loss of this step."""
        before = self.loss
        self.loss = smooth(before, loss)
        if before is not None:
            self.improvement = smooth(self.improvement, before - self.loss)

    def read_gradients(self, stacks: Sequence[Stack]) -> None:
        """Take in this step's gradients; their means are kept to compare with the next."""
        norms = [float(frobenius(stack.gradients).max()) for stack in stacks]
        self.grad_norm = smooth(self.grad_norm, sum(norms) / len(norms))
        cosines = []
        for stack in stacks:
            mean = stack.gradients.mean(0).flatten()  # (m·n,)
            last = stack.state.get("mean_gradient")
            if last is not None:
                cosines.append(float(torch.cosine_similarity(mean, last, dim=0)))
            stack.state["mean_gradient"] = mean
        if cosines:
            self.alignment = smooth(self.alignment, sum(cosines) / len(cosines))

    def read_update(self, stacks: Sequence[Stack]) -> None:
        """Take in the step just made, while the parameters still hold the weights before it.

        A ratio of sums: the mean of the ratios is infinite in the first step, because some
        matrices start at zero.
        """
        moved = weight = 0.0
        for stack in stacks:
            before = torch.stack(stack.params)  # (K, m, n)
            moved += float(frobenius(stack.weights - before).sum())
            weight += float(frobenius(before).sum())
        self.update_ratio = smooth(self.update_ratio, moved / max(weight, 1e-12))


def smooth(average: float | None, value: float) -> float:
    """Move an exponential average towards `value`; the first value starts it."""
    if average is None:
        return value
    return float(POLICY.ema_beta * average + (1.0 - POLICY.ema_beta) * value)


def gate(sensors: Sensors, step_fraction: float) -> float:
    """Turn the readings into a number between 0 (be conservative) and 1 (be aggressive)."""
    drive = (
        POLICY.gate_bias
        + POLICY.gate_loss * (sensors.loss or 0.0) / POLICY.loss_normalizer
        + POLICY.gate_improvement * (sensors.improvement or 0.0) / POLICY.improvement_normalizer
        + POLICY.gate_grad_norm * (sensors.grad_norm or 0.0) / POLICY.grad_norm_normalizer
        + POLICY.gate_update_ratio * (sensors.update_ratio or 0.0) / POLICY.update_ratio_normalizer
        + POLICY.gate_alignment * (sensors.alignment or 0.0)
        + POLICY.gate_step_fraction * step_fraction
    )
    # tanh instead of 1 / (1 + exp(-x)): the same function, without an overflow
    return 0.5 * (1.0 + math.tanh(0.5 * POLICY.gate_sharpness * drive))


@dataclass(frozen=True, slots=True, kw_only=True)
class Actuators:
    """The five dials of the matrix rule that the gate can turn."""

    update_multiplier: float
    trust_ratio_mix: float
    orthogonal_mix: float
    clip_threshold: float
    beta2: float


def fixed_actuators() -> Actuators:
    """Set the dials as the policy's fields say: what happens without control."""
    return Actuators(
        update_multiplier=POLICY.update_multiplier,
        trust_ratio_mix=1.0,
        orthogonal_mix=1.0,
        clip_threshold=POLICY.clip_threshold,
        beta2=POLICY.beta2,
    )


def gated_actuators(g: float) -> Actuators:
    """Set each dial to g · aggressive + (1 - g) · conservative."""
    calm = 1.0 - g
    return Actuators(
        update_multiplier=POLICY.update_multiplier
        * (g * POLICY.update_multiplier_aggressive + calm * POLICY.update_multiplier_conservative),
        trust_ratio_mix=g * POLICY.trust_ratio_mix_aggressive
        + calm * POLICY.trust_ratio_mix_conservative,
        orthogonal_mix=g * POLICY.orthogonal_mix_aggressive
        + calm * POLICY.orthogonal_mix_conservative,
        clip_threshold=g * POLICY.clip_threshold_aggressive
        + calm * POLICY.clip_threshold_conservative,
        beta2=g * POLICY.beta2_aggressive + calm * POLICY.beta2_conservative,
    )


# EVOLVE-BLOCK-END


# EVOLVE-BLOCK-START muon
MUON = Knobs(
    lr=0.02,
    weight_decay=0.28,
)


def muon_step(stacks: Sequence[Stack], at: MatrixSettings, dials: Actuators) -> None:
    """Change the weights of all stacks by one step of the matrix rule."""
    updates = [muon_update(stack, at, dials) for stack in stacks]
    scale = clip_global_norm(updates, dials.clip_threshold) if POLICY.clip == "global_norm" else 1.0
    for stack, update in zip(stacks, updates, strict=True):
        lr = at.lr * aspect_scale(update) if POLICY.lr_aspect_scale else at.lr
        if POLICY.decay != "none" and at.weight_decay > 0.0:
            decay_weights(stack.weights, update, lr * at.weight_decay)
        stack.weights.add_(update, alpha=-lr * scale * dials.update_multiplier)
        if POLICY.tail_ema_horizon > 0:
            average_tail(stack)


def muon_update(stack: Stack, at: MatrixSettings, dials: Actuators) -> Tensor:
    """Turn gradients into an update of about the size of an orthogonal matrix: (K, m, n)."""
    x = stack.gradients
    if POLICY.momentum_placement == "pre_orthogonal":
        x = apply_momentum(x, stack.state, at)
        x = direction(x, dials.orthogonal_mix)
    else:
        x = direction(x, dials.orthogonal_mix)
        x = apply_momentum(x, stack.state, at)
    if POLICY.second_moment == "factored_rms":
        beta2 = SCHEDULE.beta2_start + (dials.beta2 - SCHEDULE.beta2_start) * at.beta2_warmup
        x = normalize_factored(x, stack.state, beta2 if SCHEDULE.beta2_warmup else dials.beta2)
    if POLICY.trust_ratio == "layerwise":
        x = x * trust_ratio(x, stack.weights, dials.trust_ratio_mix)
    if POLICY.clip == "update_rms":
        x = clip_rows(x, dials.clip_threshold)
    return x


def apply_momentum(x: Tensor, state: dict[str, Tensor], at: MatrixSettings) -> Tensor:
    """Average `x` over time; with Nesterov, look ahead by blending the average into `x`."""
    if "momentum" not in state:
        state["momentum"] = torch.zeros_like(x)
    average = state["momentum"].lerp_(x, 1.0 - at.momentum)
    return x.lerp(average, at.nesterov_blend) if POLICY.nesterov else average.clone()


def direction(x: Tensor, orthogonal_mix: float) -> Tensor:
    """Give every matrix the shape the policy asks for: balanced, orthogonal, of fixed norm.

    With `orthogonal_mix` below 1, the rest of the result is `x` itself, scaled to the same norm.
    """
    y = equilibrate_rows(x) if POLICY.row_equilibration else x
    if POLICY.orthogonalization == "polar_express":
        y = orthogonalize(y, POLICY.ns_steps)
        if orthogonal_mix < 1.0:
            raw = x * (frobenius(y) / frobenius(x).clamp_min(1e-30))
            y = raw.lerp(y, orthogonal_mix)
    return snap_norm(y) if POLICY.norm_snap else y


def equilibrate_rows(x: Tensor) -> Tensor:
    """Scale the rows of each matrix to their mean norm. Source: MuonEq, arXiv:2603.28254."""
    norms: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # (K, m, 1)
    return x * (norms.mean(dim=-2, keepdim=True) / norms.clamp_min(1e-12))


def orthogonalize(x: Tensor, steps: int) -> Tensor:
    """Move the singular values of each matrix close to 1 and keep its singular vectors.

    Args:
        x: (K, m, n) matrices; the smaller side is multiplied with itself.
        steps: how many of the five Polar Express polynomials to apply.

    Raises:
        ValueError: there are no coefficients for so many steps.

    Source: Amsel et al. 2025, arXiv:2505.16932.
    """
    if not 1 <= steps <= len(POLAR_EXPRESS):
        raise ValueError(f"ns_steps must be 1 to {len(POLAR_EXPRESS)}, found {steps}")
    # 1 % head room keeps rounding from pushing the largest singular value beyond 1
    y = x / (frobenius(x) * 1.01 + 1e-6)
    y = y.bfloat16() if y.is_cuda else y  # tensor cores; upstream's precision
    for a, b, c in POLAR_EXPRESS[:steps]:
        if x.size(-2) > x.size(-1):
            gram = y.mT @ y  # (K, n, n)
            y = torch.baddbmm(y, y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), beta=a)
        else:
            gram = y @ y.mT  # (K, m, m)
            y = torch.baddbmm(y, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), y, beta=a)
    return y.to(x.dtype)


def snap_norm(x: Tensor) -> Tensor:
    """Set each norm to √min(m, n), an orthogonal matrix's. Source: Muon+, arXiv:2602.21545."""
    scale: Tensor = math.sqrt(min(x.shape[-2:])) / frobenius(x).clamp_min(1e-12)
    return x * scale


def normalize_factored(x: Tensor, state: dict[str, Tensor], beta2: float) -> Tensor:
    """Divide rows (or columns, when wide) by their running RMS, and keep each matrix's norm.

    Source: NorMuon, arXiv:2510.05491.
    """
    tall = x.size(-2) >= x.size(-1)
    power = x.square().mean(dim=-1 if tall else -2, keepdim=True)  # (K, m, 1) or (K, 1, n)
    if "second_moment" not in state:
        state["second_moment"] = torch.zeros_like(power)
    average = state["second_moment"].lerp_(power, 1.0 - beta2)
    scale = average.clamp_min(POLICY.second_moment_eps).rsqrt()
    before = power.sum(dim=(-2, -1), keepdim=True)
    after = (power * scale.square()).sum(dim=(-2, -1), keepdim=True)
    return x * (scale * (before / after.clamp_min(1e-30)).sqrt())


def trust_ratio(update: Tensor, weights: Tensor, mix: float) -> Tensor:
    """Give each matrix's factor 1 + mix · (clamp(‖weights‖ / ‖update‖) - 1): (K, 1, 1)."""
    ratio = frobenius(weights) / (frobenius(update) + float(POLICY.trust_eps))
    return (ratio.clamp(POLICY.trust_clamp_min, POLICY.trust_clamp_max) - 1.0) * mix + 1.0


def clip_rows(update: Tensor, threshold: float) -> Tensor:
    """Shorten rows whose RMS is above `threshold` times that of an orthogonal matrix's rows.

    By rows, because the norm snap fixes the RMS of whole matrices: a clip of it could never act.
    """
    m, n = update.shape[-2:]
    limit = threshold * math.sqrt(min(m, n) / m)
    norms = torch.linalg.vector_norm(update, dim=-1, keepdim=True)  # (K, m, 1)
    scale: Tensor = (limit / norms.clamp_min(1e-30)).clamp_max(1.0)
    return update * scale


def clip_global_norm(updates: Sequence[Tensor], threshold: float) -> float:
    """Give the factor that keeps the norm of all updates together within `threshold`.

    The unit is the norm all of them would have if they were orthogonal, so a threshold means the
    same for every model. Under the norm snap, 1 or more acts only when trust ratios enlarge.
    """
    square = sum(float(update.square().sum()) for update in updates)
    orthogonal = sum(update.size(0) * min(update.shape[-2:]) for update in updates)
    return min(1.0, threshold * math.sqrt(orthogonal / max(square, 1e-30)))


def aspect_scale(update: Tensor) -> float:
    """Enlarge the step of tall matrices by √(m / n), as in Muon."""
    return math.sqrt(max(1.0, update.size(-2) / update.size(-1)))


def decay_weights(weights: Tensor, update: Tensor, amount: float) -> None:
    """Shrink the weights by the fraction `amount`, in place; if cautious, only where it agrees.

    Cautious decay leaves a weight alone that the update is about to make larger. Source: cautious
    weight decay, arXiv:2510.12402.
    """
    if POLICY.decay == "cautious":
        agrees = (update * weights).ge_(0.0)  # 1 where the update moves the weight towards 0
        weights.addcmul_(weights, agrees, value=-amount)
    else:
        weights.mul_(1.0 - amount)


def average_tail(stack: Stack) -> None:
    """Keep an average of the weights over about the last `tail_ema_horizon` steps."""
    if "tail" not in stack.state:
        stack.state["tail"] = stack.weights.clone()
    stack.state["tail"].lerp_(stack.weights, 1.0 / POLICY.tail_ema_horizon)


# EVOLVE-BLOCK-END


# EVOLVE-BLOCK-START adamw
ADAMW = Knobs(
    # embeddings and head: their lr is for a width of 768 and scales with (width / 768)^-0.5
    embedding_lr=0.3,
    embedding_beta1=0.8,
    embedding_beta2=0.995,
    embedding_weight_decay=0.001,
    value_embedding_lr=0.15,
    value_embedding_beta1=0.8,
    value_embedding_beta2=0.995,
    value_embedding_weight_decay=0.01,
    unembedding_lr=0.008,
    unembedding_beta1=0.8,
    unembedding_beta2=0.96,
    unembedding_weight_decay=0.01,
    # scalars
    resid_scale_lr=0.005,
    resid_scale_beta1=0.8,
    resid_scale_beta2=0.95,
    resid_scale_weight_decay=0.05,
    x0_scale_lr=0.5,
    x0_scale_beta1=0.96,
    x0_scale_beta2=0.95,
    x0_scale_weight_decay=0.0,
    mixing_lr=0.2,
    mixing_beta1=0.8,
    mixing_beta2=0.95,
    mixing_weight_decay=0.0,
    # matrices, when ROUTES sends them here
    matrix_lr=0.003,
    matrix_beta1=0.8,
    matrix_beta2=0.95,
    matrix_weight_decay=0.0,
    # over training: eps moves on a log scale, the offsets are added to the betas and fade away
    eps_start=1e-10,
    eps_end=1e-10,
    beta1_start_offset=0.0,
    beta2_start_offset=0.0,
    beta_warmup_steps=300,
    warmup_steps=40,
    warmdown_fraction=0.65,
    final_lr_fraction=0.05,
)

WIDTH_SCALED = (Role.EMBEDDING, Role.VALUE_EMBEDDING, Role.UNEMBEDDING)


def adamw_step(
    params: Sequence[ParamInfo], states: Sequence[dict[str, Any]], step: int, horizon: Horizon
) -> None:
    """Change parameters in place by one step of AdamW with the constants of their roles.

    All tensors go through each operation together. The bias corrections are running products of
    the betas, so that they stay right while the betas move.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """
    constants = [adamw_constants(param.role, step, horizon) for param in params]
    for param, state, at in zip(params, states, constants, strict=True):
        if not state:
            state["mean"] = torch.zeros_like(param.tensor)
            state["square"] = torch.zeros_like(param.tensor)
            state["mean_bias"] = state["square_bias"] = 1.0
        state["mean_bias"] *= at.beta1
        state["square_bias"] *= at.beta2
    weights = [param.tensor for param in params]
    gradients = [gradient_of(param.tensor) for param in params]
    means = [state["mean"] for state in states]
    squares = [state["square"] for state in states]

    torch._foreach_mul_(weights, [1.0 - at.lr * at.weight_decay for at in constants])
    torch._foreach_lerp_(means, gradients, [1.0 - at.beta1 for at in constants])
    torch._foreach_mul_(squares, [at.beta2 for at in constants])
    torch._foreach_addcmul_(squares, gradients, gradients, [1.0 - at.beta2 for at in constants])
    divisors = torch._foreach_div(squares, [1.0 - state["square_bias"] for state in states])
    torch._foreach_sqrt_(divisors)
    torch._foreach_add_(divisors, constants[0].eps)
    rates = [
        -at.lr / (1.0 - state["mean_bias"]) for at, state in zip(constants, states, strict=True)
    ]
    torch._foreach_addcdiv_(weights, means, divisors, rates)


@dataclass(frozen=True, slots=True, kw_only=True)
class AdamWConstants:
    """The constants of AdamW for one role at one step."""

    lr: float
    beta1: float
    beta2: float
    eps: float
    weight_decay: float


def adamw_constants(role: Role, step: int, horizon: Horizon) -> AdamWConstants:
    """Evaluate the schedules of AdamW for one role at `step`, counted from 0."""
    knobs = dict(ADAMW)
    lr_fraction = trapezoid(
        step,
        horizon.total_steps,
        ADAMW.warmup_steps,
        ADAMW.warmdown_fraction,
        ADAMW.final_lr_fraction,
    )
    if role in WIDTH_SCALED:
        lr_fraction *= (horizon.model_width / 768) ** -0.5
    progress = step / horizon.total_steps
    early = 1.0 - ramp(step, ADAMW.beta_warmup_steps)
    return AdamWConstants(
        lr=knobs[f"{role}_lr"] * lr_fraction,
        beta1=knobs[f"{role}_beta1"] + ADAMW.beta1_start_offset * early,
        beta2=knobs[f"{role}_beta2"] + ADAMW.beta2_start_offset * early,
        eps=ADAMW.eps_start ** (1.0 - progress) * ADAMW.eps_end**progress,
        weight_decay=knobs[f"{role}_weight_decay"],
    )


# EVOLVE-BLOCK-END


class MuonAdamW(torch.optim.Optimizer):
    """The matrix rule on stacks of same-shape matrices, AdamW on everything else.

    Call `observe` with the training state before every `step`. `eval` and `train` put the weights
    to validate with in place and take them away again; without a tail average they do nothing.
    """

    def __init__(self, params: Sequence[ParamInfo], horizon: Horizon) -> None:
        super().__init__([param.tensor for param in params], {})
        self.horizon = horizon
        self.sensors = Sensors()
        self.training_state: TrainingState | None = None
        self.adamw_params = [param for param in params if rule_for(param) == "adamw"]
        by_shape: dict[torch.Size, list[Tensor]] = {}
        for param in params:
            if rule_for(param) == "muon":
                by_shape.setdefault(param.shape, []).append(param.tensor)
        with torch.no_grad():
            self.stacks = [Stack.of(same) for same in by_shape.values()]
        self._before_eval: list[Tensor] | None = None

    def observe(self, state: TrainingState) -> None:
        """Take note of the training state: where the schedules are in the next `step`."""
        self.training_state = state

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> Any:
        """Update every parameter from its gradient.

        Raises:
            RuntimeError: `observe` was not called since the last step, or the parameters still
                hold the weights that `eval` put there.
        """
        if self.training_state is None:
            raise RuntimeError("call observe(state) before every step()")
        if self._before_eval is not None:
            raise RuntimeError("call train() after eval() before the next step()")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        now, self.training_state = self.training_state, None
        if self.adamw_params:
            states = [self.state[param.tensor] for param in self.adamw_params]
            adamw_step(self.adamw_params, states, now.step, self.horizon)
        if self.stacks:
            self._step_matrices(now)
        return loss

    def _step_matrices(self, now: TrainingState) -> None:
        """Gather the stacks, let the policy and the matrix rule act on them, write them back."""
        for stack in self.stacks:
            stack.gather(self.state[stack.params[0]])
        dials = fixed_actuators()
        if POLICY.control:
            self.sensors.read_loss(now.loss)
            self.sensors.read_gradients(self.stacks)
            dials = gated_actuators(gate(self.sensors, min(1.0, now.step / now.total_steps)))
        muon_step(self.stacks, matrix_settings(now.step, self.horizon.total_steps), dials)
        if POLICY.control:
            self.sensors.read_update(self.stacks)
        for stack in self.stacks:
            stack.scatter()

    @torch.no_grad()
    def eval(self) -> None:
        """Blend the tail average into the matrices, for validation."""
        averaged = [stack for stack in self.stacks if "tail" in self.state[stack.params[0]]]
        if self._before_eval is not None or not averaged:
            return
        self._before_eval = [p.clone() for stack in self.stacks for p in stack.params]
        for stack in averaged:
            tail = self.state[stack.params[0]]["tail"]
            torch._foreach_lerp_(stack.params, list(tail.unbind()), float(POLICY.tail_ema_mix))

    @torch.no_grad()
    def train(self) -> None:
        """Put back, to the bit, the weights that were there before `eval`."""
        if self._before_eval is None:
            return
        matrices = [p for stack in self.stacks for p in stack.params]
        torch._foreach_copy_(matrices, self._before_eval)
        self._before_eval = None

    def state_dict(self) -> dict[str, Any]:
        """Give everything that training needs to go on as if it had never stopped."""
        return {**super().state_dict(), "sensors": asdict(self.sensors)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state made by `state_dict`, of the same parameters in the same order."""
        super().load_state_dict(state_dict)
        self.sensors = Sensors(**state_dict["sensors"])


def build_optimizer(params: Sequence[ParamInfo], horizon: Horizon) -> MuonAdamW:
    """Make the optimizer of a training run.

    Args:
        params: all parameters to train; each `tensor.grad` must be set whenever `step` is called.
        horizon: the length of the run, which the schedules follow, and the model's width.

    Raises:
        HorizonError: a learning rate would still be warming up at the end of the run.
    """
    for knob, steps in (
        ("SCHEDULE.warmup_steps", SCHEDULE.warmup_steps),
        ("ADAMW.warmup_steps", ADAMW.warmup_steps),
    ):
        if horizon.total_steps < steps + 2:
            raise HorizonError(total_steps=horizon.total_steps, needed_steps=steps + 2, knob=knob)
    return MuonAdamW(params, horizon)
