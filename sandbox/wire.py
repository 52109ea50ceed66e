"""Jobs, outcomes and reports as JSON lines between the controller and its workers."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from sandbox.jobs import (
    Evidence,
    Gradients,
    Job,
    Limits,
    Outcome,
    Split,
    Status,
    Vitals,
    WorkerReady,
)

__all__ = [
    "MESSAGE_FAILED",
    "MESSAGE_OUTCOME",
    "MESSAGE_PROGRESS",
    "MESSAGE_READY",
    "MESSAGE_REFUSED",
    "decode_evidence",
    "decode_job",
    "decode_outcome",
    "decode_ready",
    "encode_evidence",
    "encode_job",
    "encode_message",
]

MESSAGE_READY = "ready"
MESSAGE_REFUSED = "refused"
MESSAGE_PROGRESS = "progress"
MESSAGE_OUTCOME = "outcome"
MESSAGE_FAILED = "failed"


def encode_message(kind: str, **fields: Any) -> bytes:
    """Encode one message of a worker as a line."""
    return json.dumps({"type": kind, **fields}).encode("ascii") + b"\n"


def encode_job(job: Job) -> bytes:
    """Encode a job as a line."""
    return json.dumps(dataclasses.asdict(job)).encode("ascii") + b"\n"


def decode_job(line: bytes) -> Job:
    """Read back what `encode_job` wrote."""
    fields = json.loads(line)
    fields["limits"] = Limits(**fields["limits"])
    fields["split"] = Split(fields["split"])
    fields["gradients"] = Gradients(fields["gradients"])
    return Job(**fields)


def decode_outcome(fields: dict[str, Any]) -> Outcome:
    """Read an outcome from the fields of its message."""
    status = Status(fields["status"])
    curve = tuple((int(step), float(loss)) for step, loss in fields["curve"])
    evidence = None if fields["evidence"] is None else decode_evidence(fields["evidence"])
    vitals = None if fields["vitals"] is None else _decode_vitals(fields["vitals"])
    decoded = {"status": status, "curve": curve, "evidence": evidence, "vitals": vitals}
    return Outcome(**{**fields, **decoded})


def decode_ready(fields: dict[str, Any]) -> WorkerReady:
    """Read a worker's report from the fields of its message."""
    return WorkerReady(**{**fields, "capabilities": tuple(fields["capabilities"])})


def encode_evidence(evidence: Evidence) -> dict[str, Any]:
    """Write evidence as JSON values."""
    return {
        "untrained_bpb": evidence.untrained_bpb,
        "movement": [[name, list(numbers)] for name, numbers in evidence.movement],
    }


def decode_evidence(fields: Mapping[str, Any]) -> Evidence:
    """Read back what `encode_evidence` wrote."""
    movement = tuple((str(name), tuple(numbers)) for name, numbers in fields["movement"])
    return Evidence(untrained_bpb=fields["untrained_bpb"], movement=movement)


def _decode_vitals(fields: Mapping[str, Any]) -> Vitals:
    norms = tuple((int(step), float(norm)) for step, norm in fields["gradient_norms"])
    return Vitals(gradient_norms=norms, resident_bytes=fields["resident_bytes"])
