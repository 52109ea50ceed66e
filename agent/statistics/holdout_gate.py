"""Let a search ask about a second validation split again and again without overfitting it.

A search that reads a split after every candidate adapts to it, and its score there stops meaning
anything. The gate answers from the split the search has already overfitted, unless the two splits
disagree by more than a noisy threshold; only then does it reveal something of the protected one,
with noise, and pays for it from a budget. When that is spent the gate is shut: the split has said
what it can without becoming a second training set.

What is asked for is an effect (candidate minus incumbent), measured on both splits from the same
training runs: the noise that the seeds make is common to both and says nothing about overfitting.

Source: Dwork, Feldman, Hardt, Pitassi, Reingold and Roth 2015, "The reusable holdout: preserving
validity in adaptive data analysis", Science 349(6248), algorithm Thresholdout.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

__all__ = ["Answer", "Gate", "GateShutError", "ask", "open_gate"]

# Scales of the Laplace noise in units of `noise_bpb`: on the threshold, each comparison, and the
# answer; from the paper.
THRESHOLD_NOISE, COMPARISON_NOISE, ANSWER_NOISE = 2.0, 4.0, 1.0


class GateShutError(Exception):
    """The protected split has answered as often as it may.

    Attributes:
        asked: how many questions were put to the gate.
    """

    def __init__(self, *, asked: int) -> None:
        super().__init__(
            f"the gate has shut after {asked} questions: what it protects has been compared as "
            "often as it can be; decide on fresh text"
        )
        self.asked = asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate:
    """What a gate needs to remember between two questions.

    Attributes:
        threshold_bpb: how far the splits may differ before the protected one is heard.
        noise_bpb: scale of the noise, about half the standard error of the effect that comes from
            the finite size of the protected split.
        left: how many more disagreements may be revealed.
        current_bpb: the noisy threshold in force.
        asked: questions so far: the ledger of looks.
    """

    threshold_bpb: float
    noise_bpb: float
    left: int
    current_bpb: float
    asked: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The effect to believe, whether the splits disagreed, and the gate for the next question."""

    effect_bpb: float
    disagreed: bool
    gate: Gate


def open_gate(
    *, threshold_bpb: float, noise_bpb: float, disagreements: int, rng: np.random.Generator
) -> Gate:
    """Begin to protect a split.

    Raises:
        ValueError: a threshold, noise or number of disagreements that is not positive.
    """
    sizes = (threshold_bpb, noise_bpb, float(disagreements))
    if not all(0.0 < size < math.inf for size in sizes):
        raise ValueError(f"threshold, noise and disagreements must be positive, found {sizes}")
    return Gate(
        threshold_bpb=threshold_bpb,
        noise_bpb=noise_bpb,
        left=disagreements,
        current_bpb=_noisy_threshold(threshold_bpb, noise_bpb, rng),
    )


def ask(
    gate: Gate, *, searched_bpb: float, protected_bpb: float, rng: np.random.Generator
) -> Answer:
    """Ask for an effect, given what both splits say of it.

    Raises:
        GateShutError: all disagreements have been spent.
        ValueError: an effect is not finite.
    """
    if gate.left == 0:
        raise GateShutError(asked=gate.asked)
    if not (math.isfinite(searched_bpb) and math.isfinite(protected_bpb)):
        raise ValueError(f"expected finite effects, found {searched_bpb} and {protected_bpb}")
    gap = abs(searched_bpb - protected_bpb)
    if gap <= gate.current_bpb + float(rng.laplace(scale=COMPARISON_NOISE * gate.noise_bpb)):
        agreed = replace(gate, asked=gate.asked + 1)
        return Answer(effect_bpb=searched_bpb, disagreed=False, gate=agreed)
    spent = replace(
        gate,
        asked=gate.asked + 1,
        left=gate.left - 1,
        current_bpb=_noisy_threshold(gate.threshold_bpb, gate.noise_bpb, rng),
    )
    effect = protected_bpb + float(rng.laplace(scale=ANSWER_NOISE * gate.noise_bpb))
    return Answer(effect_bpb=effect, disagreed=True, gate=spent)


def _noisy_threshold(threshold_bpb: float, noise_bpb: float, rng: np.random.Generator) -> float:
    return threshold_bpb + float(rng.laplace(scale=THRESHOLD_NOISE * noise_bpb))
