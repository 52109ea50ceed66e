from __future__ import annotations

import pytest
import torch
from torch import Tensor

from nanochat.contract import TrainingState
from sandbox.altered import AlteredGradients, jail_seed
from sandbox.jobs import Gradients


class Seen:
    """An optimizer service that keeps the gradients it is given."""

    def __init__(self, gradients: list[Tensor]) -> None:
        self._gradients = gradients
        self.steps: list[list[Tensor]] = []
        self.evals: list[str] = []

    def step(self, _state: TrainingState) -> None:
        self.steps.append([gradient.clone() for gradient in self._gradients])

    def enter_eval(self) -> None:
        self.evals.append("enter")

    def leave_eval(self) -> None:
        self.evals.append("leave")


def true_gradients() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(48, 32, generator=generator)
    matrix[10:] = 0.0  # an embedding of which a batch used a few rows
    return [matrix, torch.randn(64, generator=generator), torch.randn(1, generator=generator)]


def state(step: int) -> TrainingState:
    return TrainingState(step=step, total_steps=9, loss=1.0, tokens=1)


def given(kind: Gradients, *, seed: int = 5, step: int = 0) -> list[Tensor]:
    gradients = true_gradients()
    seen = Seen(gradients)
    AlteredGradients(seen, gradients, kind=kind, seed=seed).step(state(step))
    return seen.steps[0]


def test_zeros_are_zeros() -> None:
    assert all(not gradient.any() for gradient in given(Gradients.ZERO))


def test_permuted_gradients_keep_their_values_norms_and_spectra() -> None:
    for true, permuted in zip(true_gradients(), given(Gradients.PERMUTED), strict=True):
        assert torch.equal(true.flatten().sort().values, permuted.flatten().sort().values)
        if true.ndim == 2:
            singular = (torch.linalg.svdvals(each) for each in (true, permuted))
            torch.testing.assert_close(*singular, rtol=1e-4, atol=1e-4)


def test_permuted_gradients_have_as_many_empty_rows() -> None:
    matrix = given(Gradients.PERMUTED)[0]

    assert int((matrix == 0.0).all(dim=1).sum()) == 38


def test_permuted_gradients_say_nothing_of_the_true_direction() -> None:
    for true, permuted in zip(true_gradients()[:2], given(Gradients.PERMUTED)[:2], strict=True):
        cosine = torch.cosine_similarity(true.flatten(), permuted.flatten(), dim=0)
        assert abs(float(cosine)) < 0.3


def test_the_same_seed_and_step_give_the_same_permutation_and_others_do_not() -> None:
    first = given(Gradients.PERMUTED)[0]

    assert torch.equal(given(Gradients.PERMUTED)[0], first)
    assert not torch.equal(given(Gradients.PERMUTED, step=1)[0], first)
    assert not torch.equal(given(Gradients.PERMUTED, seed=6)[0], first)


def test_evaluation_is_passed_on() -> None:
    seen = Seen([])
    altered = AlteredGradients(seen, [], kind=Gradients.ZERO, seed=1)

    altered.enter_eval()
    altered.leave_eval()

    assert seen.evals == ["enter", "leave"]


def test_true_gradients_are_nothing_to_alter() -> None:
    with pytest.raises(ValueError, match="no altering"):
        AlteredGradients(Seen([]), [], kind=Gradients.TRUE, seed=1)


def test_a_jail_with_altered_gradients_is_not_told_the_seed_of_the_run() -> None:
    seeds = {jail_seed(seed) for seed in range(100)}

    assert len(seeds) == 100
    assert not seeds & set(range(100))
    assert all(0 <= seed < 2**31 for seed in seeds)


def test_rows_that_belong_to_one_token_are_moved_together() -> None:
    gradients = [torch.zeros(48, 8), torch.zeros(48, 16)]
    for gradient in gradients:
        gradient[[3, 7, 20]] = 1.0
    seen = Seen(gradients)

    AlteredGradients(seen, gradients, kind=Gradients.PERMUTED, seed=5).step(state(0))

    rows = [gradient.any(dim=1).nonzero().flatten().tolist() for gradient in seen.steps[0]]
    assert rows[0] == rows[1] != [3, 7, 20]
