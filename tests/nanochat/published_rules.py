"""The update rules of well-known optimizers as their papers have them, in the plainest form.

Every rule takes the weights and, for each step, the learning rate and the gradient, and gives the
weights after each step. `knobs` has the rule's constants, `decay` is the decoupled weight decay.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

Turns = Sequence[tuple[float, Tensor]]

# The published coefficients of Muon's quintic iteration.
MUON_COEFFICIENTS = (3.4445, -4.7750, 2.0315)


def adam(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    for t, (lr, g) in enumerate(turns, start=1):
        m = knobs.beta1 * m + (1 - knobs.beta1) * g
        v = knobs.beta2 * v + (1 - knobs.beta2) * g * g
        m_hat, v_hat = m / (1 - knobs.beta1**t), v / (1 - knobs.beta2**t)
        w = w * (1 - lr * decay) - lr * m_hat / (v_hat.sqrt() + knobs.eps)
        yield w


def lion(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    m = torch.zeros_like(w)
    for lr, g in turns:
        update = (knobs.beta1 * m + (1 - knobs.beta1) * g).sign()
        m = knobs.beta2 * m + (1 - knobs.beta2) * g
        w = w - lr * (update + decay * w)
        yield w


def adabelief(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    m, s = torch.zeros_like(w), torch.zeros_like(w)
    for t, (lr, g) in enumerate(turns, start=1):
        m = knobs.beta1 * m + (1 - knobs.beta1) * g
        s = knobs.beta2 * s + (1 - knobs.beta2) * (g - m) ** 2 + knobs.eps
        m_hat, s_hat = m / (1 - knobs.beta1**t), s / (1 - knobs.beta2**t)
        w = w * (1 - lr * decay) - lr * m_hat / (s_hat.sqrt() + knobs.eps)
        yield w


def ademamix(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    fast, slow, v = torch.zeros_like(w), torch.zeros_like(w), torch.zeros_like(w)
    log1, log3 = math.log(knobs.beta1), math.log(knobs.beta3)
    for t, (lr, g) in enumerate(turns, start=1):
        share = t / len(turns)
        alpha = knobs.slow_weight * min(1.0, share)
        beta3 = min(math.exp(log1 * log3 / ((1 - share) * log3 + share * log1)), knobs.beta3)
        fast = knobs.beta1 * fast + (1 - knobs.beta1) * g
        slow = beta3 * slow + (1 - beta3) * g
        v = knobs.beta2 * v + (1 - knobs.beta2) * g * g
        update = fast / (1 - knobs.beta1**t) + alpha * slow
        w = w * (1 - lr * decay) - lr * update / ((v / (1 - knobs.beta2**t)).sqrt() + knobs.eps)
        yield w


def schedule_free(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    """Gradients are taken at y, between the fast iterate z and its average x."""
    x = y = z = w
    v, total, highest = torch.zeros_like(w), 0.0, 0.0
    for t, (lr, g) in enumerate(turns, start=1):
        v = knobs.beta2 * v + (1 - knobs.beta2) * g * g
        scaled = g / ((v / (1 - knobs.beta2**t)).sqrt() + knobs.eps) + decay * y
        z = z - lr * scaled
        highest = max(highest, lr)
        total += highest**2
        x = x + (z - x) * highest**2 / total
        y = (1 - knobs.beta1) * z + knobs.beta1 * x
        yield y


def newton_schulz(x: Tensor, steps: int) -> Tensor:
    """Bring the singular values of a matrix near 1, as Muon does."""
    a, b, c = MUON_COEFFICIENTS
    y = x.mT if x.size(0) > x.size(1) else x
    y = y / y.norm()
    for _ in range(steps):
        gram = y @ y.mT
        y = a * y + (b * gram + c * gram @ gram) @ y
    result: Tensor = y.mT if x.size(0) > x.size(1) else y
    return result


def muon(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    m = torch.zeros_like(w)
    for lr, g in turns:
        m = knobs.momentum * m + (1 - knobs.momentum) * g
        ahead = knobs.momentum * m + (1 - knobs.momentum) * g
        update = newton_schulz(ahead, knobs.ns_steps)
        w = w * (1 - lr * decay) - lr * math.sqrt(max(1, w.size(0) / w.size(1))) * update
        yield w


def normuon(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    m, rows = torch.zeros_like(w), torch.zeros(w.size(0), 1, dtype=w.dtype)
    for lr, g in turns:
        m = knobs.momentum * m + (1 - knobs.momentum) * g
        ahead = knobs.momentum * m + (1 - knobs.momentum) * g
        update = newton_schulz(ahead, knobs.ns_steps)
        rows = knobs.beta2 * rows + (1 - knobs.beta2) * (update**2).mean(1, keepdim=True)
        even = update / rows.sqrt()
        even = even * update.norm() / even.norm()
        w = w * (1 - lr * decay) - lr * math.sqrt(max(1, w.size(0) / w.size(1))) * even
        yield w


def soap(w: Tensor, turns: Turns, *, knobs: Any, decay: float) -> Iterator[Tensor]:
    """The basis of a step is made of the gradients before it; none is there in the first."""
    left, right = torch.zeros(w.size(0), w.size(0)), torch.zeros(w.size(1), w.size(1))
    left, right = left.to(w.dtype), right.to(w.dtype)
    m, v = torch.zeros_like(w), torch.zeros_like(w)
    u_left = u_right = torch.zeros(0)
    for t, (lr, g) in enumerate(turns):
        if t > 0:
            turned = u_left.mT @ g @ u_right
            m = knobs.beta1 * m + (1 - knobs.beta1) * g
            v = knobs.beta2 * v + (1 - knobs.beta2) * turned**2
            direction = (u_left.mT @ m @ u_right) / (v.sqrt() + knobs.eps)
            step = lr * math.sqrt(1 - knobs.beta2**t) / (1 - knobs.beta1**t)
            w = w - step * u_left @ direction @ u_right.mT
            w = w * (1 - lr * decay)
        left = knobs.shampoo_beta * left + (1 - knobs.shampoo_beta) * g @ g.mT
        right = knobs.shampoo_beta * right + (1 - knobs.shampoo_beta) * g.mT @ g
        if t == 0:
            u_left = torch.linalg.eigh(left).eigenvectors
            u_right = torch.linalg.eigh(right).eigenvectors
        elif t % knobs.basis_steps == 0:
            rows = torch.argsort((u_left * (left @ u_left)).sum(0), descending=True)
            columns = torch.argsort((u_right * (right @ u_right)).sum(0), descending=True)
            v = v[rows][:, columns]
            u_left = torch.linalg.qr((left @ u_left)[:, rows]).Q
            u_right = torch.linalg.qr((right @ u_right)[:, columns]).Q
        yield w
