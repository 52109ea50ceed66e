"""Keep error rates over all candidates of a run, and over all claims made from it.

Two rates, two rules:

* *Promotions.* Candidates share their incumbent's runs, so their results depend on each other in
  ways nobody models. E-values need not care: e-BH for a finished run and e-LOND while it goes on
  bound the expected share of false discoveries whatever the dependence. They say which promotions
  would stand if the run's whole list were published. A race stops as soon as its e-value reaches
  20, too little among a hundred candidates; e-values on fresh seeds multiply, so the logarithms of
  race, replication and confirmation add up to what counts here.
* *Claims.* Each confirmation of a run spends a share of the run's error; the shares of all that
  could ever follow add up to less than the whole, so by the union bound the chance that a run
  makes any false claim is at most `alpha`, however its confirmations were chosen or depend on
  each other. Every look at the sealed text counts as one, also when nothing was claimed.

Sources: Wang and Ramdas 2022, "False discovery rate control with e-values", J. R. Statist. Soc. B
84(3); Xu and Ramdas, "Online multiple testing with e-values", arXiv:2311.06412.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtr

__all__ = ["Claim", "claim", "claim_level", "e_bh", "e_lond", "paired_p_value"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Whether a confirmation may be claimed.

    `number` counts the looks of the run at sealed text, this one included.
    """

    number: int
    p: float
    level: float
    holds: bool


def e_bh(log_e_values: Sequence[float], *, alpha: float = 0.05) -> tuple[bool, ...]:
    """Say for each candidate of a finished run whether it counts as a discovery.

    Args:
        log_e_values: logarithms, one for every candidate that was tested, rejected ones too.
        alpha: bound on the expected share of false discoveries among all discoveries.
    """
    total = len(log_e_values)
    ordered = sorted(log_e_values, reverse=True)
    passed = [
        rank
        for rank, log_e in enumerate(ordered, start=1)
        if log_e >= math.log(total / (rank * alpha))
    ]
    if not passed:
        return (False,) * total
    return tuple(log_e >= ordered[passed[-1] - 1] for log_e in log_e_values)


def e_lond(log_e_values: Sequence[float], *, alpha: float = 0.05) -> tuple[bool, ...]:
    """Say for each candidate, in the order tested, whether it is a discovery at that time.

    Candidate t is one if its e-value is at least 1 / (alpha g_t (D + 1)), where D discoveries came
    before it and g_t = 1 / (t (t + 1)), which adds up to 1. What follows changes nothing.
    """
    found: list[bool] = []
    for number, log_e in enumerate(log_e_values, start=1):
        level = alpha * (sum(found) + 1) * _share(number)
        found.append(log_e >= -math.log(level))
    return tuple(found)


def claim_level(number: int, *, alpha: float = 0.01) -> float:
    """Return the error that confirmation `number` of a run may spend, counted from 1.

    Half of it all for the first, a sixth for the second, a twelfth for the third.

    Raises:
        ValueError: the number is not positive.
    """
    if number < 1:
        raise ValueError(f"confirmations are counted from 1, found {number}")
    return alpha * _share(number)


def claim(differences: Sequence[float], *, number: int, alpha: float = 0.01) -> Claim:
    """Judge a confirmation on fresh seeds, their number fixed in advance.

    Args:
        differences: candidate minus baseline on sealed text; none of the seeds was used before.
        number: which look of this run at sealed text it is, counted from 1.
        alpha: bound on the chance that the run makes any false claim.

    Raises:
        ValueError: fewer than two differences, one that is not finite, or a number below 1.
    """
    p = paired_p_value(differences)
    level = claim_level(number, alpha=alpha)
    return Claim(number=number, p=p, level=level, holds=p <= level)


def paired_p_value(differences: Sequence[float]) -> float:
    """Return the one-sided p-value of the paired t-test of "the mean is not negative".

    Raises:
        ValueError: fewer than two differences, or one that is not finite.
    """
    pairs = len(differences)
    if pairs < 2:  # noqa: PLR2004 - one difference has no spread
        raise ValueError(f"a paired test needs two pairs or more, found {pairs}")
    if not all(math.isfinite(difference) for difference in differences):
        raise ValueError(f"differences must be finite numbers, found {list(differences)}")
    mean = math.fsum(differences) / pairs
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    error = math.sqrt(squares / (pairs - 1) / pairs)
    if error == 0.0:
        return 0.0 if mean < 0.0 else 1.0
    return float(stdtr(pairs - 1, mean / error))


def _share(number: int) -> float:
    return 1.0 / (number * (number + 1))
