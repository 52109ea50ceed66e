from __future__ import annotations

import math

import numpy as np
import pytest

from agent.statistics.holdout_gate import Gate, GateShutError, ask, open_gate


def opened(rng: np.random.Generator, *, disagreements: int = 20, noise: float = 1e-5) -> Gate:
    return open_gate(threshold_bpb=0.002, noise_bpb=noise, disagreements=disagreements, rng=rng)


def test_splits_that_agree_are_answered_from_the_searched_one_for_nothing() -> None:
    rng = np.random.default_rng(81)
    gate = opened(rng)

    answer = ask(gate, searched_bpb=-0.0040, protected_bpb=-0.0035, rng=rng)

    assert (answer.effect_bpb, answer.disagreed) == (-0.0040, False)
    assert (answer.gate.left, answer.gate.asked) == (20, 1)


def test_splits_that_disagree_are_answered_from_the_protected_one_at_a_price() -> None:
    rng = np.random.default_rng(82)
    gate = opened(rng)

    answer = ask(gate, searched_bpb=-0.010, protected_bpb=-0.001, rng=rng)

    assert answer.disagreed
    assert answer.effect_bpb == pytest.approx(-0.001, abs=3e-4)  # 30 scales of the noise
    assert answer.effect_bpb != -0.001
    assert answer.gate.left == 19


def test_a_spent_gate_shuts_and_says_how_often_it_was_asked() -> None:
    rng = np.random.default_rng(83)
    gate = opened(rng, disagreements=2)
    for _ in range(2):
        gate = ask(gate, searched_bpb=-0.01, protected_bpb=0.0, rng=rng).gate

    with pytest.raises(GateShutError) as caught:
        ask(gate, searched_bpb=-0.01, protected_bpb=-0.01, rng=rng)

    assert caught.value.asked == 2


def test_the_threshold_is_drawn_anew_after_every_disagreement() -> None:
    rng = np.random.default_rng(84)
    gate = opened(rng)

    agreed = ask(gate, searched_bpb=0.0, protected_bpb=0.0, rng=rng).gate
    disagreed = ask(gate, searched_bpb=-0.01, protected_bpb=0.0, rng=rng).gate

    assert agreed.current_bpb == gate.current_bpb
    assert disagreed.current_bpb != gate.current_bpb


def test_selecting_by_the_gate_overfits_the_protected_split_less_than_reading_it() -> None:
    # The analyst's attack of the source: keep the variables whose sign agrees on both splits, and
    # add them up. Nothing is there to be found; the splits are 200 samples of 400 variables.
    rng = np.random.default_rng(85)
    samples, variables, error = 200, 400, 1.0 / math.sqrt(200)
    naive, gated = [], []
    for _ in range(20):
        train = rng.standard_normal((samples, variables)).mean(axis=0)
        protected = rng.standard_normal((samples, variables)).mean(axis=0)
        gate = open_gate(threshold_bpb=4.0 * error, noise_bpb=error, disagreements=10**6, rng=rng)
        signs = np.sign(train)
        naive.append(float((signs * protected)[signs == np.sign(protected)].mean()))
        kept = []
        for searched, hidden in zip(train, protected, strict=True):
            answer = ask(gate, searched_bpb=searched, protected_bpb=hidden, rng=rng)
            gate = answer.gate
            if np.sign(answer.effect_bpb) == np.sign(searched):
                kept.append(np.sign(searched) * hidden)
        gated.append(float(np.mean(kept)))

    assert np.mean(naive) == pytest.approx(error * math.sqrt(2.0 / math.pi), rel=0.1)
    assert np.mean(gated) < 0.25 * np.mean(naive)


@pytest.mark.parametrize(
    "change", [{"threshold_bpb": 0.0}, {"noise_bpb": math.nan}, {"disagreements": 0}]
)
def test_a_gate_that_protects_nothing_is_refused(change: dict[str, float]) -> None:
    sizes = {"threshold_bpb": 0.002, "noise_bpb": 0.0005, "disagreements": 5, **change}

    with pytest.raises(ValueError, match="must be positive"):
        open_gate(**sizes, rng=np.random.default_rng(1))  # type: ignore[arg-type]  # bad on purpose


def test_an_effect_that_is_no_number_is_refused() -> None:
    rng = np.random.default_rng(86)

    with pytest.raises(ValueError, match="finite"):
        ask(opened(rng), searched_bpb=math.nan, protected_bpb=0.0, rng=rng)
