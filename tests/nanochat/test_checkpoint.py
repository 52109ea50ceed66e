"""A checkpoint restores the model exactly, and refuses what does not belong together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from nanochat.checkpoint import (
    CheckpointError,
    load_checkpoint,
    load_optimizer_state,
    save_checkpoint,
)
from nanochat.loop import flat_size, flatten_parameters
from nanochat.model import GPT, GPTConfig
from nanochat.tokenizer import BpeTokenizer, ByteTokenizer


@pytest.fixture
def model() -> GPT:
    made = GPT(GPTConfig(depth=2, width=32, head_dim=16, vocab_size=257, sequence_length=16))
    made.init_weights(torch.Generator().manual_seed(0))
    size = flat_size(made)
    flatten_parameters(made, torch.zeros(size), torch.zeros(size))  # as training leaves it
    return made


@pytest.fixture
def saved(tmp_path: Path, model: GPT) -> Path:
    save_checkpoint(tmp_path / "kept", model, ByteTokenizer(), facts={"seed": 3})
    return tmp_path / "kept"


def test_a_loaded_model_is_the_saved_one_to_the_bit(saved: Path, model: GPT) -> None:
    loaded = load_checkpoint(saved)

    assert loaded.facts == {"seed": 3}
    assert loaded.model.config == model.config
    assert loaded.tokenizer.name == "byte"
    x = torch.arange(32).view(2, 16)
    assert torch.equal(loaded.model.logits(x), model.logits(x))


def test_a_trained_tokenizer_comes_along(tmp_path: Path, model: GPT) -> None:
    bpe = BpeTokenizer.train(["over and over and over again"] * 9, vocab_size=262)

    save_checkpoint(tmp_path, model, bpe, facts={})

    text = "and again, over"
    assert load_checkpoint(tmp_path).tokenizer.encode(text).tolist() == bpe.encode(text).tolist()


def test_an_optimizer_goes_on_from_its_saved_state(tmp_path: Path, model: GPT) -> None:
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.arange(16)[None], torch.arange(16)[None]).backward()
    optimizer.step()

    save_checkpoint(
        tmp_path, model, ByteTokenizer(), facts={}, optimizer_state=optimizer.state_dict()
    )

    again = torch.optim.AdamW(load_checkpoint(tmp_path).model.parameters())
    again.load_state_dict(load_optimizer_state(tmp_path))
    before, after = optimizer.state_dict()["state"][0], again.state_dict()["state"][0]
    assert before["step"] == after["step"] == 1
    assert torch.equal(before["exp_avg"], after["exp_avg"])


def test_an_optimizer_state_of_an_earlier_save_does_not_linger(tmp_path: Path, model: GPT) -> None:
    save_checkpoint(tmp_path, model, ByteTokenizer(), facts={}, optimizer_state={"old": 1})

    save_checkpoint(tmp_path, model, ByteTokenizer(), facts={})

    with pytest.raises(CheckpointError, match="cannot read the optimizer state"):
        load_optimizer_state(tmp_path)


def test_loading_runs_no_code_from_the_file(saved: Path) -> None:
    torch.save({"state": Path}, saved / "optimizer.pt")  # a class needs an import to be loaded

    with pytest.raises(CheckpointError, match="cannot read the optimizer state"):
        load_optimizer_state(saved)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no checkpoint in"):
        load_checkpoint(tmp_path)


def test_another_format_is_refused_by_its_number(saved: Path) -> None:
    meta = json.loads((saved / "meta.json").read_text())
    (saved / "meta.json").write_text(json.dumps(meta | {"format": 99}))

    with pytest.raises(CheckpointError, match="has format 99, this version reads 1"):
        load_checkpoint(saved)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ("[1]", "has format None"),
        ('{"format": 1, "config": {"depth": 2}}', "does not describe a model"),
    ],
)
def test_broken_meta_is_refused(saved: Path, text: str, complaint: str) -> None:
    (saved / "meta.json").write_text(text)

    with pytest.raises(CheckpointError, match=complaint):
        load_checkpoint(saved)


def test_truncated_weights_are_refused(saved: Path) -> None:
    content = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(content[: len(content) // 2])

    with pytest.raises(CheckpointError, match=r"cannot read .*model.safetensors"):
        load_checkpoint(saved)


def test_missing_weights_are_refused_by_name(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    del weights["backout_lambda"]
    save_file(weights, saved / "model.safetensors")

    with pytest.raises(CheckpointError, match="disagree about backout_lambda"):
        load_checkpoint(saved)


def test_weights_of_another_shape_are_refused_by_name(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    weights["wte"] = weights["wte"][:, :16].clone()
    save_file(weights, saved / "model.safetensors")

    with pytest.raises(CheckpointError, match=r"wte of shape \(320, 16\).* needs \(320, 32\)"):
        load_checkpoint(saved)
