"""Named sizes of the training run: model, batch, length and validation text.

A profile is one TOML file in the folder `profiles` beside this module; unknown keys are errors.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch

from nanochat.model import GPTConfig

__all__ = ["Profile", "ProfileError", "load_profile", "profile_names"]

PROFILES_FOLDER = Path(__file__).parent / "profiles"
ACTIVATION_DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class ProfileError(Exception):
    """No such profile, or its file or its sizes make no sense."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """Everything that decides how large and how long a training run is.

    Attributes:
        validation_bytes: text a run is scored on; more makes the score less noisy.
        validation_batch_size: windows evaluated at a time; changes speed, not scores.
        activation_dtype: `float32` or `bfloat16`; weights are fp32 always.
    """

    name: str
    depth: int
    width: int
    head_dim: int
    sequence_length: int
    batch_size: int
    steps: int
    validation_bytes: int
    validation_batch_size: int
    window_pattern: str = "SSSL"
    tokenizer: str = "byte"
    activation_dtype: str = "float32"

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ProfileError(f"{field.name} must be at least 1, found {value}")
        if self.activation_dtype not in ACTIVATION_DTYPES:
            raise ProfileError(
                f"activation_dtype must be float32 or bfloat16, found {self.activation_dtype!r}"
            )

    @property
    def tokens_per_step(self) -> int:
        """Training tokens in one batch."""
        return self.batch_size * self.sequence_length

    @property
    def dtype(self) -> torch.dtype:
        """The torch type of the activations."""
        return ACTIVATION_DTYPES[self.activation_dtype]

    def model_config(self, vocab_size: int) -> GPTConfig:
        """Return the shape of this profile's model.

        Raises:
            ProfileError: the sizes do not fit together.
        """
        try:
            return GPTConfig(
                depth=self.depth,
                vocab_size=vocab_size,
                sequence_length=self.sequence_length,
                width=self.width,
                head_dim=self.head_dim,
                window_pattern=self.window_pattern,
            )
        except ValueError as error:
            raise ProfileError(str(error)) from error

    def with_depth(self, depth: int) -> Profile:
        """Return the profile at another depth, its width scaled along, in whole heads."""
        heads = max(1, round(self.width / self.head_dim * depth / self.depth))
        return replace(self, depth=depth, width=heads * self.head_dim)

    def with_size(self, doublings: int) -> Profile:
        """Return the profile with depth and width doubled so often; negative halves them.

        Depth stays at least 1 and width at least one head, in whole heads.

        Raises:
            ProfileError: the model is as small as it can be already.
        """
        factor = 2.0**doublings
        heads = max(1, round(self.width / self.head_dim * factor))
        depth = max(1, round(self.depth * factor))
        sized = replace(self, depth=depth, width=heads * self.head_dim)
        if doublings != 0 and sized == self:
            raise ProfileError(
                f"the model of profile {self.name} cannot be made smaller: it has {self.depth} "
                f"layer of one head"
            )
        return sized


def profile_names() -> list[str]:
    """List the profiles there are."""
    return sorted(file.stem for file in PROFILES_FOLDER.glob("*.toml"))


def load_profile(name: str) -> Profile:
    """Read the profile of that name.

    Raises:
        ProfileError: there is none, or its file has unknown or missing keys.
    """
    if name not in profile_names():
        raise ProfileError(f"unknown profile {name!r}: choose {', '.join(profile_names())}")
    entries: dict[str, Any] = tomllib.loads((PROFILES_FOLDER / f"{name}.toml").read_text())
    known = {field.name for field in fields(Profile)} - {"name"}
    if unknown := sorted(set(entries) - known):
        raise ProfileError(f"profile {name} has unknown keys: {', '.join(unknown)}")
    try:
        return Profile(name=name, **entries)
    except TypeError as error:
        raise ProfileError(f"profile {name} lacks a size: {error}") from error
