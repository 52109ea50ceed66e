"""What is asked of the sandbox and what comes back, as plain serialisable records.

No tensors, no processes: the controller sees nothing of the sandbox but these types, so another
executor can take the place of the local one without it noticing.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

__all__ = [
    "Evidence",
    "Gradients",
    "Job",
    "Limits",
    "Outcome",
    "Split",
    "Status",
    "Vitals",
    "WorkerReady",
    "WorkerSpec",
]


class Status(StrEnum):
    """How one training run ended; only the trusted side assigns it.

    `sandbox_error` means that the sandbox itself failed: it is retried and never charged to the
    candidate.
    """

    OK = "ok"
    CRASH = "crash"
    TIMEOUT_CPU = "timeout_cpu"
    TIMEOUT_WALL = "timeout_wall"
    OOM = "oom"
    NAN = "nan"
    DIVERGED = "diverged"
    OUTPUT_LIMIT = "output_limit"
    POLICY_VIOLATION = "policy_violation"
    PROTOCOL_ERROR = "protocol_error"
    PREFLIGHT_REJECT = "preflight_reject"
    SANDBOX_ERROR = "sandbox_error"


class Split(StrEnum):
    """Which text a training run is validated on. The search may name only `search`."""

    SEARCH = "search"
    SEALED = "sealed"
    OUT_OF_DISTRIBUTION = "ood"


class Gradients(StrEnum):
    """What a candidate is given for gradients. Only a run with the true ones is a score.

    Permuted ones have the norms, values and spectra of the true ones, and say nothing of where
    the loss falls.
    """

    TRUE = "true"
    ZERO = "zero"
    PERMUTED = "permuted"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one training run may use of the machine.

    CPU time is the jail's own, memory is what the jail may add to the address space it starts
    with. Output beyond `output_keep_bytes` is dropped, beyond `output_kill_bytes` fatal.
    """

    cpu_s: float = 120.0
    wall_s: float = 600.0
    memory_bytes: int = 4 << 30
    descriptors: int = 64
    output_keep_bytes: int = 64 << 10
    output_kill_bytes: int = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSpec:
    """Everything an evaluation worker needs to know before its first job.

    `size` doubles (or, negative, halves) the model's depth and width so often. `data_path` None
    means the default corpus, `tokenizer` None the profile's. `required_level` is
    the lowest sandbox level (0 to 4) the worker may start with; `unsafe` lets it run below that,
    and every outcome says so.
    """

    profile: str = "cpu"
    size: int = 0
    data_path: str | None = None
    tokenizer: str | None = None
    device: str = "cpu"
    compile: bool = False
    required_level: int = 2
    unsafe: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerReady:
    """What a worker reports once it can take jobs: the facts every score depends on."""

    profile: str
    steps: int
    tokens_per_step: int
    parameters: int
    corpus: str
    corpus_digest: str
    validation_bytes: int
    sandbox_level: int
    capabilities: tuple[str, ...]
    compile: bool
    device: str
    versions: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Train with `source` as the optimizer and validate.

    Initial weights and data order follow from `seed` alone, so two jobs with equal seed and
    steps are a pair. Schedules are laid out for `horizon` steps, of which the first `steps` are
    trained; without a horizon they are the same. `evidence` asks for the outcome's evidence,
    `vitals` for its vitals; neither changes a score. `source_name` is what the candidate's file
    is called in tracebacks.
    """

    source: str
    seed: int
    steps: int
    horizon: int | None = None
    split: Split = Split.SEARCH
    gradients: Gradients = Gradients.TRUE
    evidence: bool = False
    vitals: bool = False
    limits: Limits = field(default_factory=Limits)
    source_name: str = "optim.py"

    @property
    def total_steps(self) -> int:
        """The number of steps that schedules are laid out for."""
        return self.horizon or self.steps


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What a finished run shows besides its score, for comparison with others on its seed.

    `untrained_bpb` scores the initial weights. `movement` names every parameter with a sketch of
    how it moved from there to the weights that were validated: some numbers whose Euclidean
    distance between two runs is about that between the weights themselves.
    """

    untrained_bpb: float
    movement: tuple[tuple[str, tuple[float, ...]], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vitals:
    """How a run went besides its losses, as the trusted side measured it.

    `gradient_norms` holds (step, norm of the whole gradient) pairs. `resident_bytes` is the memory
    of its own that the jail held after the last update, with what it imported; None if unknown.
    """

    gradient_norms: tuple[tuple[int, float], ...]
    resident_bytes: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What happened in one training run.

    `bpb` is None unless `status` is `ok`: a failure never becomes a score. `reason` is one
    sentence a proposer can act on, `line` the line of the candidate's file it points at.
    `curve` holds (step, training loss in nats) pairs. `fingerprint` is a digest of the final
    parameters: equal fingerprints at equal seed and steps mean equal behaviour. `jail_cpu_s` is
    the CPU time of the candidate's process, `train_cpu_s` the worker's own. `output_tail` is
    what the candidate printed, capped and stripped of control characters. `evidence` is there
    if the job asked for it and the run came to its end, `vitals` if the job asked for them.
    """

    status: Status
    reason: str
    bpb: float | None
    curve: tuple[tuple[int, float], ...]
    fingerprint: str | None
    line: int | None = None
    jail_cpu_s: float = 0.0
    train_cpu_s: float = 0.0
    wall_s: float = 0.0
    peak_memory_bytes: int = 0
    output_tail: str = ""
    sandbox_level: int = 0
    unsafe: bool = False
    evidence: Evidence | None = None
    vitals: Vitals | None = None

    def __post_init__(self) -> None:
        if (self.bpb is not None) != (self.status is Status.OK):
            raise ValueError(f"only an ok run has a score: {self.status=} {self.bpb=}")
