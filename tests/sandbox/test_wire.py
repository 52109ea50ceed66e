from __future__ import annotations

import dataclasses
import json

import pytest

from sandbox.jobs import Evidence, Gradients, Job, Limits, Outcome, Split, Status, Vitals
from sandbox.wire import (
    decode_evidence,
    decode_job,
    decode_outcome,
    encode_evidence,
    encode_job,
    encode_message,
)

EVIDENCE = Evidence(untrained_bpb=0.1 + 0.2, movement=(("wte", (1.0, -1 / 3)), ("head", (0.0,))))
VITALS = Vitals(gradient_norms=((0, 1 / 3), (1, float("inf"))), resident_bytes=3 << 30)


def test_a_job_survives_the_trip() -> None:
    job = Job(
        source="x = 'é\n'",
        seed=7,
        steps=3,
        horizon=9,
        split=Split.SEALED,
        gradients=Gradients.PERMUTED,
        evidence=True,
        vitals=True,
        limits=Limits(cpu_s=1.5, wall_s=2),
    )

    assert decode_job(encode_job(job)) == job


@pytest.mark.parametrize("evidence", [None, EVIDENCE])
@pytest.mark.parametrize("vitals", [None, VITALS])
def test_an_outcome_survives_the_trip_to_the_bit(
    evidence: Evidence | None, vitals: Vitals | None
) -> None:
    outcome = Outcome(
        status=Status.OK,
        reason="done",
        bpb=0.1 + 0.2,
        curve=((0, 5.5), (1, 1 / 3)),
        fingerprint="ab",
        evidence=evidence,
        vitals=vitals,
    )
    line = encode_message("outcome", outcome=dataclasses.asdict(outcome))

    assert decode_outcome(json.loads(line)["outcome"]) == outcome


def test_evidence_is_read_back_from_json() -> None:
    stored = json.loads(json.dumps(encode_evidence(EVIDENCE)))

    assert stored == encode_evidence(EVIDENCE)
    assert decode_evidence(stored) == EVIDENCE


def test_a_failure_with_a_score_cannot_be_built() -> None:
    with pytest.raises(ValueError, match="score"):
        Outcome(status=Status.NAN, reason="", bpb=1.0, curve=(), fingerprint=None)
