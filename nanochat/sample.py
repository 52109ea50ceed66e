"""Let a trained model write: `python -m nanochat.sample --checkpoint DIR --prompt "My fellow"`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer

from nanochat.checkpoint import CheckpointError, load_checkpoint
from nanochat.model import GPT
from nanochat.train import MAX_SEED

__all__ = ["generate", "main"]


@torch.no_grad()
def generate(
    model: GPT,
    prompt: list[int],
    count: int,
    *,
    temperature: float,
    top_k: int,
    generator: torch.Generator,
) -> list[int]:
    """Continue a sequence of token ids.

    The context is the last `sequence_length` tokens; nothing is cached between tokens.

    Args:
        model: on the CPU.
        prompt: at least one id.
        count: tokens to add.
        temperature: divides the logits; 0 always takes the likeliest token.
        top_k: only the likeliest this many tokens may be drawn; 0 for all.
        generator: of the draws.

    Returns:
        The new ids, without the prompt.
    """
    ids = list(prompt)
    for _ in range(count):
        context = torch.tensor([ids[-model.config.sequence_length :]])
        logits = model.logits(context)[0, -1]  # (vocab,)
        if temperature == 0:
            ids.append(int(logits.argmax()))
            continue
        if 0 < top_k < len(logits):
            logits[logits < logits.topk(top_k).values[-1]] = -torch.inf
        shares = torch.softmax(logits / temperature, 0)
        ids.append(int(torch.multinomial(shares, 1, generator=generator)))
    return ids[len(prompt) :]


def main(
    *,
    checkpoint: Annotated[Path, typer.Option(help="Folder written by nanochat.train.")],
    prompt: Annotated[str, typer.Option(help="Text to continue.")] = "",
    tokens: Annotated[int, typer.Option(min=1, help="Tokens to write.")] = 300,
    temperature: Annotated[float, typer.Option(min=0.0, help="0 is greedy.")] = 0.8,
    top_k: Annotated[int, typer.Option(min=0, help="Choices per token; 0 for all.")] = 50,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the draws.")] = 1,
) -> None:
    """Print the prompt and what the model makes of it."""
    try:
        loaded = load_checkpoint(checkpoint)
    except CheckpointError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(2) from error
    torch.set_num_threads(1)
    written = generate(
        loaded.model,
        [loaded.tokenizer.bos, *loaded.tokenizer.encode(prompt).tolist()],
        tokens,
        temperature=temperature,
        top_k=top_k,
        generator=torch.Generator().manual_seed(seed),
    )
    typer.echo(prompt + loaded.tokenizer.decode(written))


if __name__ == "__main__":
    typer.run(main)
