"""Show a running search: what is left, what was tried, who leads, what is being trained.

`View` is what there is to see, taken from a session at one moment; `render` draws it and knows
nothing else. Without a terminal the same facts are log lines, written by `log_progress`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.budget import describe_seconds
from agent.effects import Effect
from agent.lineage import Lineage
from agent.session import Session
from agent.stage import Decided
from agent.tally import Note
from agent.words import counted

__all__ = [
    "TrainingView",
    "View",
    "describe_champion",
    "describe_effect",
    "log_progress",
    "render",
    "view_of",
]

logger = logging.getLogger(__name__)

SHOWN_FAILURES = 4
SHOWN_TRAININGS = 4  # with all else, that makes 24 lines
BAR_WIDTH = 20
STEP_BAR_WIDTH = 12
STYLES = {Decided.PASS: "cyan", Decided.REJECT: "dim", Decided.PROMOTE: "bold green"}


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingView:
    """One training run under way.

    `program` is the id of a candidate, or says that what is trained is what candidates are
    compared with.
    """

    program: str
    stage: str
    seed: int
    step: int
    steps: int
    elapsed_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What there is to see of a run at one moment.

    `champion` is None until the seed program was measured; `effect` is None while it reigns.
    """

    run_id: str
    profile: str
    sandbox: str
    budget_left: str
    fraction_left: float
    elapsed_s: float
    evaluations: int
    proposals: int
    programs: int
    promotions: int
    failures: tuple[tuple[str, int], ...]
    champion: str | None
    effect: Effect | None
    training: tuple[TrainingView, ...]
    notes: tuple[Note, ...]


def view_of(session: Session) -> View:
    """Take a session's view now."""
    lineage, meter, facts = session.lineage, session.meter, session.run.facts
    now = session.clock()
    level = f"S{facts.get('sandbox_level', '?')}"
    return View(
        run_id=session.run.id,
        profile=str(facts.get("profile", "?")),
        sandbox=level + (" unsafe" if session.run.settings.get("unsafe_sandbox") else ""),
        budget_left=meter.describe_left(),
        fraction_left=meter.fraction_left(),
        elapsed_s=meter.elapsed_s,
        evaluations=meter.evaluations,
        proposals=lineage.tally.proposals,
        programs=lineage.tally.programs,
        promotions=lineage.tally.promotions,
        failures=tuple(lineage.tally.failures.most_common()),
        champion=lineage.champion_id[:12] if lineage.has_champion else None,
        effect=lineage.champion_effect if lineage.has_champion else None,
        training=tuple(
            TrainingView(
                program=_whose(lineage, running.training.program.id),
                stage=running.training.stage,
                seed=running.training.seed,
                step=running.step,
                steps=running.training.steps,
                elapsed_s=(now - running.since).total_seconds(),
            )
            for running in session.evaluator.running
        ),
        notes=tuple(lineage.tally.notes),
    )


def _whose(lineage: Lineage, program_id: str) -> str:
    """Name a program being trained: by its part in the comparison, a candidate by its id."""
    if lineage.has_champion and program_id == lineage.champion_id:
        return "champion"
    if program_id == lineage.seed_program.id:
        return "seed program"
    return "old champion" if lineage.has_reigned(program_id) else program_id[:12]


def describe_champion(champion: str | None, effect: Effect | None) -> str:
    """Say who leads and by how much, with the interval and on how many seeds."""
    if champion is None:
        return "the seed program is being measured"
    if effect is None:
        return f"{champion}, the seed program: nothing better found yet"
    return f"{champion}, {describe_effect(effect)} against the seed program"


def describe_effect(effect: Effect) -> str:
    """Write an effect with its interval and the number of seeds it rests on."""
    return (
        f"{effect.mean:+.4f} bpb [{effect.low:+.4f}, {effect.high:+.4f}] "
        f"on {counted(effect.pairs, 'fresh seed')}"
    )


