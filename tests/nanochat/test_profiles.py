"""The shipped profiles load, fit together, and refuse nonsense."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nanochat import profiles
from nanochat.profiles import ProfileError, load_profile, profile_names


@pytest.mark.parametrize("name", ["micro", "cpu", "gpu"])
def test_every_shipped_profile_describes_a_model(name: str) -> None:
    profile = load_profile(name)

    config = profile.model_config(vocab_size=257)

    assert (config.depth, config.width) == (profile.depth, profile.width)


def test_the_profile_of_the_default_run_is_the_one_its_knobs_were_tuned_at() -> None:
    profile = load_profile("cpu")

    sizes = (profile.depth, profile.width, profile.sequence_length, profile.batch_size)
    assert sizes == (2, 64, 128, 8)
    assert (profile.steps, profile.validation_bytes) == (400, 200_000)
    assert profile.tokens_per_step == 1024


def test_an_unknown_profile_is_refused_with_those_there_are() -> None:
    with pytest.raises(ProfileError, match="unknown profile 'big': choose cpu, gpu, micro"):
        load_profile("big")


@pytest.mark.parametrize("name", ["../profiles/cpu", "", "cpu.toml"])
def test_a_path_is_no_profile(name: str) -> None:
    with pytest.raises(ProfileError, match="unknown profile"):
        load_profile(name)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("colour = 3", "unknown keys: colour"),
        ("steps = 0", "steps must be at least 1, found 0"),
        ('activation_dtype = "int4"', "'int4'"),
    ],
)
def test_a_wrong_file_is_refused_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str, complaint: str
) -> None:
    kept = [
        line
        for line in (profiles.PROFILES_FOLDER / "micro.toml").read_text().splitlines()
        if line.split("=")[0] != change.split("=", maxsplit=1)[0]
    ]
    (tmp_path / "mine.toml").write_text("\n".join([*kept, change]))
    monkeypatch.setattr(profiles, "PROFILES_FOLDER", tmp_path)

    with pytest.raises(ProfileError, match=complaint):
        load_profile("mine")


def test_a_file_that_lacks_a_size_is_refused_by_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.toml").write_text("depth = 2")
    monkeypatch.setattr(profiles, "PROFILES_FOLDER", tmp_path)

    assert profile_names() == ["mine"]
    with pytest.raises(ProfileError, match=r"lacks a size: .*'width'"):
        load_profile("mine")


@pytest.mark.parametrize(("depth", "width"), [(1, 32), (2, 64), (4, 128), (3, 96)])
def test_the_width_follows_the_depth(depth: int, width: int) -> None:
    resized = load_profile("cpu").with_depth(depth)

    assert (resized.depth, resized.width) == (depth, width)


@pytest.mark.parametrize(
    ("doublings", "depth", "width"), [(-1, 1, 32), (0, 2, 64), (1, 4, 128), (2, 8, 256)]
)
def test_a_size_up_doubles_depth_and_width_and_nothing_else(
    doublings: int, depth: int, width: int
) -> None:
    usual = load_profile("cpu")

    sized = usual.with_size(doublings)

    assert sized == replace(usual, depth=depth, width=width)


def test_a_model_of_one_head_and_layer_cannot_be_smaller() -> None:
    least = replace(load_profile("micro"), width=16)

    with pytest.raises(ProfileError, match="cannot be made smaller"):
        least.with_size(-1)


def test_sizes_that_do_not_fit_the_model_are_a_profile_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (profiles.PROFILES_FOLDER / "micro.toml").read_text()
    (tmp_path / "odd.toml").write_text(text.replace("head_dim = 16", "head_dim = 20"))
    monkeypatch.setattr(profiles, "PROFILES_FOLDER", tmp_path)

    with pytest.raises(ProfileError, match="width 32"):
        load_profile("odd").model_config(257)
