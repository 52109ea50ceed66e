"""What was observed of one attempt, and the comparisons that every kind of attempt shares."""

from __future__ import annotations

from dataclasses import dataclass

from tests.adversarial.corpus import Loss

__all__ = ["Observed", "score_sightings", "text_sightings"]

_LONGEST_REASON = 2_000
_LONGEST_OUTPUT = 64 << 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """How an attempt ended. `sightings` are effects that must not be: each one is a breach."""

    verdict: str
    reason: str
    seconds: float
    sightings: tuple[str, ...]


def score_sightings(loss: Loss, score: float | None, reference: float) -> list[str]:
    """Compare a score with that of the same program without the attack; lower is better."""
    if score is None or loss is Loss.JUDGED or score == reference:
        return []
    if loss is Loss.SAME:
        return [f"the score went from {reference:.4f} to {score:.4f}"]
    return [f"the score got better: {reference:.4f} to {score:.4f}"] if score < reference else []


def text_sightings(reason: str, output: str) -> list[str]:
    """Say what of the texts that are stored and shown could harm a reader's terminal or parser."""
    seen = []
    if not reason.isprintable():
        seen.append(f"the reason is not one printable line: {reason[:80]!r}")
    if not output.replace("\n", "").isprintable():
        seen.append("the output tail has control characters")
    if len(reason) > _LONGEST_REASON or len(output) > _LONGEST_OUTPUT:
        seen.append(f"{len(reason)} characters of reason and {len(output)} of output were kept")
    return seen
