"""Make up logs of the public fixed-data optimizer benchmark."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

PLANNED = 3000
STEPS = (0, 125, 2875, 2900, 2925, 2950, 2975, 3000)
HEADER = "record,run,step,planned_steps,val_loss_nats\n"

SCRIPT = """import torch

SEED = {seed}
# What this printed the last time:
DOC = '''
step:0/3000 val_loss:1.00000 train_time:0.000s step_avg:nanms
step:125/3000 val_loss:1.00000 train_time:9.000s step_avg:72.00ms
'''
print0(f"step:{{step}}/{{train_steps}} val_loss:{{val_loss:.5f}}")
{more}
"""
BAR = "=" * 100


def validation(step: int, loss: float, planned: int = PLANNED) -> str:
    """Return the line a training script prints after a validation."""
    return f"step:{step}/{planned} val_loss:{loss:.5f} train_time:9.1s step_avg:72.00ms\n"


def training(step: int, planned: int = PLANNED) -> str:
    return f"step:{step}/{planned} train_time:9.1s step_avg:72.00ms\n"


def curve(final: float, steps: Sequence[int] = STEPS) -> dict[int, float]:
    """Return a validation curve that falls by .0004 per 25 steps towards its final loss.

    Early losses differ between runs of different final loss, as they do between seeds.
    """
    last = max(steps)
    return {
        step: 10.82584 if step == 0 else round(final + (last - step) * 0.000016, 5)
        for step in steps
    }


def run_text(losses: dict[int, float], planned: int = PLANNED) -> str:
    """Return the metric lines of a run, a line of training before every validation."""
    return "".join(
        training(step, planned) + validation(step, loss, planned) for step, loss in losses.items()
    )


def whole_log(losses: dict[int, float], *, seed: int, more: str = "") -> str:
    """Return a log with its training script and the description of the machine before it."""
    script = SCRIPT.format(seed=seed, more=more)
    return f"{script}\n{BAR}\nRunning PyTorch 2.11\nUsing seed={seed}\n{BAR}\n{run_text(losses)}"


def write_runs(folder: Path, finals: Sequence[float], planned: int = PLANNED) -> Path:
    """Write a submission: one log for every final loss."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, final in enumerate(finals):
        text = run_text(curve(final), planned)
        (folder / f"run_{number}.txt").write_text(text, encoding="utf-8")
    return folder


def rows(record: str, run: int, losses: dict[int, float], planned: int = PLANNED) -> str:
    """Return a run as lines of a table of curves."""
    return "".join(f"{record},{run},{step},{planned},{loss}\n" for step, loss in losses.items())
