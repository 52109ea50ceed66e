"""Pools of real noise: scores of pairs of programs on shared seeds.

A pool is a JSON file:

    {"format": "nanoevolve-pool-1",
     "origin": "where the scores come from, for the reader",
     "simulated": false,
     "cpu_s_per_run": 8.3,
     "comparisons": [
       {"name": "momentum .90", "seeds": [7, 8],
        "candidate": [2.11, 2.09], "reference": [2.12, 2.10]}]}

Scores are bits per byte, one per seed, candidate and reference trained on the same initial
weights and data. Whatever the programs were, they lend their *noise*: each comparison is centred
before it is used, and effects of known size are planted. A comparison whose differences are all
the same number has none to lend and is refused.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from db.records import Evaluation
from sandbox.jobs import Gradients

__all__ = ["Comparison", "Pool", "PoolError", "pool_of", "read_pool", "write_pool"]

FORMAT = "nanoevolve-pool-1"

# With fewer pairs a comparison's spread and shape are mostly luck.
LEAST_PAIRS = 8


class PoolError(ValueError):
    """A pool cannot be used; the message says what is wrong with it and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """Two programs on shared seeds: their scores, in the order of the seeds.

    Raises:
        PoolError: too few pairs, lengths that differ, a seed twice, a score that is not finite, or
            differences that are all the same.
    """

    name: str
    seeds: tuple[int, ...]
    candidate: tuple[float, ...]
    reference: tuple[float, ...]

    def __post_init__(self) -> None:
        lengths = {len(self.seeds), len(self.candidate), len(self.reference)}
        if len(lengths) != 1:
            raise PoolError(f"{self.name}: seeds, candidate and reference differ in length")
        if len(set(self.seeds)) < max(LEAST_PAIRS, len(self.seeds)):
            raise PoolError(
                f"{self.name}: expected {LEAST_PAIRS} or more distinct seeds, found "
                f"{len(set(self.seeds))} among {len(self.seeds)}"
            )
        if not all(map(math.isfinite, self.candidate + self.reference)):
            raise PoolError(f"{self.name}: a score is not a finite number")
        if len({a - b for a, b in zip(self.candidate, self.reference, strict=True)}) == 1:
            raise PoolError(f"{self.name}: all differences are the same, there is no noise in them")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Comparisons of one setting.

    `simulated` says that the scores were made up; whatever is measured on such a pool must say so
    too. `cpu_s_per_run` turns numbers of training runs into core hours.

    Raises:
        PoolError: no comparison, or a cost that is not positive.
    """

    origin: str
    simulated: bool
    cpu_s_per_run: float
    comparisons: tuple[Comparison, ...]

    def __post_init__(self) -> None:
        if not self.comparisons:
            raise PoolError("the pool has no comparison")
        if not 0.0 < self.cpu_s_per_run < math.inf:
            raise PoolError(f"cpu_s_per_run must be positive, found {self.cpu_s_per_run}")


def read_pool(path: Path) -> Pool:
    """Read a pool from its file.

    Raises:
        PoolError: the file is not a pool of this format, or what it holds cannot be used.
        OSError: the file cannot be read.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise PoolError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise PoolError(f'{path} does not begin a pool: expected "format": "{FORMAT}"')
    try:
        return Pool(
            origin=str(found["origin"]),
            simulated=bool(found["simulated"]),
            cpu_s_per_run=float(found["cpu_s_per_run"]),
            comparisons=tuple(_comparison(entry) for entry in found["comparisons"]),
        )
    except PoolError as error:
        raise PoolError(f"{path}: {error}") from error
    except (KeyError, TypeError, ValueError) as error:
        raise PoolError(f"{path}: missing or malformed: {error!r}") from error


def write_pool(pool: Pool, path: Path) -> None:
    """Write a pool that `read_pool` reads back unchanged, one comparison a line."""
    fields = {"format": FORMAT, **asdict(pool)}
    lines = ",\n  ".join(json.dumps(comparison) for comparison in fields.pop("comparisons"))
    head = json.dumps(fields, indent=1).removesuffix("\n}")
    path.write_text(f'{head},\n "comparisons": [\n  {lines}]}}\n', encoding="utf-8")


def pool_of(evaluations: Iterable[Evaluation], *, steps: int, origin: str) -> Pool:
    """Take every pair of programs that a lineage trained on enough common seeds.

    Only whole runs of `steps` steps on true gradients that ended well count. Pairs without noise
    (programs that do the same) are left out.

    Raises:
        PoolError: no two programs have enough seeds in common.
    """
    scores: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    costs = []
    for run in evaluations:
        if run.bpb is not None and _is_whole(run, steps):
            scores[run.split, run.program_id][run.seed] = run.bpb
            costs.append(run.train_cpu_s + run.jail_cpu_s)
    found = [
        comparison
        for (reference, candidate) in combinations(scores, 2)
        if reference[0] == candidate[0]
        and (
            comparison := _shared(reference[1], candidate[1], scores[reference], scores[candidate])
        )
    ]
    if not found:
        raise PoolError(f"no two programs share {LEAST_PAIRS} seeds at {steps} steps")
    return Pool(
        origin=origin,
        simulated=False,
        cpu_s_per_run=math.fsum(costs) / len(costs),
        comparisons=tuple(found),
    )


def _is_whole(run: Evaluation, steps: int) -> bool:
    return run.steps == run.horizon == steps and run.gradients == Gradients.TRUE


def _shared(
    reference: str, candidate: str, before: Mapping[int, float], after: Mapping[int, float]
) -> Comparison | None:
    seeds = sorted(before.keys() & after.keys())
    if len(seeds) < LEAST_PAIRS or len({after[seed] - before[seed] for seed in seeds}) == 1:
        return None
    return Comparison(
        name=f"{candidate[:12]} against {reference[:12]}",
        seeds=tuple(seeds),
        candidate=tuple(after[seed] for seed in seeds),
        reference=tuple(before[seed] for seed in seeds),
    )


def _comparison(entry: Any) -> Comparison:
    return Comparison(
        name=str(entry["name"]),
        seeds=tuple(int(seed) for seed in entry["seeds"]),
        candidate=tuple(float(score) for score in entry["candidate"]),
        reference=tuple(float(score) for score in entry["reference"]),
    )
