"""Train a GPT in this process: `python -m nanochat.train --depth 2 --steps 400 --seed 1`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from nanochat.allocator import keep_freed_memory
from nanochat.batches import BatchSource
from nanochat.checkpoint import save_checkpoint
from nanochat.contract import Horizon, ObservingOptimizer
from nanochat.corpus import Corpus, CorpusError, TextSplit, load_corpus
from nanochat.loop import (
    ForwardBackward,
    InProcess,
    TrainingError,
    TrainingResult,
    compile_model,
    eager_model,
    flat_size,
    flatten_parameters,
    train,
)
from nanochat.model import GPT
from nanochat.optimizer_file import (
    SHIPPED_OPTIMIZER,
    OptimizerFileError,
    build_from_module,
    load_optimizer_file,
    set_knobs,
    tuned_knobs,
)
from nanochat.profiles import Profile, ProfileError, load_profile
from nanochat.throughput import measure_peak_flops, model_flops_utilisation
from nanochat.validation import validate

__all__ = ["MAX_SEED", "main", "sparkline"]

MAX_SEED = 2**63 - 1  # the largest that torch, numpy and the database of a run all take
COMPILE_CACHE = Path(".cache/nanoevolve/inductor")
PLOT_COLUMNS = 60
PLOT_LEVELS = "▁▂▃▄▅▆▇█"
PRINTED_LOSSES = 9


class UsageError(Exception):
    """What was asked for cannot be done; nothing has been computed yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """Everything one training run needs, checked and ready."""

    profile: Profile
    corpus: Corpus
    model: GPT
    optimizer: ObservingOptimizer
    optimizer_name: str
    batches: BatchSource
    forward_backward: ForwardBackward
    out: Path


