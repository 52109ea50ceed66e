"""Judge submissions: pass, fail, or malformed where the logs do not allow a judgement.

All runs of a submission are compared at one step. That is the step asked for, or else the
earliest at which the rule holds, which the benchmark allows because it is the same for all runs.
A run that stops before the others could hide the end it did not like, and a run that begins late
is a piece of one: neither can be judged, and neither is left out.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from agent.track3.rules import (
    SIGMA_NATS,
    TARGET_NATS,
    THRESHOLD,
    Result,
    Significance,
    better,
    on_target,
    p_spread,
)
from agent.track3.runs import Run
from agent.track3.submissions import Submission

__all__ = [
    "Comparison",
    "Judgement",
    "Verdict",
    "common_steps",
    "compare",
    "judge",
    "why_malformed",
]

# Below this the spread of a submission is noted: the level of the benchmark's own test.
P_TOO_WIDE = 0.001


class Verdict(StrEnum):
    """What the logs of a submission show."""

    PASS = "pass"  # noqa: S105 - a verdict, no password
    FAIL = "fail"
    MALFORMED = "malformed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A verdict on a submission with its evidence.

    Attributes:
        submission: what was judged.
        verdict: pass, fail or malformed.
        result: the losses the verdict rests on; None if malformed or not finite.
        reasons: why it is no pass, in sentences; empty for a pass.
        notes: what a reader should know and the verdict does not depend on.
    """

    submission: Submission
    verdict: Verdict
    result: Result | None = None
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The pairwise rule applied to two submissions, each at the step it was judged at.

    The significance is None, and the verdict no pass, where one of them has no result.
    """

    submission: Judgement
    baseline: Judgement
    verdict: Verdict
    significance: Significance | None


def judge(submission: Submission, step: int | None = None) -> Judgement:
    """Judge a submission at one step.

    Args:
        submission: what to judge.
        step: the step its claim is about; None looks for the earliest that passes.
    """
    runs, notes = submission.runs, tuple(_notes(submission))
    reasons = why_malformed(submission, step)
    steps = common_steps(runs) if step is None else [step]
    if reasons:
        verdict = Verdict.MALFORMED
        return Judgement(submission=submission, verdict=verdict, reasons=reasons, notes=notes)
    results = {one: _result(runs, one) for one in steps}
    holds = [one for one, result in results.items() if result and on_target(result).passes]
    if holds:
        result = results[holds[0]]
        notes += (*_not_held(steps, holds), *_too_wide(result))
        return Judgement(submission=submission, verdict=Verdict.PASS, result=result, notes=notes)
    stopped = tuple(_stopped(runs)) if step is None else ()
    return Judgement(
        submission=submission,
        verdict=Verdict.MALFORMED if stopped else Verdict.FAIL,
        result=None if stopped else results[steps[-1]],
        reasons=stopped or (_why_failed(runs, steps[-1], results[steps[-1]]),),
        notes=(*notes, *_too_wide(results[steps[-1]])),
    )


def compare(submission: Judgement, baseline: Judgement) -> Comparison:
    """Test whether a submission is better than a baseline, loss and steps taken together."""
    if submission.result is None or baseline.result is None:
        malformed = Verdict.MALFORMED in {submission.verdict, baseline.verdict}
        verdict, significance = Verdict.MALFORMED if malformed else Verdict.FAIL, None
    else:
        significance = better(submission.result, baseline.result)
        verdict = Verdict.PASS if significance.passes else Verdict.FAIL
    return Comparison(
        submission=submission, baseline=baseline, verdict=verdict, significance=significance
    )


def common_steps(runs: Sequence[Run]) -> list[int]:
    """Return the steps after 0 at which every run was validated, in increasing order."""
    if not runs:
        return []
    shared = set(runs[0].losses).intersection(*(run.losses for run in runs[1:]))
    return sorted(step for step in shared if step > 0)


def why_malformed(submission: Submission, step: int | None = None) -> tuple[str, ...]:
    """Say what keeps a submission from being judged, one sentence per fault; empty if nothing."""
    runs = submission.runs
    faults = [str(problem) for problem in submission.problems]
    faults.extend(_pieces(runs))
    faults.extend(_same_seeds(runs))
    if not runs and not faults:
        faults.append(f"{submission.name}: no run")
    if step is not None:
        faults.extend(
            f"{run.place}: this run was not validated at step {step}"
            for run in runs
            if step not in run.losses
        )
    elif runs and not common_steps(runs):
        faults.append(_nothing_common(runs))
    return tuple(faults)


def _pieces(runs: Sequence[Run]) -> Iterator[str]:
    """Find runs whose beginning is missing: the first step is beyond their widest interval."""
    for run in runs:
        if len(run.losses) > 1 and run.first_step > run.widest_gap:
            yield f"{run.place}: this run begins at step {run.first_step}; where is its beginning?"


def _same_seeds(runs: Sequence[Run]) -> Iterator[str]:
    first: dict[int, Run] = {}
    for run in runs:
        if run.seed is None:
            continue
        if (other := first.setdefault(run.seed, run)) is not run:
            yield (
                f"{run.place}: seed {run.seed} was run at {other.place} too, with other losses; "
                "name only the logs that count"
            )


def _nothing_common(runs: Sequence[Run]) -> str:
    shared = set(runs[0].losses) - {0}
    for run in runs[1:]:
        if not shared & set(run.losses):
            return (
                f"{run.place}: no step at which this run was validated is one of the "
                f"{len(shared)} steps of the runs before it; steps {run.first_step} to "
                f"{run.last_step} are there"
            )
        shared &= set(run.losses)
    return f"{runs[0].place}: no validation after step 0"


def _stopped(runs: Sequence[Run]) -> Iterator[str]:
    longest = max(run.last_step for run in runs)
    for run in runs:
        if run.last_step < longest:
            yield (
                f"{run.place}: this run stops at step {run.last_step} of {run.planned_steps}, "
                f"others go on to {longest}; all must be compared at one step"
            )


def _result(runs: Sequence[Run], step: int) -> Result | None:
    """Return the losses at a step, or None where one is not finite."""
    losses = tuple(run.losses[step] for run in runs)
    return Result(step=step, losses=losses) if all(map(math.isfinite, losses)) else None


def _why_failed(runs: Sequence[Run], step: int, result: Result | None) -> str:
    if result is None:
        lost = next(run for run in runs if not math.isfinite(run.losses[step]))
        return f"{lost.place}: the loss of this run is {lost.losses[step]} at step {step}"
    gap = TARGET_NATS - result.mean
    if gap <= 0:
        return f"the mean at step {step} is not below {float(TARGET_NATS)}"
    needed = math.ceil((THRESHOLD / gap) ** 2)
    return f"the mean at step {step} would need {needed} runs, there are {result.n}"


def _notes(submission: Submission) -> Iterator[str]:
    runs, repeats = submission.runs, submission.repeats
    if repeats:
        one = repeats[0]
        yield f"repeats counted once: {len(repeats)}, such as {one.run.place} of {one.of.place}"
    if len(ends := {run.last_step for run in runs}) > 1:
        yield f"runs end at different steps: {', '.join(map(str, sorted(ends)))}"
    if submission.sources > 1:
        yield f"the logs hold {submission.sources} different training scripts, seeds aside"
    if submission.script_lines:
        yield f"validation lines quoted in training scripts, not read: {submission.script_lines}"


def _too_wide(result: Result | None) -> Iterator[str]:
    if result is not None and (p := p_spread(result)) < P_TOO_WIDE:
        assumed = f"the {SIGMA_NATS} over seeds that the rule assumes"
        yield f"sd {result.sd:.5f} is more than {assumed} (p {p:.1g}): is this one setting?"


def _not_held(steps: Sequence[int], holds: Sequence[int]) -> Iterator[str]:
    """Note a pass that later steps take back."""
    lost = sorted({step for step in steps if step > holds[0]} - set(holds))
    if lost:
        yield f"the rule no longer holds at step {lost[0]}"
