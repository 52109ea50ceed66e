"""One training run after another on a warm model: the trusted side of every score.

The text, the initial weights, the model and its compiled forward and backward pass stay in
memory between runs, so that a new candidate costs a fork and nothing else. The model's
parameters and gradients live in two shared maps from the start; a run's jail maps the same
pages, and nothing is copied.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import mmap
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from nanochat.batches import BatchSource
from nanochat.corpus import Corpus, CorpusError, load_corpus
from nanochat.loop import (
    Diverged,
    NonFiniteLoss,
    NonFiniteParameters,
    OptimizerService,
    TrainingError,
    compile_model,
    eager_model,
    flat_offsets,
    flatten_parameters,
    train,
)
from nanochat.model import GPT
from nanochat.profiles import Profile, ProfileError, load_profile
from nanochat.validation import validate
from sandbox.altered import AlteredGradients, jail_seed
from sandbox.jail_process import ExitReport, JailFailure, SandboxFailure
from sandbox.jailed import JailedOptimizer, ParameterLayout, jail_order
from sandbox.jobs import (
    Evidence,
    Gradients,
    Job,
    Outcome,
    Split,
    Status,
    Vitals,
    WorkerReady,
    WorkerSpec,
)
from sandbox.mirror import MirroredService
from sandbox.movement import sketch
from sandbox.zygote_process import Zygote, memory_file

__all__ = ["Evaluator", "UnusableConfigurationError", "WarmModel"]

_KEPT_INITIALISATIONS = 64
_PAGE_ELEMENTS = mmap.PAGESIZE // 4
_TRAINING_STATUS: dict[type[TrainingError], Status] = {
    NonFiniteLoss: Status.NAN,
    NonFiniteParameters: Status.NAN,
    Diverged: Status.DIVERGED,
}


class UnusableConfigurationError(Exception):
    """The worker cannot work with its configuration; the message says what to do."""


class WarmModel:
    """A model over two shared maps, with its text and its initial weights kept ready.

    On an accelerator the model computes there, and `MirroredService` copies between its memory
    and the maps.
    """

    def __init__(self, spec: WorkerSpec) -> None:
        torch.set_num_threads(1)
        self.profile, self.corpus = _load(spec)
        self.device = _device(spec.device)
        config = self.profile.model_config(self.corpus.tokenizer.vocab_size)
        self.model = GPT(config, activation_dtype=self.profile.dtype).to(self.device)
        self.infos = self.model.param_infos()
        *self.offsets, flat = flat_offsets(self.infos)
        # Whole pages, so that no byte of a map lies beyond what is cleared between runs.
        self.elements = math.ceil(flat / _PAGE_ELEMENTS) * _PAGE_ELEMENTS
        self.params_fd = memory_file("params", bytes(4 * self.elements))
        self.grads_fd = memory_file("grads", bytes(4 * self.elements))
        self.shared_params = self._map(self.params_fd)
        self.shared_grads = self._map(self.grads_fd)
        on_cpu = self.device.type == "cpu"
        self.params = self.shared_params if on_cpu else self.shared_params.to(self.device)
        self.grads = self.shared_grads if on_cpu else self.shared_grads.to(self.device)
        flatten_parameters(self.model, self.params[:flat], self.grads[:flat])
        self._initial: OrderedDict[int, torch.Tensor] = OrderedDict()
        self._untrained: dict[tuple[int, Split], float] = {}
        make = compile_model if spec.compile else eager_model
        self.forward_backward = make(self.model)
        if spec.compile:
            self.initialise(0)
            self.forward_backward(*self.batches(0).batch(0))

    def _map(self, fd: int) -> torch.Tensor:
        area = mmap.mmap(fd, 4 * self.elements)
        return torch.frombuffer(area, dtype=torch.float32)

    def initialise(self, seed: int) -> None:
        """Put the initial weights of `seed` in place; gradients become zero."""
        self.params.zero_()  # the padding between parameters too: jails can write there
        if seed not in self._initial:
            self.model.init_weights(torch.Generator().manual_seed(seed))
            self._initial[seed] = self.params.detach().clone()
            if len(self._initial) > _KEPT_INITIALISATIONS:
                self._initial.popitem(last=False)
        self._initial.move_to_end(seed)
        with torch.no_grad():
            self.params.copy_(self._initial[seed])
        self.shared_params.copy_(self.params)
        self.grads.zero_()
        self.shared_grads.zero_()

    @property
    def gradients(self) -> list[torch.Tensor]:
        """Every parameter's gradient, where the model computes."""
        return [info.tensor.grad for info in self.infos if info.tensor.grad is not None]

    def gradient_norm(self) -> float:
        """Return the norm of the whole gradient."""
        norms = torch._foreach_norm(self.gradients)
        return float(torch.linalg.vector_norm(torch.stack(list(norms))))

    def batches(self, seed: int) -> BatchSource:
        """Return the training batches of `seed`."""
        return BatchSource(
            self.corpus.tokens("train"),
            self.profile.batch_size,
            self.profile.sequence_length,
            seed,
            self.device,
        )

    def validate(self, split: Split) -> float:
        """Score the present weights in bits per byte."""
        return validate(
            self.model,
            self.corpus.tokens(split.value),
            self.corpus.tokenizer.token_bytes,
            self.profile.validation_batch_size,
            self.profile.sequence_length,
            self.profile.validation_bytes,
        )

    def fingerprint(self) -> str:
        """Digest the present weights, parameter by parameter."""
        digest = hashlib.sha256()
        for info in self.infos:
            digest.update(info.tensor.detach().cpu().numpy().tobytes())
        return digest.hexdigest()

    def untrained_bpb(self, seed: int, split: Split) -> float:
        """Score the present weights as the initial ones of `seed`; known from then on."""
        if (seed, split) not in self._untrained:
            self._untrained[seed, split] = self.validate(split)
        return self._untrained[seed, split]

    def movement(self, seed: int) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Sketch how each parameter moved from the initial weights of `seed`, the last used."""
        moved = self.params.detach() - self._initial[seed]
        return tuple(
            (info.name, sketch(moved[start : start + info.tensor.numel()], seed))
            for info, start in zip(self.infos, self.offsets, strict=True)
        )

    def param_fields(self) -> list[dict[str, object]]:
        """Describe the parameters to a jail."""
        return [
            {
                "name": info.name,
                "role": info.role.value,
                "layer": info.layer,
                "shape": list(info.shape),
                "offset": offset,
            }
            for info, offset in zip(self.infos, self.offsets, strict=True)
        ]

    def service(self, inner: OptimizerService) -> OptimizerService:
        """Adapt a service on the shared maps to where the model computes."""
        if self.device.type == "cpu":
            return inner
        return MirroredService(
            inner,
            params=self.params,
            grads=self.grads,
            shared_params=self.shared_params,
            shared_grads=self.shared_grads,
        )


@dataclass(slots=True)
class _Progress:
    """What is known of a run so far, whether or not it gets to its end."""

    curve: list[tuple[int, float]]
    started_s: float
    train_cpu_started_s: float
    evidence: Evidence | None = None
    gradient_norms: list[tuple[int, float]] = field(default_factory=list)
    resident_bytes: int | None = None


class Evaluator:
    """Carries out jobs: trains with a jailed optimizer, validates, decides the status.

    Raises:
        UnusableConfigurationError: corpus, profile or device cannot be used.
    """

    def __init__(self, spec: WorkerSpec, zygote: Zygote) -> None:
        self._spec = spec
        self._zygote = zygote
        self._level = 0
        self.warm = WarmModel(spec)

    def describe(
        self, *, sandbox_level: int, capabilities: tuple[str, ...], versions: dict[str, str]
    ) -> WorkerReady:
        """Report the facts every score depends on, the probed sandbox level among them."""
        self._level = sandbox_level
        warm = self.warm
        return WorkerReady(
            profile=warm.profile.name,
            steps=warm.profile.steps,
            tokens_per_step=warm.profile.tokens_per_step,
            parameters=sum(info.tensor.numel() for info in warm.infos),
            corpus=warm.corpus.name,
            corpus_digest=warm.corpus.digest,
            validation_bytes=min(
                warm.profile.validation_bytes, warm.corpus.byte_count(Split.SEARCH.value)
            ),
            sandbox_level=sandbox_level,
            capabilities=capabilities,
            compile=self._spec.compile,
            device=self._spec.device,
            versions=versions,
        )

    def run(self, job: Job, progress: Callable[[int], None]) -> Outcome:
        """Train and validate with the job's optimizer in a jail of its own.

        Never raises for a candidate's failure: that is an outcome without a score. A failure of
        the sandbox is an outcome too, with status `sandbox_error`.
        """
        so_far = _Progress([], time.monotonic(), time.process_time())
        try:
            jailed = self._start(job, lambda: progress(len(so_far.curve)))
        except SandboxFailure as failure:
            return self._outcome(so_far, Status.SANDBOX_ERROR, str(failure))
        bpb: float | None = None
        line: int | None = None
        status, reason = Status.OK, "trained to the end"
        try:
            bpb = self._train(job, jailed, so_far, progress)
            if not math.isfinite(bpb):
                bpb, status, reason = None, Status.NAN, "the validation loss is not finite"
        except JailFailure as failure:
            status, reason, line = failure.status, failure.reason, failure.line
        except TrainingError as error:
            status, reason = _TRAINING_STATUS[type(error)], str(error)
        except SandboxFailure as failure:
            status, reason = Status.SANDBOX_ERROR, str(failure)
        outcome = self._finish(jailed, so_far, status=status, reason=reason, line=line, bpb=bpb)
        return replace(outcome, vitals=_vitals(so_far)) if job.vitals else outcome

    def _start(self, job: Job, heartbeat: Callable[[], None]) -> JailedOptimizer:
        warm = self.warm
        warm.initialise(job.seed)
        if job.evidence:
            warm.untrained_bpb(job.seed, job.split)  # now, while no jail can touch the weights
        order = jail_order(
            source=job.source,
            source_name=job.source_name,
            layout=ParameterLayout(params=warm.param_fields(), elements=warm.elements),
            horizon={
                "total_steps": job.total_steps,
                "tokens_per_step": warm.profile.tokens_per_step,
                "model_width": warm.profile.width,
            },
            limits=job.limits,
            seed=jail_seed(job.seed),
        )
        jail = self._zygote.fork(order, warm.params_fd, warm.grads_fd)
        return JailedOptimizer(jail, job.limits, heartbeat)

    def _train(
        self, job: Job, jailed: JailedOptimizer, so_far: _Progress, progress: Callable[[int], None]
    ) -> float:
        warm = self.warm

        def on_step(step: int, loss: float) -> None:
            so_far.curve.append((step, loss))
            if job.vitals:
                so_far.gradient_norms.append((step, warm.gradient_norm()))
            progress(step)

        jailed.build()
        service = warm.service(jailed)
        if job.gradients is not Gradients.TRUE:
            service = AlteredGradients(service, warm.gradients, kind=job.gradients, seed=job.seed)
        train(
            warm.model,
            warm.batches(job.seed),
            service,
            steps=job.steps,
            horizon=job.total_steps,
            on_step=on_step,
            forward_backward=warm.forward_backward,
        )
        service.enter_eval()
        if job.vitals:
            so_far.resident_bytes = _own_memory(jailed.pid)
        if job.evidence:
            so_far.evidence = Evidence(
                untrained_bpb=warm.untrained_bpb(job.seed, job.split),
                movement=warm.movement(job.seed),
            )
        return warm.validate(job.split)

    def _finish(
        self,
        jailed: JailedOptimizer,
        so_far: _Progress,
        *,
        status: Status,
        reason: str,
        line: int | None,
        bpb: float | None,
    ) -> Outcome:
        fingerprint = self.warm.fingerprint() if status is Status.OK else None
        try:
            report = jailed.end()
        except SandboxFailure as failure:
            return self._outcome(so_far, Status.SANDBOX_ERROR, str(failure))
        return self._outcome(
            so_far,
            status,
            reason,
            bpb=bpb,
            line=line,
            fingerprint=fingerprint,
            report=report,
            output_tail=jailed.output_tail,
        )

    def _outcome(  # noqa: PLR0913 - the parts of an outcome, by name
        self,
        so_far: _Progress,
        status: Status,
        reason: str,
        *,
        bpb: float | None = None,
        line: int | None = None,
        fingerprint: str | None = None,
        report: ExitReport | None = None,
        output_tail: str = "",
    ) -> Outcome:
        return Outcome(
            status=status,
            reason=reason,
            bpb=bpb,
            curve=tuple(so_far.curve),
            fingerprint=fingerprint,
            line=line,
            jail_cpu_s=report.cpu_s if report else 0.0,
            train_cpu_s=time.process_time() - so_far.train_cpu_started_s,
            wall_s=time.monotonic() - so_far.started_s,
            peak_memory_bytes=report.peak_memory_bytes if report else 0,
            output_tail=output_tail,
            sandbox_level=self._level,
            unsafe=self._spec.unsafe,
            evidence=so_far.evidence if status is Status.OK else None,
        )


def _vitals(so_far: _Progress) -> Vitals:
    return Vitals(gradient_norms=tuple(so_far.gradient_norms), resident_bytes=so_far.resident_bytes)


def _own_memory(pid: int) -> int | None:
    """Return the resident memory of a stopped process that is no file's and nobody else's map."""
    try:
        resident, shared = Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1:3]
    except OSError:  # it has just ended, or processes are hidden from us: not known
        return None
    return (int(resident) - int(shared)) * mmap.PAGESIZE


def _load(spec: WorkerSpec) -> tuple[Profile, Corpus]:
    with _as_unusable():
        profile = load_profile(spec.profile).with_size(spec.size)
        corpus = load_corpus(spec.data_path, spec.tokenizer or profile.tokenizer)
        needed = profile.batch_size * profile.sequence_length * 8
        corpus.require("train", needed)
        corpus.require("search", min(profile.validation_bytes, needed))
        profile.model_config(corpus.tokenizer.vocab_size)
    return profile, corpus


@contextlib.contextmanager
def _as_unusable() -> Iterator[None]:
    try:
        yield
    except (CorpusError, ProfileError) as error:
        raise UnusableConfigurationError(str(error)) from error


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UnusableConfigurationError(
            f"unknown device {name!r}: expected cpu, cuda or cuda:N"
        ) from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UnusableConfigurationError(
            "device cuda was asked for, but torch finds no CUDA here: use --device cpu, or install "
            "a CUDA build of torch"
        )
    if device.type not in ("cpu", "cuda"):
        raise UnusableConfigurationError(f"device {name!r} is not supported: use cpu or cuda")
    return device
