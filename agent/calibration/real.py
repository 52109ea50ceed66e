"""Put plants through the real pipeline by the dozen and count what became of them."""

from __future__ import annotations

import asyncio
import hashlib
import itertools
import math
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scipy.special import stdtrit

from agent.calibration.lone_errors import lone_errors
from agent.calibration.operating import Rate, rate_of
from agent.calibration.plants import Kind, Plant, bad, chance, gains, same
from agent.calibration.record import Record
from agent.calibration.trial import Trial, differences_of, put_through
from agent.evaluations import EvaluatorPool
from agent.seeds import pair_seeds
from agent.settings import Settings

__all__ = ["Measured", "Programme", "Result", "facts_of", "results", "run_trials", "trial_count"]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Programme:
    """How many trials there are to be.

    Attributes:
        tuned: the text of the tuned program, which all plants are made from.
        aa: trials of candidates that differ from their incumbent by luck alone.
        repeats: trials of each planted gain.
        effect_pairs: pairs on which each planted gain is measured.
        bad_trials: trials of each bad optimizer. What does the same is tried once.
    """

    tuned: str
    aa: int = 100
    repeats: int = 10
    effect_pairs: int = 32
    bad_trials: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """A mean paired difference with its 95 % interval, and the sd of one difference."""

    mean_bpb: float
    low_bpb: float
    high_bpb: float
    sd_bpb: float
    pairs: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of the trials of one plant.

    Attributes:
        name: of the plant.
        kind: what is known of it.
        promoted: how many became champion.
        claimed: how many were confirmed besides.
        effect: what the plant is worth, where it was measured.
        mean_pairs: of the trials that came to the race; NaN without.
        mean_reported_bpb: the race's effect in the trials that were promoted; NaN without.
        mean_runs: training runs per trial.
        ends: how many trials ended at which stage.
    """

    name: str
    kind: Kind
    promoted: Rate
    claimed: Rate
    effect: Measured | None
    mean_pairs: float
    mean_reported_bpb: float
    mean_runs: float
    ends: Mapping[str, int]


def facts_of(pool: EvaluatorPool, programme: Programme, settings: Settings) -> dict[str, Any]:
    """Name what trials rest on: with other facts they are other trials."""
    ready = pool.ready
    return {
        "profile": ready.profile,
        "steps": ready.steps,
        "corpus_digest": ready.corpus_digest,
        "device": ready.device,
        "tuned": hashlib.sha256(programme.tuned.encode()).hexdigest(),
        "seed": settings.seed,
        "effect_pairs": programme.effect_pairs,
    }


async def run_trials(
    pool: EvaluatorPool,
    programme: Programme,
    record: Record,
    *,
    settings: Settings,
    watch: Callable[[Trial], None] = lambda _: None,
) -> None:
    """Carry out what the record does not hold yet; `settings.workers` trials at a time.

    Args:
        pool: the workers.
        programme: what there is to be.
        record: takes what is finished; whatever ends this early, it keeps that.
        settings: of every run but for its seed, which is derived from the one given.
        watch: told of every finished trial.

    Raises:
        TrialError: a plant could not be judged.
        SandboxError, PoolError: the sandbox failed.
    """
    for plant in _measured_plants(programme):
        if plant.name not in record.differences:
            upcoming = pair_seeds(settings.seed, f"calibrate-effect/{plant.name}")
            seeds = list(itertools.islice(upcoming, programme.effect_pairs))
            record.add_differences(plant.name, await differences_of(pool, plant, seeds))
    waiting = deque(
        (plant, number)
        for plant, number in _in_turn(programme)
        if (plant.name, number) not in record.trials
    )

    async def slot(root: Path) -> None:
        while waiting:
            plant, number = waiting.popleft()
            seed = _seed_of(settings.seed, plant, number)
            trial = await put_through(
                pool,
                plant,
                number,
                settings=settings.model_copy(update={"seed": seed, "workers": 1}),
                folder=root / f"{seed}",
            )
            record.add_trial(trial)
            watch(trial)

    with tempfile.TemporaryDirectory(prefix="calibrate-") as root, lone_errors():
        async with asyncio.TaskGroup() as group:
            for _ in range(settings.workers):
                group.create_task(slot(Path(root)))


def results(programme: Programme, record: Record) -> tuple[Result, ...]:
    """Count what the record holds, plant by plant, in the order of the programme."""
    plants = {plant.name: plant.kind for plant, _ in _trials(programme)}
    found = []
    for name, kind in plants.items():
        trials = [trial for (plant, _), trial in record.trials.items() if plant == name]
        if trials:
            found.append(_result(name, kind, trials, record.differences.get(name)))
    return tuple(found)


def trial_count(programme: Programme) -> int:
    """Count the trials that there are to be."""
    return len(_trials(programme))


def _result(
    name: str, kind: Kind, trials: Sequence[Trial], differences: Sequence[float] | None
) -> Result:
    ends: dict[str, int] = {}
    for trial in trials:
        ends[trial.ended_at] = ends.get(trial.ended_at, 0) + 1
    return Result(
        name=name,
        kind=kind,
        promoted=rate_of(sum(trial.promoted for trial in trials), len(trials)),
        claimed=rate_of(sum(trial.claimed is True for trial in trials), len(trials)),
        effect=None if differences is None else _measured(differences),
        mean_pairs=_mean(trial.race_pairs for trial in trials if trial.race_pairs),
        mean_reported_bpb=_mean(
            trial.race_effect_bpb
            for trial in trials
            if trial.promoted and trial.race_effect_bpb is not None
        ),
        mean_runs=_mean(trial.runs for trial in trials),
        ends=ends,
    )


def _measured(differences: Sequence[float]) -> Measured:
    pairs = len(differences)
    mean = math.fsum(differences) / pairs
    sd = math.sqrt(math.fsum((one - mean) ** 2 for one in differences) / (pairs - 1))
    half = float(stdtrit(pairs - 1, 0.5 + CONFIDENCE / 2.0)) * sd / math.sqrt(pairs)
    return Measured(
        mean_bpb=mean, low_bpb=mean - half, high_bpb=mean + half, sd_bpb=sd, pairs=pairs
    )


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found) if found else math.nan


def _trials(programme: Programme) -> list[tuple[Plant, float]]:
    """List every trial with its place, from 0 to 1, in the course of the calibration."""
    tuned = programme.tuned
    found = [(plant, 0.0) for plant in same(tuned)]
    counts = [(plant, programme.bad_trials) for plant in bad(tuned)]
    counts += [(plant, programme.repeats) for plant in gains(tuned)]
    for plant, count in counts:
        found += [(plant, number / count) for number in range(count)]
    found += [(chance(tuned, number), number / programme.aa) for number in range(programme.aa)]
    return found


def _in_turn(programme: Programme) -> list[tuple[Plant, int]]:
    """Mix the plants evenly, so that a calibration stopped half way knows half of everything."""
    numbers: dict[str, int] = {}
    turn = []
    for plant, _ in sorted(_trials(programme), key=lambda one: one[1]):
        turn.append((plant, numbers.get(plant.name, 0)))
        numbers[plant.name] = numbers.get(plant.name, 0) + 1
    return turn


def _measured_plants(programme: Programme) -> tuple[Plant, ...]:
    return gains(programme.tuned) if programme.repeats else ()


def _seed_of(seed: int, plant: Plant, number: int) -> int:
    seeds = pair_seeds(seed, f"calibrate/{plant.name}")
    return next(itertools.islice(seeds, number, None))
