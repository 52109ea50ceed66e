"""Take one candidate through preflight, jail and a short training run, as a real run would.

The shipped optimizer is trained first, on the same seed: its cost sets the candidate's limits,
and its score is what the candidate's has to be compared with. Both go through the same worker and
the same kind of jail as in a search; nothing is recorded anywhere.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from sandbox.allowance import FIRST_LIMITS, limits_relative_to
from sandbox.examination import Request
from sandbox.jobs import Job, Limits, Outcome, Status, WorkerReady
from sandbox.knobs import is_same, read_knobs, set_knobs
from sandbox.patches import Block, Patch
from sandbox.preflight import Violation
from sandbox.protocol import clean_text
from sandbox.regions import find_regions

__all__ = [
    "BaselineFailure",
    "Candidate",
    "Measurement",
    "Pool",
    "Report",
    "examination",
    "not_an_edit",
    "refusal",
    "train_both",
    "tuned_like",
    "whole_file",
]

MAX_QUOTE = 120  # characters of the line a failure points at
REGION_MARK = "EVOLVE-BLOCK-START"
BASELINE_NAME = "shipped optim.py"


class BaselineFailure(Exception):  # noqa: N818 - the machine's or the request's, not a defect
    """The shipped optimizer itself did not train to the end, so nothing can be said.

    Attributes:
        is_sandbox: whether it was the sandbox that failed; otherwise the request cannot work.
    """

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(
            f"the shipped optimizer itself does not train like this ({outcome.status}: "
            f"{outcome.reason}), so there is nothing to compare with"
        )
        self.is_sandbox = outcome.status is Status.SANDBOX_ERROR


class Pool(Protocol):
    """What a trial needs of `sandbox.executor.LocalPool`."""

    @property
    def ready(self) -> WorkerReady:
        """What the worker reported when it started."""

    async def run(self, job: Job) -> Outcome:
        """Train and validate one program."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """The program on trial: what to call it, and its full text.

    `tuned_knobs` counts the knobs that were not its author's but tuned for the profile.
    """

    name: str
    source: str
    tuned_knobs: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """What one training run came to. `limits` is what it was allowed."""

    outcome: Outcome
    limits: Limits


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a trial found.

    `violations` is what preflight objected to, None where it was skipped; a program with
    violations is not trained, and has neither measurements nor `ready`. `baseline` is the shipped
    optimizer on the same seed. `line` is the line of the candidate that `reason` is about and
    `quote` that line's text. `tuned_knobs` counts the knobs tuned for it.
    """

    name: str
    status: Status
    reason: str
    line: int | None = None
    quote: str = ""
    tuned_knobs: int = 0
    violations: tuple[Violation, ...] | None = None
    steps: int | None = None
    seed: int | None = None
    measured: Measurement | None = None
    baseline: Measurement | None = None
    ready: WorkerReady | None = None

    @property
    def is_same_behaviour(self) -> bool:
        """Whether the candidate came to the very weights of the shipped optimizer."""
        if self.measured is None or self.baseline is None or self.status is not Status.OK:
            return False
        return self.measured.outcome.fingerprint == self.baseline.outcome.fingerprint

    @property
    def difference_bpb(self) -> float | None:
        """The candidate's score minus the shipped optimizer's; negative is better."""
        if self.measured is None or self.baseline is None:
            return None
        ours, theirs = self.measured.outcome.bpb, self.baseline.outcome.bpb
        return None if ours is None or theirs is None else ours - theirs


def examination(patch: Patch, parent: str) -> Request:
    """Ask preflight about a patch that may change every region of `parent`."""
    scopes = frozenset(region.name for region in find_regions(parent))
    return Request(patch=patch, parent=parent, scopes=scopes)


def whole_file(source: str, parent: str) -> Patch:
    """Return the patch that makes `source` of `parent`, whatever they are."""
    return Patch((Block(search=parent, replace=source),))