def log_progress(view: View) -> None:
    """Write the facts of a view as log lines."""
    logger.info(
        "budget left: %s; %s",
        view.budget_left,
        _counts(view),
    )
    logger.info("best: %s", describe_champion(view.champion, view.effect))
    if view.failures:
        logger.info("not kept: %s", ", ".join(f"{name} {n}" for name, n in view.failures))
    for run in view.training:
        logger.info("training: %s", _training_line(run))


def render(view: View) -> RenderableType:
    """Draw a view; fits 24 lines of 80 columns and uses more width where there is some."""
    body = Group(
        _head(view),
        Text(""),
        _section("training now", _training(view)),
        Text(""),
        _section("latest decisions", _notes(view)),
    )
    title = f"[bold]NanoEvolve[/] · {view.run_id} · {view.profile} · sandbox {view.sandbox}"
    return Panel(body, title=title, title_align="left", subtitle="Ctrl-C ends the run cleanly")


def _head(view: View) -> Table:
    table = Table.grid(padding=(0, 2), expand=True)
    table.add_column(style="bold", no_wrap=True, width=8)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    budget = Table.grid(padding=(0, 1))
    budget.add_column(width=BAR_WIDTH)
    budget.add_column(no_wrap=True, overflow="ellipsis")
    bar = ProgressBar(total=1.0, completed=view.fraction_left, width=BAR_WIDTH)
    budget.add_row(bar, f"{view.budget_left} left, {describe_seconds(view.elapsed_s)} spent")
    table.add_row("budget", budget)
    table.add_row("tried", _counts(view))
    table.add_row("not kept", _failures(view))
    style = "green" if view.effect is not None and view.effect.high < 0.0 else ""
    if view.effect is None:
        table.add_row("best", describe_champion(view.champion, None))
    else:
        table.add_row("best", f"{view.champion}, compared with the seed program:")
        table.add_row("effect", Text(describe_effect(view.effect), style=style))
    return table


def _counts(view: View) -> str:
    programs, runs = (
        counted(view.programs, "new program"),
        counted(view.evaluations, "training run"),
    )
    return f"{view.proposals} proposed, {programs}, {runs}, {view.promotions} promoted"


def _failures(view: View) -> Text:
    if not view.failures:
        return Text("nothing so far", style="dim")
    more = len(view.failures) - SHOWN_FAILURES
    text = Text(", ").join(
        Text.assemble(name, " ", (str(count), "bold"))
        for name, count in view.failures[:SHOWN_FAILURES]
    )
    return text.append(f", {counted(more, 'more kind')}") if more > 0 else text


def _training(view: View) -> RenderableType:
    if not view.training:
        return Text("nothing at this moment", style="dim")
    table = Table.grid(padding=(0, 2))
    for run in view.training[:SHOWN_TRAININGS]:
        bar = ProgressBar(total=run.steps, completed=run.step, width=STEP_BAR_WIDTH)
        table.add_row(
            run.program,
            run.stage,
            bar,
            f"{run.step}/{run.steps} steps",
            f"{run.elapsed_s:.0f} s",
            f"seed {run.seed}",
        )
    more = len(view.training) - SHOWN_TRAININGS
    return Group(table, Text(f"and {more} more", style="dim")) if more > 0 else table


def _notes(view: View) -> RenderableType:
    if not view.notes:
        return Text("none so far", style="dim")
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(justify="right", no_wrap=True, width=5)
    table.add_column(no_wrap=True, width=9)
    table.add_column(no_wrap=True, width=7)
    table.add_column(no_wrap=True, width=7)
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    for note in reversed(view.notes):
        style = STYLES.get(Decided(note.decision), "")
        effect = "" if note.effect_bpb is None else f"{note.effect_bpb:+.4f}"
        row = (f"#{note.ordinal}", note.stage, note.decision, effect, Text(note.text))
        table.add_row(*row, style=style)
    return table


def _section(title: str, content: RenderableType) -> Group:
    return Group(Text(title, style="bold"), content)


def _training_line(run: TrainingView) -> str:
    return (
        f"{run.program} {run.stage} seed {run.seed}, step {run.step} of {run.steps}, "
        f"{run.elapsed_s:.0f} s"
    )