def main(  # noqa: PLR0913 -- one parameter per flag
    *,
    depth: Annotated[int | None, typer.Option(min=1, help="Blocks; the width follows.")] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps.")] = None,
    seed: Annotated[
        int, typer.Option(min=0, max=MAX_SEED, help="Of initial weights and data order.")
    ] = 1,
    profile: Annotated[str, typer.Option(help="micro, cpu or gpu.")] = "cpu",
    width: Annotated[int | None, typer.Option(min=1, help="Residual channels.")] = None,
    heads: Annotated[int | None, typer.Option(min=1, help="Attention heads.")] = None,
    data: Annotated[
        Path | None, typer.Option(help="Text file, folder of text, or parquet.")
    ] = None,
    tokenizer: Annotated[str | None, typer.Option(help="byte or bpe.")] = None,
    optimizer: Annotated[Path | None, typer.Option(help="Optimizer file to use.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, help="CPU threads of torch.")] = 1,
    compile: Annotated[bool, typer.Option("--compile", help="Compile the model.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the checkpoint.")] = None,
) -> None:
    """Train a small GPT with one optimizer file and save a checkpoint.

    Sizes not given come from the profile. The shipped optimizer takes the knobs tuned for the
    profile; another optimizer file is used as it is.
    """
    console = Console()
    torch.set_num_threads(threads)
    keep_freed_memory()
    try:
        sized = _sized_profile(profile, depth=depth, width=width, heads=heads)
        sized = replace(sized, steps=steps or sized.steps, tokenizer=tokenizer or sized.tokenizer)
        run = _prepare(sized, seed, data, optimizer, _checked_device(device), out)
    except (UsageError, CorpusError, ProfileError, OptimizerFileError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    if compile:
        run = replace(run, forward_backward=compile_model(run.model, COMPILE_CACHE))
    _describe(run, console)
    try:
        _train_and_report(run, seed, console)
    except TrainingError as error:
        typer.echo(f"training failed: {error}", err=True)
        raise typer.Exit(1) from error


def sparkline(values: Sequence[float], columns: int = PLOT_COLUMNS) -> str:
    """Draw a curve as one line of blocks, each the mean of its share of the values."""
    columns = min(columns, len(values))
    edges = [round(i * len(values) / columns) for i in range(columns + 1)]
    means = [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
    low, high = min(means), max(means)
    scale = (len(PLOT_LEVELS) - 1) / (high - low) if high > low else 0.0
    return "".join(PLOT_LEVELS[round((mean - low) * scale)] for mean in means)


def _sized_profile(
    name: str, *, depth: int | None, width: int | None, heads: int | None
) -> Profile:
    """Apply the size flags: depth scales the width along unless a width is given."""
    profile = load_profile(name)
    if depth is not None:
        profile = profile.with_depth(depth)
    if width is not None:
        profile = replace(profile, width=width)
    if heads is not None:
        if profile.width % heads:
            raise UsageError(f"width {profile.width} cannot be shared by {heads} heads evenly")
        profile = replace(profile, head_dim=profile.width // heads)
    return profile


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UsageError(f"unknown device {name!r}: choose cpu or cuda") from error
    if device.type not in {"cpu", "cuda"}:
        raise UsageError(f"device {name!r} is not supported: choose cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("no CUDA device is available: use --device cpu")
    return device


def _prepare(
    profile: Profile,
    seed: int,
    data: Path | None,
    optimizer_file: Path | None,
    device: torch.device,
    out: Path | None,
) -> _Run:
    """Load and build everything, so that whatever can be refused is refused here."""
    corpus = load_corpus(data, profile.tokenizer)
    corpus.require(TextSplit.SEARCH, profile.validation_bytes)
    model = GPT(profile.model_config(corpus.tokenizer.vocab_size), profile.dtype)
    model.init_weights(torch.Generator().manual_seed(seed))
    model.to(device)
    size = flat_size(model)
    flatten_parameters(model, torch.zeros(size, device=device), torch.zeros(size, device=device))
    module = load_optimizer_file(optimizer_file or SHIPPED_OPTIMIZER)
    tuned = tuned_knobs(profile.name) if optimizer_file is None else {}
    set_knobs(module, tuned)
    horizon = Horizon(
        total_steps=profile.steps,
        tokens_per_step=profile.tokens_per_step,
        model_width=profile.width,
    )
    try:
        batches = BatchSource(
            corpus.tokens(TextSplit.TRAIN),
            profile.batch_size,
            profile.sequence_length,
            seed,
            device,
        )
    except ValueError as error:
        raise UsageError(f"the training text is too small: {error}") from error
    name = str(optimizer_file or SHIPPED_OPTIMIZER.name)
    return _Run(
        profile=profile,
        corpus=corpus,
        model=model,
        optimizer=build_from_module(module, model.param_infos(), horizon),
        optimizer_name=f"{name}, {len(tuned)} knobs tuned for {profile.name}" if tuned else name,
        batches=batches,
        forward_backward=eager_model(model),
        out=_writable(out or _default_folder(profile, seed, optimizer_file)),
    )


def _default_folder(profile: Profile, seed: int, optimizer_file: Path | None) -> Path:
    """Name a folder after what was trained, so that two optimizers do not share one."""
    size = f"{profile.depth}x{profile.width}"
    name = f"train-{profile.name}-{size}-{profile.steps}-seed{seed}"
    if optimizer_file is not None:
        name += f"-{optimizer_file.resolve().parent.name}-{optimizer_file.stem}"
    return Path("runs") / name


def _writable(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".writable").touch()
        (folder / ".writable").unlink()
    except OSError as error:
        raise UsageError(f"cannot write to {folder}: {error.strerror}; choose --out") from error
    return folder


def _describe(run: _Run, console: Console) -> None:
    corpus, profile, model = run.corpus, run.profile, run.model
    parameters = sum(p.numel() for p in model.parameters())
    console.print(
        f"corpus      {corpus.name} ({corpus.digest[:12]}), "
        f"{corpus.byte_count(TextSplit.TRAIN):,} bytes to train on, {corpus.tokenizer.name} tokens"
    )
    console.print(
        f"model       {profile.depth} layers x {profile.width}, {parameters:,} parameters, "
        f"{model.flops_per_token():,} FLOPs per token"
    )
    console.print(f"optimizer   {run.optimizer_name}")


def _train_and_report(run: _Run, seed: int, console: Console) -> None:
    profile, corpus = run.profile, run.corpus
    result, elapsed_s = _train_with_progress(run, console)
    service = InProcess(run.optimizer)
    service.enter_eval()
    bpb = validate(
        run.model,
        corpus.tokens(TextSplit.SEARCH),
        corpus.tokenizer.token_bytes,
        profile.validation_batch_size,
        profile.sequence_length,
        profile.validation_bytes,
    )
    _print_curve(result, console)
    tokens_per_s = result.tokens / elapsed_s
    peak = measure_peak_flops(next(run.model.parameters()).device, profile.dtype)
    mfu = model_flops_utilisation(run.model.flops_per_token(), tokens_per_s, peak)
    console.print(f"validation  {bpb:.4f} bits per byte of {profile.validation_bytes:,} bytes")
    console.print(
        f"speed       {tokens_per_s:,.0f} tokens/s, {mfu:.0%} of {peak / 1e9:,.0f} GFLOP/s"
    )
    facts: dict[str, Any] = {
        "profile": profile.name,
        "steps": profile.steps,
        "seed": seed,
        "bpb": bpb,
        "final_loss": result.final_loss,
        "corpus": corpus.name,
        "corpus_digest": corpus.digest,
        "optimizer": run.optimizer_name,
        "torch": str(torch.__version__),
    }
    # Saved in eval mode: the weights that were validated are the weights that are kept.
    state_dict = getattr(run.optimizer, "state_dict", dict)
    save_checkpoint(run.out, run.model, corpus.tokenizer, facts=facts, optimizer_state=state_dict())
    console.print(f"checkpoint  {run.out}")


def _train_with_progress(run: _Run, console: Console) -> tuple[TrainingResult, float]:
    """Train, showing progress; also return the seconds it took."""
    columns = (
        TextColumn("training   "),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.3f} nats/token"),
        TimeRemainingColumn(),
    )
    # The first pass compiles, or fills caches: keep it out of the measured time.
    run.forward_backward(*run.batches.batch(0))
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("train", total=run.profile.steps, loss=float("nan"))
        start = time.perf_counter()
        result = train(
            run.model,
            run.batches,
            InProcess(run.optimizer),
            steps=run.profile.steps,
            on_step=lambda step, loss: progress.update(task, completed=step + 1, loss=loss),
            forward_backward=run.forward_backward,
        )
        return result, time.perf_counter() - start


def _print_curve(result: TrainingResult, console: Console) -> None:
    losses = [loss for _, loss in result.curve]
    console.print(f"loss        {sparkline(losses)} nats/token")
    last = len(result.curve) - 1
    shown = sorted({round(i * last / (PRINTED_LOSSES - 1)) for i in range(PRINTED_LOSSES)})
    for index in shown:
        step, loss = result.curve[index]
        console.print(f"            step {step:>6} {loss:.4f} nats/token", highlight=False)


if __name__ == "__main__":
    typer.run(main)
