"""The command `python -m agent.plot`: draw how a run's best program came about.

Dots are candidates that were raced, at their estimated effect against the seed program; the
stair is the champion, at the effect its fresh seeds gave, with that effect's 95 % interval.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from agent.effects import Effect, effect_of
from agent.run_folder import RunFolderError, find_run
from agent.stage import Decided, Stage
from db.records import Verdict
from db.store import Store, StoreError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["Reign", "app", "raced", "reigns"]

EXIT_REFUSED = 2
MINUTE_S = 60.0
ZERO = Effect(mean=0.0, low=0.0, high=0.0, pairs=0)
INK, GOOD, FAINT = "#1b1f24", "#1a7f5a", "#b3bac2"

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reign:
    """A champion's time at the top: since when, and its effect against the seed program."""

    program_id: str
    since: datetime
    effect: Effect


@app.command()
def main(
    run: Annotated[str, typer.Argument(help="A run's folder, its id, or `latest`.")],
    out: Annotated[
        Path | None, typer.Option(help="The picture to write, .png or .svg; RUN/best_so_far.png.")
    ] = None,
    runs_dir: Annotated[Path, typer.Option(help="Where ids are looked up.")] = Path("runs"),
) -> None:
    """Draw the best effect so far, with intervals, over the minutes of a run."""
    try:
        folder = find_run(run, runs_dir)
        with Store.open(folder, exclusive=False) as store:
            path = out or folder / "best_so_far.png"
            draw(store, path)
    except (RunFolderError, StoreError, PlotError) as error:
        sys.stderr.write(f"error: {error}\n")
        raise typer.Exit(EXIT_REFUSED) from error
    typer.echo(f"wrote {path}")


class PlotError(Exception):
    """Nothing can be drawn; the message says why."""


def reigns(verdicts: Sequence[Verdict]) -> tuple[Reign, ...]:
    """Return the champions in order, the seed program first at no effect."""
    measured = {
        verdict.program_id: effect
        for verdict in verdicts
        if verdict.stage == Stage.BASELINE and (effect := effect_of(verdict)) is not None
    }
    return tuple(
        Reign(
            program_id=verdict.program_id,
            since=verdict.decided_at,
            effect=measured.get(verdict.program_id, ZERO),
        )
        for verdict in verdicts
        if verdict.decision == Decided.PROMOTE
    )


def raced(verdicts: Sequence[Verdict]) -> tuple[tuple[datetime, float, bool], ...]:
    """Return when each race ended, the estimated effect against the seed program, and who won.

    The estimate is the race's mean difference on top of the champion's own effect.
    """
    champions = {reign.program_id: reign.effect.mean for reign in reigns(verdicts)}
    return tuple(
        (
            verdict.decided_at,
            champions[verdict.reference_id] + verdict.effect_bpb,
            verdict.decision == Decided.PASS,
        )
        for verdict in verdicts
        if verdict.stage == Stage.RACE
        and verdict.effect_bpb is not None
        and verdict.reference_id in champions
    )


def draw(store: Store, path: Path) -> None:
    """Draw a run's picture into a file.

    Raises:
        PlotError: matplotlib is missing, nothing was judged yet, or the file cannot be written.
    """
    verdicts = store.verdicts()
    champions = reigns(verdicts)
    if not champions:
        raise PlotError("nothing to draw yet: the seed program was not measured")
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - the extra `plot` may be missing
    except ImportError as error:
        raise PlotError("drawing needs matplotlib: pip install 'nanoevolve[plot]'") from error
    figure = Figure(figsize=(8.0, 4.0), dpi=150, layout="constrained")
    axes = figure.subplots()
    start, end = champions[0].since, max(verdict.decided_at for verdict in verdicts)
    _draw_races(axes, raced(verdicts), start)
    _draw_champions(axes, champions, start, end)
    axes.axhline(0.0, color=INK, linewidth=0.8, linestyle=(0, (4, 3)))
    axes.set_xlabel("minutes")
    axes.set_ylabel("bits per byte against the tuned seed program")
    axes.set_title(_title(store, champions[-1]), loc="left", fontsize=10)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="best")
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise PlotError(f"cannot write {path}: {error}; give a .png or .svg with --out") from error


def _draw_races(axes: Axes, races: Sequence[tuple[datetime, float, bool]], start: datetime) -> None:
    for won, color, label in ((False, FAINT, "candidate, lost"), (True, GOOD, "candidate, won")):
        points = [(_minutes(at, start), effect) for at, effect, is_won in races if is_won == won]
        if points:
            minutes, effects = zip(*points, strict=True)
            axes.scatter(minutes, effects, s=14, color=color, label=label, zorder=2)
    lowest = min([effect for _, effect, _ in races], default=0.0)  # below 0, or no gain
    # Far losers would squeeze everything else into a line.
    axes.set_ylim(bottom=min(-0.004, 2.5 * lowest), top=max(0.004, -2.0 * lowest))


def _draw_champions(axes: Axes, champions: Sequence[Reign], start: datetime, end: datetime) -> None:
    ends = [reign.since for reign in champions[1:]] + [end]
    for number, (reign, until) in enumerate(zip(champions, ends, strict=True)):
        span = (_minutes(reign.since, start), _minutes(until, start))
        first = number == 0
        axes.plot(
            span,
            (reign.effect.mean,) * 2,
            color=INK,
            linewidth=2.0,
            label="best so far, on fresh seeds" if first else None,
            zorder=3,
        )
        axes.fill_between(
            span,
            reign.effect.low,
            reign.effect.high,
            color=GOOD,
            alpha=0.18,
            linewidth=0,
            label="95 % interval" if number == 1 else None,
        )


def _minutes(at: datetime, start: datetime) -> float:
    return (at - start).total_seconds() / MINUTE_S


def _title(store: Store, best: Reign) -> str:
    run = store.run()
    size = f"profile {run.facts.get('profile')}, {run.facts.get('steps')} steps, seed {run.seed}"
    if best.effect.pairs == 0:
        return f"No improvement found ({size})"
    effect = best.effect
    return (
        f"{effect.mean:+.4f} bpb [{effect.low:+.4f}, {effect.high:+.4f}] over {effect.pairs} "
        f"fresh pairs ({size})"
    )


if __name__ == "__main__":
    app()
