"""Keep a trained model in a folder: weights, what it takes to use them, optimizer state.

`model.safetensors` holds the weights, `meta.json` the shape of the model, its tokenizer and any
facts about the run, `optimizer.pt` the optimizer's state dict. Loading executes no code.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from nanochat.model import GPT, GPTConfig
from nanochat.tokenizer import Tokenizer, restore_tokenizer

__all__ = [
    "Checkpoint",
    "CheckpointError",
    "load_checkpoint",
    "load_optimizer_state",
    "save_checkpoint",
]

FORMAT = 1
WEIGHTS, META, OPTIMIZER = "model.safetensors", "meta.json", "optimizer.pt"


class CheckpointError(Exception):
    """The checkpoint is missing, incomplete, or does not fit what it is loaded into."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A loaded model with its tokenizer; `facts` is what was said about the run."""

    model: GPT
    tokenizer: Tokenizer
    facts: Mapping[str, Any]


def save_checkpoint(
    folder: Path,
    model: GPT,
    tokenizer: Tokenizer,
    *,
    facts: Mapping[str, Any],
    optimizer_state: Mapping[str, Any] | None = None,
) -> None:
    """Write the checkpoint into a folder, made if need be; an older one there is replaced.

    Args:
        folder: where to.
        model: its weights as they are now.
        tokenizer: the one it was trained with.
        facts: JSON-ready values about the run.
        optimizer_state: a `state_dict()` of tensors and plain values.
    """
    folder.mkdir(parents=True, exist_ok=True)
    meta = {
        "format": FORMAT,
        "config": asdict(model.config),
        "tokenizer": tokenizer.state(),
        "facts": dict(facts),
    }
    # Copies, because safetensors refuses views that share one storage.
    weights = {name: tensor.detach().cpu().clone() for name, tensor in model.named_parameters()}
    (folder / META).unlink(missing_ok=True)  # without it the rest is no checkpoint
    save_file(weights, folder / WEIGHTS)
    if optimizer_state is not None:
        torch.save(dict(optimizer_state), folder / OPTIMIZER)
    else:
        (folder / OPTIMIZER).unlink(missing_ok=True)
    (folder / META).write_text(json.dumps(meta, indent=1) + "\n")


def load_checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> Checkpoint:
    """Load a model and its tokenizer, on the CPU.

    Args:
        folder: written by `save_checkpoint`.
        dtype: of the activations.

    Raises:
        CheckpointError: a file is missing or broken, or the weights do not fit the model.
    """
    meta = _read_meta(folder)
    try:
        model = GPT(GPTConfig(**meta["config"]), dtype)
        tokenizer = restore_tokenizer(meta["tokenizer"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{folder / META} does not describe a model: {error}") from error
    try:
        weights = load_file(folder / WEIGHTS)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"cannot read {folder / WEIGHTS}: {error}") from error
    _copy_weights(model, weights, folder)
    return Checkpoint(model=model, tokenizer=tokenizer, facts=meta.get("facts", {}))


def load_optimizer_state(folder: Path) -> dict[str, Any]:
    """Load what `optimizer.load_state_dict` takes.

    Raises:
        CheckpointError: the checkpoint has none, or it is broken.
    """
    file = folder / OPTIMIZER
    try:
        state = torch.load(file, weights_only=True, map_location="cpu")
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise CheckpointError(f"cannot read the optimizer state in {file}: {error}") from error
    return dict(state)


def _read_meta(folder: Path) -> dict[str, Any]:
    try:
        meta = json.loads((folder / META).read_text())
    except OSError as error:
        raise CheckpointError(f"no checkpoint in {folder}: cannot read {META}") from error
    except ValueError as error:
        raise CheckpointError(f"{folder / META} is not JSON: {error}") from error
    found = meta.get("format") if isinstance(meta, dict) else None
    if found != FORMAT:
        raise CheckpointError(f"{folder / META} has format {found}, this version reads {FORMAT}")
    return dict(meta)


def _copy_weights(model: GPT, weights: Mapping[str, torch.Tensor], folder: Path) -> None:
    parameters = dict(model.named_parameters())
    if odd := sorted(set(parameters) ^ set(weights)):
        raise CheckpointError(f"{folder / WEIGHTS} and {META} disagree about {', '.join(odd)}")
    for name, parameter in parameters.items():
        if weights[name].shape != parameter.shape:
            raise CheckpointError(
                f"{folder / WEIGHTS} has {name} of shape {tuple(weights[name].shape)}, "
                f"the model needs {tuple(parameter.shape)}"
            )
        parameter.data.copy_(weights[name])
