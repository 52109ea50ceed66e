"""Tune the optimizer's knobs at the size of a profile: `python -m nanochat.sweep`.

A search must not be credited with retuning, so its seed program is tuned first. A trial turns a
few dials of the best point so far, and races it on the same seeds: same initial weights, same
data order. It is dropped as soon as it is clearly behind, and becomes the new best if it is ahead
on average over all seeds. Every trial is a line of a JSON Lines file; a sweep that is started
again goes on behind the last line. At the end the best point meets the shipped defaults on fresh
seeds, and is written with that evidence to the folder `tuned`.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from rich.console import Console

from nanochat import optim
from nanochat.allocator import keep_freed_memory
from nanochat.batches import BatchSource
from nanochat.contract import Horizon
from nanochat.corpus import Corpus, CorpusError, TextSplit, load_corpus
from nanochat.dials import Point, Value, knobs_of, mutate, scaled_warmups, start_point
from nanochat.loop import InProcess, TrainingError, flat_size, flatten_parameters, train
from nanochat.model import GPT
from nanochat.optimizer_file import TUNED_FOLDER, set_knobs
from nanochat.profiles import Profile, ProfileError, load_profile
from nanochat.train import MAX_SEED
from nanochat.validation import validate

__all__ = ["Race", "SweepError", "Trial", "read_record", "score"]

# Equally good points differ by about .005 bpb on one seed (paired sd at profile cpu); a trial
# that is this far behind on average is not worth another run.
HOPELESS_GAP_BPB = 0.006
# Far apart, so that no two stages share a seed.
FIRST_RACE_SEED, FIRST_FRESH_SEED = 1000, 9000
# Enough to tell any two scores apart that differ by more than rounding.
RECORDED_DIGITS = 6


class SweepError(Exception):
    """The sweep cannot start: its record belongs to another sweep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One point and what it scored.

    `parent` is the number of the trial it was made from, None for the start point. `bpb` holds
    one score per race seed, in their order; fewer if the trial was dropped on the way. A run
    that diverged scores infinity.
    """

    number: int
    parent: int | None
    point: Point
    bpb: list[float]
    is_best: bool


class Race:
    """A sweep in progress: the best trial so far, and how the next ones are made and judged.

    Which points are tried follows from the seed, the batch size and the scores alone.
    """

    def __init__(
        self, profile: Profile, pool: Executor, *, seed: int, seeds: Sequence[int]
    ) -> None:
        self.best: Trial | None = None
        self.trials = 0
        self._profile, self._pool = profile, pool
        self._seed, self._seeds = seed, tuple(seeds)

    def resume(self, trials: Sequence[Trial]) -> None:
        """Go on behind trials that were made before."""
        self.trials = len(trials)
        self.best = next((trial for trial in reversed(trials) if trial.is_best), None)

    def next_batch(self, size: int) -> list[Trial]:
        """Try points next to the best one, or first of all the start point."""
        if self.best is None:
            points = [start_point()]
        else:
            numbers = range(self.trials, self.trials + size)
            generators = (np.random.default_rng([self._seed, number]) for number in numbers)
            points = [mutate(self.best.point, rng) for rng in generators]
        scores = self._run(points)
        winner = self._winner(scores)
        batch = [
            Trial(
                number=self.trials + index,
                parent=None if self.best is None else self.best.number,
                point=point,
                bpb=bpb,
                is_best=index == winner,
            )
            for index, (point, bpb) in enumerate(zip(points, scores, strict=True))
        ]
        self.trials += len(batch)
        self.best = next((trial for trial in batch if trial.is_best), self.best)
        return batch

    def _run(self, points: Sequence[Point]) -> list[list[float]]:
        """Score all points seed by seed, without those that have fallen behind."""
        scores: list[list[float]] = [[] for _ in points]
        running = list(range(len(points)))
        for count, seed in enumerate(self._seeds, start=1):
            task = partial(score, self._profile, seed=seed)
            found = self._pool.map(task, [knobs_of(points[index]) for index in running])
            for index, bpb in zip(running, found, strict=True):
                scores[index].append(round(bpb, RECORDED_DIGITS))
            running = [i for i in running if self._lead(scores[i][:count]) > -HOPELESS_GAP_BPB]
        return scores

    def _lead(self, bpb: Sequence[float]) -> float:
        """How far a point is ahead of the best one on the seeds it has been run on."""
        if self.best is None:
            return math.inf
        return statistics.fmean(self.best.bpb[: len(bpb)]) - statistics.fmean(bpb)

    def _winner(self, scores: Sequence[Sequence[float]]) -> int | None:
        finished = [i for i, bpb in enumerate(scores) if len(bpb) == len(self._seeds)]
        ahead = [i for i in finished if self._lead(scores[i]) > 0.0]
        return max(ahead, key=lambda i: self._lead(scores[i]), default=None)


def score(profile: Profile, knobs: Mapping[str, Value], seed: int) -> float:
    """Train from the weights and the data order of `seed`; return bits per byte afterwards.

    Validates on the split that searches use. A run that breaks off scores infinity.

    Raises:
        HorizonError: the warm-ups are longer than the profile's runs.
    """
    corpus = _corpus(profile.tokenizer)
    model = GPT(profile.model_config(corpus.tokenizer.vocab_size))
    model.init_weights(torch.Generator().manual_seed(seed))
    size = flat_size(model)
    flatten_parameters(model, torch.empty(size), torch.empty(size))
    batches = BatchSource(
        corpus.tokens(TextSplit.TRAIN), profile.batch_size, profile.sequence_length, seed
    )
    horizon = Horizon(
        total_steps=profile.steps,
        tokens_per_step=profile.tokens_per_step,
        model_width=profile.width,
    )
    with turned(knobs):
        service = InProcess(optim.build_optimizer(model.param_infos(), horizon))
        try:
            train(model, batches, service, steps=profile.steps)
        except TrainingError:
            return math.inf
    service.enter_eval()
    return validate(
        model,
        corpus.tokens(TextSplit.SEARCH),
        corpus.tokenizer.token_bytes,
        profile.validation_batch_size,
        profile.sequence_length,
        profile.validation_bytes,
    )


@contextmanager
def turned(knobs: Mapping[str, Value]) -> Iterator[None]:
    """Set knobs of the optimizer module by their full names, and set them back afterwards."""
    tables = {name: getattr(optim, name.partition(".")[0]) for name in knobs}
    before = {name: getattr(table, name.partition(".")[2]) for name, table in tables.items()}
    set_knobs(optim, knobs)
    try:
        yield
    finally:
        set_knobs(optim, before)


def shipped_knobs(profile: Profile) -> dict[str, Value]:
    """Name the changes without which the shipped defaults cannot run at this profile.

    Only a run shorter than the shipped warm-ups needs any: warm-ups of a tenth of its steps.
    """
    names = ("SCHEDULE.warmup_steps", "ADAMW.warmup_steps")
    longest = max(optim.SCHEDULE.warmup_steps, optim.ADAMW.warmup_steps)
    return {} if longest + 2 <= profile.steps else dict.fromkeys(names, profile.steps // 10)


def read_record(file: Path, settings: Mapping[str, Any]) -> list[Trial]:
    """Read the trials of a record; start it with the settings if there is none yet.

    A last line that a crash left incomplete is cut off.

    Raises:
        SweepError: it was made with other settings.
    """
    header = json.dumps(settings)
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(header + "\n", encoding="utf-8")
        return []
    text = file.read_text(encoding="utf-8")
    whole = text[: text.rfind("\n") + 1]
    if whole != text:
        file.write_text(whole, encoding="utf-8")
    first, *lines = whole.splitlines()
    if first != header:
        raise SweepError(f"{file} records a sweep with other settings: choose another --out")
    trials: list[Trial] = []
    for line in lines:
        entry = json.loads(line)
        made_from = {} if entry["parent"] is None else trials[entry["parent"]].point
        trials.append(Trial(point={**made_from, **entry.pop("turned")}, **entry))
    return trials


def append_record(file: Path, trials: Sequence[Trial], trial: Trial) -> None:
    """Add a trial to a record: which dials it turned, compared with its parent in `trials`."""
    made_from = {} if trial.parent is None else trials[trial.parent].point
    entry = {
        "number": trial.number,
        "parent": trial.parent,
        "turned": {k: v for k, v in trial.point.items() if made_from.get(k) != v},
        "bpb": trial.bpb,
        "is_best": trial.is_best,
    }
    with file.open("a", encoding="utf-8") as stream:
        stream.write(json.dumps(entry) + "\n")


def evidence(profile: Profile, best: Trial, pool: Executor, pairs: int) -> dict[str, Any]:
    """Compare the best point with the shipped defaults on seeds that no trial has seen."""
    seeds = range(FIRST_FRESH_SEED, FIRST_FRESH_SEED + pairs)
    knobs = [shipped_knobs(profile), knobs_of(best.point)]
    tasks = [(each, seed) for seed in seeds for each in knobs]
    found = list(pool.map(partial(score, profile), *zip(*tasks, strict=True)))
    shipped, tuned = found[::2], found[1::2]
    gains = [tuned_bpb - shipped_bpb for shipped_bpb, tuned_bpb in zip(shipped, tuned, strict=True)]
    corpus = _corpus(profile.tokenizer)
    return {
        "corpus": corpus.name,
        "corpus_digest": corpus.digest,
        "steps": profile.steps,
        "fresh_seeds": list(seeds),
        "changes_needed_to_run_the_defaults": knobs[0],
        "mean_bpb_default": round(statistics.fmean(shipped), 5),
        "sd_bpb_default": round(statistics.stdev(shipped), 5),
        "mean_bpb_tuned": round(statistics.fmean(tuned), 5),
        "sd_bpb_tuned": round(statistics.stdev(tuned), 5),
        "mean_paired_difference_bpb": round(statistics.fmean(gains), 5),
        "sd_paired_difference_bpb": round(statistics.stdev(gains), 5),
    }


def _prepare_worker() -> None:
    torch.set_num_threads(1)
    keep_freed_memory()


@lru_cache(maxsize=1)
def _corpus(tokenizer_name: str) -> Corpus:
    return load_corpus(tokenizer_name=tokenizer_name)


def _line(trial: Trial) -> str:
    start = start_point()
    turned_dials = {k: v for k, v in trial.point.items() if v != start[k]}
    scores = " ".join(f"{bpb:.4f}" for bpb in trial.bpb)
    return f"{trial.number:4d}  {scores:20s}  {'best' if trial.is_best else '    '}  {turned_dials}"


app = typer.Typer(add_completion=False)


@app.command()
def main(  # noqa: PLR0913, PLR0917 -- one parameter per flag
    profile_name: Annotated[str, typer.Option("--profile", help="Size to tune at.")] = "cpu",
    trials: Annotated[int, typer.Option(min=1, help="Points to try, earlier ones included.")] = 100,
    workers: Annotated[int, typer.Option(min=1, help="Processes, one thread each.")] = 1,
    seed: Annotated[int, typer.Option(min=0, max=MAX_SEED, help="Of the points tried.")] = 0,
    race_seeds: Annotated[int, typer.Option(min=1, help="Seeds each point is raced on.")] = 3,
    pairs: Annotated[int, typer.Option(min=2, help="Fresh seeds of the final comparison.")] = 8,
    out: Annotated[Path | None, typer.Option(help="The record, a .jsonl file.")] = None,
) -> None:
    """Tune the knobs at a profile's size; write the record and `tuned/<profile>.json`."""
    console = Console()
    record = out or TUNED_FOLDER / f"{profile_name}_sweep.jsonl"
    seeds = range(FIRST_RACE_SEED, FIRST_RACE_SEED + race_seeds)
    try:
        profile = load_profile(profile_name)
        settings = {"profile": asdict(profile), "seed": seed, "race_seeds": list(seeds)}
        settings["corpus_digest"] = _corpus(profile.tokenizer).digest
        tried = read_record(record, settings)
    except (ProfileError, CorpusError, SweepError) as error:
        console.print(str(error), style="red", markup=False)
        raise typer.Exit(2) from error
    spawn = get_context("spawn")
    with ProcessPoolExecutor(workers, spawn, _prepare_worker) as pool:
        race = Race(profile, pool, seed=seed, seeds=seeds)
        race.resume(tried)
        while race.trials < trials:
            for trial in race.next_batch(min(workers, trials - race.trials)):
                append_record(record, tried, trial)
                tried.append(trial)
                console.print(_line(trial), markup=False, highlight=False, soft_wrap=True)
        if race.best is None:
            raise RuntimeError("a sweep of at least one trial has a best one")
        result = {
            "profile": profile.name,
            "knobs": knobs_of(race.best.point) | scaled_warmups(profile.steps),
            "evidence": {
                "trials": race.trials,
                "race_seeds": list(seeds),
                **evidence(profile, race.best, pool, pairs),
                "date": datetime.now(UTC).date().isoformat(),
            },
        }
    target = record.with_name(f"{profile.name}.json")
    target.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    console.print_json(data=result["evidence"])
    console.print(f"written to {target}", markup=False)


if __name__ == "__main__":
    app()
