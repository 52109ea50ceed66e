"""Every reference optimizer against its published formulas in float64, step by step."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor

from nanochat import references
from nanochat.batches import BatchSource
from nanochat.contract import Horizon, ParamInfo, Role, TrainingState
from nanochat.corpus import load_corpus
from nanochat.loop import InProcess, flat_size, flatten_parameters, train
from nanochat.model import GPT
from nanochat.optimizer_file import load_optimizer_file
from nanochat.profiles import load_profile
from sandbox.knobs import Bounds, read_knobs, why_out_of_bounds
from tests.nanochat.published_rules import (
    adabelief,
    adam,
    ademamix,
    lion,
    muon,
    normuon,
    schedule_free,
    soap,
)

FOLDER = Path(references.__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("[a-z]*.py"))
STEPS = 12
HORIZON = Horizon(total_steps=STEPS, tokens_per_step=1, model_width=4)
SHAPES = {
    Role.MATRIX: (6, 4),
    Role.EMBEDDING: (7, 4),
    Role.VALUE_EMBEDDING: (7, 4),
    Role.UNEMBEDDING: (7, 4),
    Role.RESID_SCALE: (2,),
    Role.X0_SCALE: (2,),
    Role.MIXING: (1, 4),
}
# What is no matrix, by the knob of its learning rate.
KINDS = {
    Role.EMBEDDING: "embedding",
    Role.VALUE_EMBEDDING: "embedding",
    Role.UNEMBEDDING: "unembedding",
    Role.RESID_SCALE: "scalar",
    Role.X0_SCALE: "scalar",
    Role.MIXING: "scalar",
}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(name: str) -> ModuleType:
    return load_optimizer_file(FOLDER / f"{name}.py")


def make_params(*, square: bool = False) -> list[ParamInfo]:
    generator = torch.Generator().manual_seed(3)
    shapes = SHAPES | {Role.MATRIX: (4, 4)} if square else SHAPES
    return [
        ParamInfo(
            tensor=torch.nn.Parameter(torch.randn(*shape, generator=generator).double()),
            name=role.value,
            role=role,
            layer=None,
        )
        for role, shape in shapes.items()
    ]


def gradient(param: ParamInfo, step: int) -> Tensor:
    seed = 100 * step + list(SHAPES).index(param.role)
    noise = torch.randn(*param.shape, generator=torch.Generator().manual_seed(seed))
    return (noise + 0.5).to(param.tensor.dtype)


def take_steps(optimizer: Any, params: list[ParamInfo], steps: range) -> Iterator[list[Tensor]]:
    """Take the steps and give the weights after each."""
    for step in steps:
        for param in params:
            param.tensor.grad = gradient(param, step)
        optimizer.observe(TrainingState(step=step, total_steps=STEPS, loss=1.0, tokens=step))
        optimizer.step()
        yield [param.tensor.detach().clone() for param in params]


def fraction(step: int) -> float:
    """Up over 3 steps, flat, down to 5 % over the last 65 %: the schedule as documented."""
    return min(1.0, (step + 1) / 3, 0.05 + 0.95 * min(1.0, (STEPS - step) / (0.65 * STEPS)))


EVERYWHERE = {
    "adamw": (adam, "ADAMW"),
    "lion": (lion, "LION"),
    "adabelief": (adabelief, "ADABELIEF"),
    "ademamix": (ademamix, "ADEMAMIX"),
    "schedule_free_adamw": (schedule_free, "SCHEDULE_FREE"),
}
# Muon orthogonalises in bfloat16, SOAP turns its basis in float32.
MATRICES = {
    "muon": (muon, "MUON", 0.04),
    "normuon": (normuon, "NORMUON", 0.04),
    "soap": (soap, "PRECONDITIONED", 1e-5),
}


def expected(
    module: ModuleType, name: str, param: ParamInfo, weights: Tensor
) -> tuple[list[Tensor], float]:
    """Give what the published rule comes to after each step, and how exact that has to be."""
    if name in EVERYWHERE:
        rule, table = EVERYWHERE[name]
        kind, tolerance = KINDS.get(param.role, "matrix"), 1e-9
        peak = dict(module.RATES)[f"{kind}_lr"]
    elif param.role is Role.MATRIX:
        rule, table, tolerance = MATRICES[name]
        peak = getattr(module, table).lr
    else:
        rule, table, tolerance = adam, "ADAMW", 1e-9
        peak = dict(module.ADAMW)[f"{KINDS[param.role]}_lr"]
    knobs = getattr(module, table)
    rates = [peak * fraction(step) for step in range(STEPS)]
    if name == "schedule_free_adamw":
        rates = [peak * min(1.0, (step + 1) / 3) for step in range(STEPS)]
    turns = [(lr, gradient(param, step)) for step, lr in enumerate(rates)]
    decay = knobs.weight_decay if param.role is Role.MATRIX else 0.0
    return list(rule(weights, turns, knobs=knobs, decay=decay)), tolerance


def test_every_step_follows_the_published_rule_with_the_rate_of_its_kind(name: str) -> None:
    module = load(name)
    # A gradient of less than full rank would leave SOAP a choice of bases.
    params = make_params(square=name == "soap")
    start = [param.tensor.detach().clone() for param in params]

    found = list(take_steps(module.build_optimizer(params, HORIZON), params, range(STEPS)))

    for index, param in enumerate(params):
        wanted, tolerance = expected(module, name, param, start[index])
        for step in range(STEPS):
            moved, should = found[step][index] - start[index], wanted[step] - start[index]
            gap = float((moved - should).norm())
            assert gap <= tolerance * float(should.norm()) + 1e-12, (param.role, step)


def test_a_state_that_is_saved_and_restored_goes_on_to_the_bit(name: str) -> None:
    module = load(name)
    params, twins = make_params(), make_params()
    optimizer, twin = (module.build_optimizer(infos, HORIZON) for infos in (params, twins))

    list(take_steps(optimizer, params, range(5)))
    with torch.no_grad():
        for param, other in zip(params, twins, strict=True):
            other.tensor.copy_(param.tensor)
    twin.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    ours = list(take_steps(optimizer, params, range(5, STEPS)))
    theirs = list(take_steps(twin, twins, range(5, STEPS)))

    for after, copied in zip(ours[-1], theirs[-1], strict=True):
        assert torch.equal(after, copied)


def test_every_knob_has_bounds_and_lies_within_them(name: str) -> None:
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")

    knobs = read_knobs(source)

    assert len(knobs) >= 8 or name == "schedule_free_adamw"
    for knob in knobs.values():
        assert knob.bounds is not None, knob.name
        assert why_out_of_bounds(knob.value, knob.bounds) is None, knob.name
    assert any(isinstance(k.bounds, Bounds) and k.bounds.scale == "log" for k in knobs.values())


def test_a_bound_that_belongs_to_no_knob_is_a_slip(name: str) -> None:
    module = load(name)
    knobs = read_knobs((FOLDER / f"{name}.py").read_text(encoding="utf-8"))

    assert set(module.BOUNDS) == set(knobs)


def test_it_trains_the_micro_profile_far_below_its_untrained_loss(name: str) -> None:
    profile = load_profile("micro")
    corpus = load_corpus(None, profile.tokenizer)
    model = GPT(profile.model_config(corpus.tokenizer.vocab_size))
    size = flat_size(model)
    flatten_parameters(model, torch.zeros(size), torch.zeros(size))
    model.init_weights(torch.Generator().manual_seed(1))
    batches = BatchSource(
        corpus.tokens("train"), profile.batch_size, profile.sequence_length, seed=1
    )
    horizon = Horizon(
        total_steps=profile.steps,
        tokens_per_step=profile.batch_size * profile.sequence_length,
        model_width=profile.width,
    )
    optimizer = load(name).build_optimizer(model.param_infos(), horizon)

    result = train(model, batches, InProcess(optimizer), steps=profile.steps)

    losses = [loss for _, loss in result.curve]
    assert max(losses) < 1.1 * losses[0], "no spike"
    assert sum(losses[-5:]) / 5 < 0.6 * losses[0]


def test_schedule_free_weights_to_validate_with_are_the_average_of_the_fast_iterates() -> None:
    module = load("schedule_free_adamw")
    params = make_params()
    optimizer = module.build_optimizer(params, HORIZON)
    list(take_steps(optimizer, params, range(7)))
    before = [param.tensor.detach().clone() for param in params]

    optimizer.eval()
    optimizer.eval()
    validating = [param.tensor.detach().clone() for param in params]
    optimizer.train()

    for param, y, x in zip(params, before, validating, strict=True):
        z, beta1 = optimizer.state[param.tensor]["z"], module.SCHEDULE_FREE.beta1
        assert torch.allclose(x, (y - (1 - beta1) * z) / beta1)
        assert not torch.equal(x, y)
        assert torch.equal(param.tensor, y), "to the bit"
