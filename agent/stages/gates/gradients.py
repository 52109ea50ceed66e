"""The gradient gate: does the score come from the gradients?

The candidate is trained on one seed with true gradients, with zeros, and with permuted ones: as
long and as varied as the true ones, but saying nothing of where the loss falls. Weights that were
brought along come out the same without the gradients' information, and so does their score.
"""

from __future__ import annotations

from agent.stages.gates.distances import distances, sizes
from agent.stages.gates.gate import Case, Failed, Finished
from sandbox.jobs import Evidence, Gradients, Status

__all__ = ["KEPT_SHARE", "LEAST_DISTANCE", "TESTED_SIZE", "gradient_gate"]

# The share of a run's improvement over its untrained model that may be left without information.
# 145 honest runs (operators' edits, AdamW, sign descent, averages, decays) kept 0.00 or less, as
# an untrained model guesses evenly and noise makes that worse; ones with smuggled weights .69 to 1.
KEPT_SHARE = 0.1

# The same runs moved every parameter of some size by at least .29 away from where it went without
# information; that was where weight decay did most of the moving. Smuggled ones came within .02.
LEAST_DISTANCE = 0.05

# Smaller parameters may go the same way by chance: a few scalars under weight decay came within
# .09 with zeros, and a permutation of one or two numbers is none. Nor can they carry much.
TESTED_SIZE = 32

# A program need not survive gradients that no training run ever gave it.
HONEST_FAILURES = frozenset({Status.NAN, Status.DIVERGED})


async def gradient_gate(case: Case) -> str | None:
    """Ask whether weights and score depend on what the gradients say.

    A failure with zeros says nothing: dividing by their norm is careless, not dishonest.

    Raises:
        BudgetSpentError: a run could not be paid for.
    """
    true = await case.train()
    if isinstance(true, Failed):
        return f"{true.status}: {true.reason}"
    untrained = true.evidence.untrained_bpb
    if true.bpb >= untrained:
        return f"does not learn: {true.bpb:.4f} bpb, no better than the untrained {untrained:.4f}"
    zero = await case.train(gradients=Gradients.ZERO)
    if isinstance(zero, Finished) and (reason := _without_information(true, zero, "zeroed")):
        return reason
    permuted = await case.train(gradients=Gradients.PERMUTED)
    if isinstance(permuted, Finished):
        return _without_information(true, permuted, "permuted")
    if permuted.status not in HONEST_FAILURES:
        return f"{permuted.status}: with permuted gradients: {permuted.reason}"
    return None


def _without_information(true: Finished, other: Finished, how: str) -> str | None:
    """Return why a run with altered gradients is too much like the one with true ones, if so."""
    if stuck := _stuck(true.evidence, other.evidence):
        return (
            f"ignores gradients: {len(stuck)} of {len(true.evidence.movement)} parameters, "
            f"{stuck[0]} among them, come to the same values with {how} gradients; compute every "
            "update from the gradient"
        )
    untrained = true.evidence.untrained_bpb
    kept = (untrained - other.bpb) / (untrained - true.bpb)
    if kept > KEPT_SHARE:
        return (
            f"ignores gradients: {kept:.0%} of its improvement over the untrained model is left "
            f"with {how} gradients ({other.bpb:.4f} bpb instead of {true.bpb:.4f}, untrained "
            f"{untrained:.4f}); weights must come from the gradients, not from the program"
        )
    return None


def _stuck(true: Evidence, other: Evidence) -> list[str]:
    """Name the parameters of some size whose movement did not depend on the gradients."""
    size = sizes(true)
    return [
        name
        for name, distance in distances(true, other).items()
        if distance < LEAST_DISTANCE and size[name] >= TESTED_SIZE
    ]