def tuned_like(candidate: Candidate, shipped: str, tuned: str) -> Candidate:
    """Tune an edit of the shipped file like the program that runs start from.

    The shipped defaults are those of a far larger model. Compared with a tuned program, an edit
    of the file as shipped would lose by its defaults, whatever the edit is worth. So the knobs it
    leaves at them take the tuned values. A program that comes from a run has tuned knobs already,
    and stays as it is.

    Args:
        candidate: a program that passed preflight.
        shipped: the text of the shipped file.
        tuned: the same with tuned knobs.
    """
    before, after = read_knobs(shipped), read_knobs(tuned)
    ours = read_knobs(candidate.source)
    moved = [n for n in before if n in ours and not is_same(before[n].value, after[n].value)]
    left = [name for name in moved if is_same(ours[name].value, before[name].value)]
    taken = [name for name in moved if is_same(ours[name].value, after[name].value)]
    if len(left) <= len(taken):
        return candidate
    source = set_knobs(candidate.source, {name: after[name].value for name in left})
    return replace(candidate, source=source, tuned_knobs=len(left))


def not_an_edit(patch: Patch, parent: str) -> Violation | None:
    """Return the one objection to a file that has nothing in common with `parent`."""
    whole = len(patch.blocks) == 1 and patch.blocks[0].search == parent
    if not whole or REGION_MARK in patch.blocks[0].replace:
        return None
    return Violation(
        rule="edit",
        line=1,
        text="",
        message="this is no edit of nanochat/optim.py, it has none of its EVOLVE-BLOCK regions; "
        "preflight judges edits, so try it with --no-preflight: the jail holds without",
    )


def refusal(name: str, violations: tuple[Violation, ...]) -> Report:
    """Report a candidate that is refused before it runs."""
    first = violations[0]
    more = f" (and {len(violations) - 1} more)" if len(violations) > 1 else ""
    return Report(
        name=name,
        status=Status.PREFLIGHT_REJECT,
        reason=f"{first.rule}: {first.message}{more}",
        line=first.line if first.text else None,
        quote=first.text,
        violations=violations,
    )


async def train_both(
    pool: Pool,
    *,
    candidate: Candidate,
    baseline: str,
    seed: int,
    steps: int | None,
) -> Report:
    """Train the shipped optimizer and the candidate on the same weights and text.

    Args:
        pool: a worker that is ready.
        candidate: the program on trial.
        baseline: the text of the shipped program.
        seed: of initial weights and data order.
        steps: of both runs; None means the profile's.

    Raises:
        BaselineFailure: the shipped optimizer did not train to the end.
        PoolError: no worker can be had any more.
    """
    steps = pool.ready.steps if steps is None else steps

    async def trained(program: Candidate, limits: Limits) -> Measurement:
        job = Job(
            source=program.source, seed=seed, steps=steps, limits=limits, source_name=program.name
        )
        return Measurement(outcome=await pool.run(job), limits=limits)

    reference = await trained(Candidate(name=BASELINE_NAME, source=baseline), FIRST_LIMITS)
    if reference.outcome.status is not Status.OK:
        raise BaselineFailure(reference.outcome)
    used = reference.outcome
    measured = await trained(candidate, limits_relative_to(used.jail_cpu_s, used.wall_s))
    outcome = measured.outcome
    return Report(
        name=candidate.name,
        status=outcome.status,
        reason=outcome.reason,
        line=outcome.line,
        quote=_quote(candidate.source, outcome.line),
        tuned_knobs=candidate.tuned_knobs,
        steps=steps,
        seed=seed,
        measured=measured,
        baseline=reference,
        ready=pool.ready,
    )


def _quote(source: str, line: int | None) -> str:
    """Return a line of the candidate, safe to show; empty where there is no such line."""
    lines = source.split("\n")
    if line is None or not 1 <= line <= len(lines):
        return ""
    return clean_text(lines[line - 1].strip()[:MAX_QUOTE])
