"""The commands: a whole training run and sampling from it, and bad input refused with code 2."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner, Result

from nanochat import sample
from nanochat import train as train_command
from nanochat.allocator import keep_freed_memory
from nanochat.checkpoint import load_checkpoint, load_optimizer_state
from nanochat.model import GPT, GPTConfig
from nanochat.throughput import measure_peak_flops, model_flops_utilisation
from nanochat.train import sparkline

ADAMW = """
import torch

class Observing(torch.optim.AdamW):
    def observe(self, state):
        self.last = state

def build_optimizer(params, horizon):
    return Observing([p.tensor for p in params], lr=3e-3)
"""


def invoke(command: object, *arguments: str) -> Result:
    app = typer.Typer()
    app.command()(command)  # type: ignore[type-var]  # any function with typer's annotations
    return CliRunner().invoke(app, arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """The output and the checkpoint of one micro run of the shipped optimizer."""
    out = tmp_path_factory.mktemp("run")
    result = invoke(train_command.main, "--profile", "micro", "--out", str(out))
    assert result.exit_code == 0, result.output
    return result.output, out


def test_a_run_prints_its_curve_and_score_and_saves_a_checkpoint(run: tuple[str, Path]) -> None:
    output, out = run

    assert re.search(r"step +39 \d\.\d{4} nats/token\n", output)
    score = re.search(r"validation +(\d\.\d{4}) bits per byte of 8,000 bytes", output)
    assert score is not None
    facts = load_checkpoint(out).facts
    assert f"{facts['bpb']:.4f}" == score[1]
    assert facts["bpb"] < 7  # an untrained model needs 8
    assert load_optimizer_state(out)


def test_the_same_command_gives_the_same_weights(run: tuple[str, Path], tmp_path: Path) -> None:
    result = invoke(train_command.main, "--profile", "micro", "--out", str(tmp_path))

    assert result.exit_code == 0
    first = (run[1] / "model.safetensors").read_bytes()
    assert (tmp_path / "model.safetensors").read_bytes() == first


def test_sizes_and_optimizer_can_be_given(tmp_path: Path) -> None:
    (tmp_path / "adamw.py").write_text(ADAMW)
    flags = ["--depth", "2", "--steps", "3", "--width", "48", "--heads", "6", "--seed", "9"]

    result = invoke(
        train_command.main,
        *("--profile", "micro", "--out", str(tmp_path / "out")),
        *("--optimizer", str(tmp_path / "adamw.py"), *flags),
    )

    assert result.exit_code == 0, result.output
    config = load_checkpoint(tmp_path / "out").model.config
    assert (config.depth, config.width, config.heads) == (2, 48, 6)
    meta = json.loads((tmp_path / "out" / "meta.json").read_text())
    assert (meta["facts"]["steps"], meta["facts"]["seed"]) == (3, 9)


def test_a_failed_training_ends_with_code_1_and_its_reason(tmp_path: Path) -> None:
    (tmp_path / "wild.py").write_text(ADAMW.replace("lr=3e-3", "lr=1e30"))

    result = invoke(
        train_command.main,
        *("--profile", "micro", "--out", str(tmp_path / "out")),
        *("--optimizer", str(tmp_path / "wild.py")),
    )

    assert result.exit_code == 1
    assert "training failed: the loss of step 1 is not finite" in result.stderr


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (["--profile", "big"], "unknown profile 'big'"),
        (["--data", "absent.txt"], "no such file or folder: absent.txt"),
        (["--tokenizer", "word"], "unknown tokenizer 'word'"),
        (["--optimizer", "absent.py"], "no Python file at absent.py"),
        (["--width", "50"], "width 50"),
        (["--heads", "3"], "cannot be shared by 3 heads"),
        (["--device", "abacus"], "unknown device 'abacus'"),
        (["--device", "meta"], "device 'meta' is not supported"),
        (["--steps", "3"], "a run of 3 steps is shorter than the schedules need"),
        (["--out", "/dev/null/here"], "cannot write to /dev/null/here"),
    ],
)
def test_bad_input_ends_with_code_2_and_one_sentence(
    flags: list[str], complaint: str, tmp_path: Path
) -> None:
    defaults = {"--profile": "micro", "--out": str(tmp_path)}
    given = [
        word for flag, value in defaults.items() if flag not in flags for word in (flag, value)
    ]

    result = invoke(train_command.main, *given, *flags)

    assert result.exit_code == 2
    assert complaint in result.stderr
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.skipif(torch.cuda.is_available(), reason="tells what happens without CUDA")
def test_an_absent_accelerator_is_refused(tmp_path: Path) -> None:
    result = invoke(train_command.main, "--device", "cuda", "--out", str(tmp_path))

    assert result.exit_code == 2
    assert "no CUDA device is available: use --device cpu" in result.stderr


@pytest.mark.parametrize("flag", ["--steps", "--depth"])
def test_a_size_of_zero_is_refused(flag: str) -> None:
    assert invoke(train_command.main, flag, "0").exit_code == 2


@pytest.mark.parametrize(
    ("command", "folder"), [(train_command.main, "--out"), (sample.main, "--checkpoint")]
)
def test_a_seed_of_more_than_63_bits_is_refused(
    command: object, folder: str, tmp_path: Path
) -> None:
    result = invoke(command, "--seed", str(2**63), folder, str(tmp_path))

    assert result.exit_code == 2
    assert "--seed" in result.stderr


def test_too_little_text_is_refused_before_training(tmp_path: Path) -> None:
    (tmp_path / "short.txt").write_text("Too short. " * 300)

    result = invoke(
        train_command.main, "--data", str(tmp_path / "short.txt"), "--out", str(tmp_path)
    )

    assert result.exit_code == 2
    assert "bytes of text in all" in result.stderr


def test_a_sample_continues_its_prompt(run: tuple[str, Path]) -> None:
    flags = ["--checkpoint", str(run[1]), "--prompt", "The Union", "--tokens", "40"]

    first, again = (invoke(sample.main, *flags).output for _ in range(2))
    other = invoke(sample.main, *flags, "--seed", "2").output

    assert first.startswith("The Union")
    assert first == again
    assert first != other


def test_sampling_without_a_checkpoint_ends_with_code_2(tmp_path: Path) -> None:
    result = invoke(sample.main, "--checkpoint", str(tmp_path))

    assert result.exit_code == 2
    assert f"no checkpoint in {tmp_path}" in result.stderr


def test_greedy_sampling_takes_the_likeliest_token_each_time() -> None:
    model = GPT(GPTConfig(depth=1, width=32, head_dim=16, vocab_size=60, sequence_length=8))
    model.init_weights(torch.Generator().manual_seed(0))

    def continued(temperature: float, top_k: int) -> list[int]:
        generator = torch.Generator().manual_seed(1)
        return sample.generate(
            model, [3], 12, temperature=temperature, top_k=top_k, generator=generator
        )

    expected = [3]
    for _ in range(12):
        expected.append(int(model.logits(torch.tensor([expected[-8:]]))[0, -1].argmax()))
    assert continued(0, 0) == continued(1.0, 1) == expected[1:]
    assert continued(1.0, 0) != expected[1:]


def test_a_falling_curve_is_drawn_falling() -> None:
    assert sparkline([8.0, 7.0, 6.0, 5.0, 4.0, 3.0, 2.0, 1.0]) == "█▇▆▅▄▃▂▁"


@pytest.mark.parametrize(("values", "drawn"), [([2.0], "▁"), ([3.0] * 200, "▁" * 60)])
def test_a_flat_curve_is_drawn_flat(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn


def test_utilisation_is_the_share_of_the_peak() -> None:
    assert model_flops_utilisation(1000, 50.0, 200_000.0) == pytest.approx(0.25)


def test_the_peak_is_more_than_a_loop_in_python_reaches() -> None:
    assert measure_peak_flops(torch.device("cpu"), torch.float32) > 1e8


def test_the_c_library_accepts_to_keep_memory() -> None:
    assert keep_freed_memory()
