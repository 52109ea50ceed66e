"""The training loop: order of events, memory layout, failures, repeatability."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from nanochat.batches import BatchSource
from nanochat.contract import TrainingState
from nanochat.loop import (
    DIVERGED_FROM_STEP,
    Diverged,
    InProcess,
    NonFiniteLoss,
    NonFiniteParameters,
    compile_model,
    eager_model,
    flat_offsets,
    flat_size,
    flatten_parameters,
    train,
)
from nanochat.model import GPT, GPTConfig

TOKENS = np.tile(np.arange(50, dtype=np.uint16), 60)


class ObservingAdamW(torch.optim.AdamW):
    """AdamW that keeps what it was told."""

    def __init__(self, parameters: list[torch.Tensor]) -> None:
        super().__init__(parameters, lr=3e-3)
        self.seen: list[TrainingState] = []

    def observe(self, state: TrainingState) -> None:
        self.seen.append(state)


class Service:
    """An optimizer service made of one function."""

    def __init__(self, update: Callable[[TrainingState], None]) -> None:
        self.step = update

    def enter_eval(self) -> None:
        pass

    def leave_eval(self) -> None:
        pass


def new_model(seed: int = 0, depth: int = 2) -> GPT:
    config = GPTConfig(depth=depth, width=32, head_dim=16, vocab_size=50, sequence_length=16)
    model = GPT(config)
    model.init_weights(torch.Generator().manual_seed(seed))
    return model


def flattened(model: GPT) -> GPT:
    size = flat_size(model)
    flatten_parameters(model, torch.zeros(size), torch.zeros(size))
    return model


def adamw(model: GPT) -> ObservingAdamW:
    return ObservingAdamW([info.tensor for info in model.param_infos()])


def batches(seed: int = 0) -> BatchSource:
    return BatchSource(TOKENS, 4, 16, seed)


def test_training_learns_a_repeating_text() -> None:
    model = flattened(new_model())

    result = train(model, batches(), InProcess(adamw(model)), steps=60)

    assert result.curve[0][1] == pytest.approx(np.log(50), abs=0.01)
    assert result.final_loss < 0.5 * result.curve[0][1]
    assert result.tokens == 60 * 4 * 16
    assert [step for step, _ in result.curve] == list(range(60))


def test_one_seed_gives_one_result_to_the_bit() -> None:
    def run(data_seed: int) -> tuple[object, torch.Tensor]:
        model = flattened(new_model())
        result = train(model, batches(data_seed), InProcess(adamw(model)), steps=15)
        return result.curve, torch.cat([p.detach().ravel() for p in model.parameters()])

    (curve, weights), (again, same), (other, _) = run(3), run(3), run(4)

    assert curve == again
    assert torch.equal(weights, same)
    assert curve != other


def test_the_memory_layout_does_not_change_a_bit() -> None:
    plain, flat = new_model(), flattened(new_model())

    for model in (plain, flat):
        train(model, batches(), InProcess(adamw(model)), steps=10)

    for one, other in zip(plain.parameters(), flat.parameters(), strict=True):
        assert torch.equal(one, other)


def test_the_optimizer_is_told_the_state_before_each_step() -> None:
    model = flattened(new_model())
    optimizer = adamw(model)

    result = train(model, batches(), InProcess(optimizer), steps=3)

    assert [(s.step, s.total_steps, s.tokens) for s in optimizer.seen] == [
        (0, 3, 64),
        (1, 3, 128),
        (2, 3, 192),
    ]
    assert tuple((s.step, s.loss) for s in optimizer.seen) == result.curve


def test_each_step_sees_the_gradient_of_its_own_batch_only() -> None:
    model = flattened(new_model())
    seen: list[torch.Tensor] = []
    service = Service(lambda _: seen.append(model.wte.grad.clone()))  # type: ignore[union-attr]  # set by flatten_parameters

    train(model, batches(), service, steps=2)

    reference = new_model()
    reference(*batches().batch(1)).backward()
    torch.testing.assert_close(seen[1], reference.wte.grad)


def test_progress_is_reported_before_the_update() -> None:
    model = flattened(new_model())
    events: list[str] = []
    service = Service(lambda state: events.append(f"update {state.step}"))

    train(model, batches(), service, steps=2, on_step=lambda step, _: events.append(f"step {step}"))

    assert events == ["step 0", "update 0", "step 1", "update 1"]


def test_parameters_and_gradients_are_views_of_the_flat_tensors() -> None:
    model = new_model()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    size = flat_size(model)
    parameters, gradients = torch.zeros(size), torch.full((size,), 7.0)

    flatten_parameters(model, parameters, gradients)

    *offsets, end = flat_offsets(model.param_infos())
    assert end == size
    assert not gradients.any()
    for info, start in zip(model.param_infos(), offsets, strict=True):
        assert torch.equal(info.tensor, before[info.name])
        assert info.tensor.data_ptr() == parameters[start:].data_ptr()
        assert info.tensor.grad is not None
        assert info.tensor.grad.data_ptr() == gradients[start:].data_ptr()
        assert info.tensor.data_ptr() % 64 == 0
    eager_model(model)(*batches().batch(0))
    assert gradients.any()


@pytest.mark.parametrize("bad", [torch.zeros(3), torch.zeros(10**6, dtype=torch.float64)])
def test_flat_tensors_of_another_shape_or_type_are_refused(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="expected fp32 of shape"):
        flatten_parameters(new_model(), bad, bad)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_ends_the_run_at_its_step(bad: float) -> None:
    model = flattened(new_model())

    def spoil(state: TrainingState) -> None:
        if state.step == 4:
            model.wte.data.fill_(bad)

    with pytest.raises(NonFiniteLoss) as caught:
        train(model, batches(), Service(spoil), steps=10)

    assert caught.value.step == 5


@pytest.mark.parametrize("bad", [float("inf"), float("-inf")])
def test_an_infinite_loss_is_no_divergence_but_not_finite(bad: float) -> None:
    with pytest.raises(NonFiniteLoss):
        train(
            flattened(new_model()),
            batches(),
            Service(lambda _: None),
            steps=1,
            forward_backward=lambda _x, _y: torch.tensor(bad),
        )


def test_parameters_that_the_last_step_broke_are_found() -> None:
    model = flattened(new_model())

    def spoil(state: TrainingState) -> None:
        if state.step == 9:
            model.smear_lambda.data.fill_(float("nan"))

    with pytest.raises(NonFiniteParameters, match="smear_lambda") as caught:
        train(model, batches(), Service(spoil), steps=10)

    assert (caught.value.step, caught.value.name) == (9, "smear_lambda")


def test_a_loss_twice_the_first_one_ends_the_run() -> None:
    losses = iter([1.0] + [2.5] * 100)

    def pretend(_x: torch.Tensor, _y: torch.Tensor) -> torch.Tensor:
        return torch.tensor(next(losses))

    with pytest.raises(Diverged) as caught:
        train(
            flattened(new_model()),
            batches(),
            Service(lambda _: None),
            steps=50,
            forward_backward=pretend,
        )

    assert (caught.value.step, caught.value.loss) == (DIVERGED_FROM_STEP, 2.5)


def test_validation_weights_are_asked_for_and_given_back() -> None:
    model = flattened(new_model())
    calls: list[str] = []
    optimizer = adamw(model)
    for name in ("eval", "train"):
        setattr(optimizer, name, lambda name=name: calls.append(name))
    service = InProcess(optimizer)

    service.enter_eval()
    service.leave_eval()

    assert calls == ["eval", "train"]


def test_an_optimizer_without_validation_weights_is_left_alone() -> None:
    service = InProcess(adamw(flattened(new_model())))

    service.enter_eval()
    service.leave_eval()


@pytest.mark.slow
# torch's compiler uses parts of torch that torch has deprecated
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_compiled_model_has_the_same_gradients(
    pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Kept between test runs: compiling takes 20 s of CPU with an empty cache, 4 s with a warm one.
    folder = pytestconfig.cache.mkdir("inductor")
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))  # so that it is unset again
    eager, compiled = flattened(new_model(depth=1)), flattened(new_model(depth=1))
    x, y = batches().batch(0)

    expected = eager_model(eager)(x, y)
    found = compile_model(compiled, folder)(x, y)

    torch.testing.assert_close(found, expected)
    for one, other in zip(eager.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
