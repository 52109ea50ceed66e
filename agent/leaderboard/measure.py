"""Measure a leaderboard: tune every program with the same budget, then score all on fresh seeds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean

from agent.duel import Contender, Course
from agent.evaluations import EvaluatorPool
from agent.leaderboard.record import ANCHOR
from agent.leaderboard.standings import Entry
from agent.programs import NamedProgram
from agent.tune.search import scores_of
from agent.tune.space import space_of
from agent.tune.tuning import Budget, OwnValuesFailError, Tuning, tune
from sandbox.jobs import Outcome
from sandbox.knobs import read_knobs

__all__ = ["Field", "Watch", "budget_fields", "measure"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """Who takes part: the anchor, which is measured as it is, and the others, which are tuned."""

    anchor: NamedProgram
    others: tuple[NamedProgram, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Watch:
    """Who is told: `note` what is being done, `add` every complete entry, the anchor first."""

    note: Callable[[str], None]
    add: Callable[[Entry], None]


async def measure(
    pool: EvaluatorPool,
    field: Field,
    budget: Budget,
    course: Course,
    slots: int,
    watch: Watch,
) -> None:
    """Measure all programs of a field.

    Args:
        pool: the workers, with a record, so that what was measured is not measured again.
        field: the programs.
        budget: of every tuning; its validation seeds are those of the table.
        course: how every run is trained.
        slots: how many runs may be under way at the same time.
        watch: told what comes of it.

    Raises:
        SandboxError: the sandbox failed.
        PoolError: no worker can be had any more.
    """
    seeds = budget.seeds("tune validation", budget.design.max_pairs)

    async def scored(name: str, source: str) -> list[Outcome]:
        contender = Contender(name=name, source=source)
        return await scores_of(pool, contender, course, seeds, slots)

    note, add = watch.note, watch.add
    note(f"{field.anchor.name}: measuring")
    outcomes = await scored(field.anchor.name, field.anchor.source)
    add(
        Entry(
            name=ANCHOR,
            tuning="as a run starts from it",
            bpb=tuple(outcome.bpb for outcome in outcomes),
            own_bpb=(),
            jail_cpu_s=fmean(outcome.jail_cpu_s for outcome in outcomes),
            knobs=_knobs(field.anchor.source),
        )
    )
    for program in field.others:
        note(f"{program.name}: tuning, {budget.trials} trials")
        tuning = Tuning(name=program.name, space=space_of(program.source))
        try:
            tuning = await tune(pool, tuning, budget, course, slots=slots)
        except OwnValuesFailError as error:
            note(str(error))
            add(_failed(program, str(error), len(seeds)))
            continue
        own = await scored(f"{program.name}, own knobs", program.source)
        outcomes = await scored(f"{program.name}, tuned", tuning.source)
        entry = _entry(tuning, own, outcomes)
        note(f"{program.name}: {entry.mean_bpb:.4f} bpb, untuned {entry.own_mean_bpb:.4f}")
        add(entry)


def budget_fields(budget: Budget) -> dict[str, object]:
    """Return a budget as JSON values."""
    return asdict(budget)


def _entry(tuning: Tuning, own: Sequence[Outcome], outcomes: Sequence[Outcome]) -> Entry:
    kept = ", its own knobs kept" if tuning.is_own else ""
    return Entry(
        name=tuning.name,
        tuning=f"{len(tuning.trials)} trials of {len(tuning.space.dimensions)} knobs{kept}",
        bpb=tuple(outcome.bpb for outcome in outcomes),
        own_bpb=tuple(outcome.bpb for outcome in own),
        jail_cpu_s=fmean(outcome.jail_cpu_s for outcome in outcomes),
        knobs=_knobs(tuning.source),
    )


def _failed(program: NamedProgram, reason: str, seeds: int) -> Entry:
    return Entry(
        name=program.name,
        tuning=reason,
        bpb=(None,) * seeds,
        own_bpb=(),
        jail_cpu_s=0.0,
        knobs=_knobs(program.source),
    )


def _knobs(source: str) -> dict[str, object]:
    return {name: knob.value for name, knob in read_knobs(source).items()}
