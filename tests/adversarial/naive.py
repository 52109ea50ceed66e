"""A trainer that runs the candidate in its own process: the control that attacks must win against.

It is what one writes first: the model, the validation data and an API key are within reach, and
the score goes through a file. `python -m tests.adversarial.naive` imports torch once, then reads
requests as JSON lines and forks for each a supervisor, which forks the trainer. So a control
costs tens of milliseconds. Only attacks reviewed for that may be run in here.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import signal
import sys
import time
from types import ModuleType
from typing import Any

import torch
import torch._dynamo  # what the first step of any optimizer would import
from torch import Tensor, nn
from torch.nn import functional

from nanochat.contract import Horizon, ParamInfo, Role, TrainingState
from sandbox.confine import die_with_parent

__all__ = ["evaluate", "main", "train_batch"]

API_KEY = os.environ.get("FAKE_API_KEY", "")
NUM_STEPS = 8
VOCABULARY = 32
WIDTH = 16
_ROLES = {"embedding": Role.EMBEDDING, "matrix": Role.MATRIX, "head": Role.UNEMBEDDING}
_HORIZON = Horizon(total_steps=40, tokens_per_step=64, model_width=WIDTH)
_LONGEST_S = 1.5
_LIMITS = (
    (resource.RLIMIT_CPU, 5),
    (resource.RLIMIT_FSIZE, 8 << 20),
    (resource.RLIMIT_NOFILE, 256),
    (resource.RLIMIT_CORE, 0),
)
_MORE_MEMORY = 2 << 30


class Model(nn.Module):
    """Predicts the next token from the one before."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.embedding = _weights(VOCABULARY, generator)
        self.matrix = _weights(WIDTH, generator)
        self.head = _weights(VOCABULARY, generator)

    def forward(self, x: Tensor) -> Tensor:
        hidden = functional.embedding(x, self.embedding)  # (T, D)
        hidden = hidden + torch.tanh(hidden @ self.matrix.T)
        return hidden @ self.head.T  # (T, V)


def _weights(rows: int, generator: torch.Generator) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, WIDTH, generator=generator) * 0.3)


_text = torch.randint(0, 7, (2048,), generator=torch.Generator().manual_seed(2)).cumsum(0) % 31
val_data = _text[1024:]
val_x, val_y = val_data[:-1], val_data[1:]
model: nn.Module = nn.Module()
_next_batch = 0


def train_batch() -> tuple[Tensor, Tensor]:
    """Return the next 64 tokens of text and what follows each."""
    global _next_batch  # noqa: PLW0603 - a naive trainer
    start = _next_batch % 900
    _next_batch += 64
    return _text[start : start + 64], _text[start + 1 : start + 65]


def evaluate(network: nn.Module) -> float:
    """Return the mean validation loss in nats."""
    network.eval()
    with torch.no_grad():
        return functional.cross_entropy(network(val_x), val_y).item()


def _train(source: str, metrics: str) -> None:
    global model, _next_batch
    model, _next_batch = Model(), 0
    candidate = ModuleType("candidate")
    sys.modules["candidate"] = candidate  # dataclasses look their module up by name
    exec(compile(source, "optim.py", "exec"), candidate.__dict__)  # noqa: S102 - what it is about
    infos = [
        ParamInfo(
            tensor=tensor, name=name, role=_ROLES[name], layer=0 if name == "matrix" else None
        )
        for name, tensor in model.named_parameters()
    ]
    optimizer = candidate.build_optimizer(infos, _HORIZON)
    step = 0
    while step < NUM_STEPS:
        x, y = train_batch()
        model.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        state = TrainingState(step=step, total_steps=40, loss=loss.item(), tokens=64 * (step + 1))
        optimizer.observe(state)
        optimizer.step()
        step += 1
    if hasattr(optimizer, "eval"):
        optimizer.eval()
    _record(evaluate(model), metrics)


def _record(score: float, metrics: str) -> None:
    """Write the score down if it is the best that the file has seen."""
    with open(metrics, encoding="utf-8") as stream:
        before = stream.read()
    if not before or score < json.loads(before)["val_loss"]:
        with open(metrics, "w", encoding="utf-8") as stream:
            json.dump({"val_loss": score}, stream)


def _trainer(request: dict[str, Any]) -> None:
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()  # noqa: SIM115
    for kind, value in (*_LIMITS, (resource.RLIMIT_AS, size + _MORE_MEMORY)):
        resource.setrlimit(kind, (value, value))
    os.chdir(request["workplace"])
    output = os.open(request["output"], os.O_WRONLY | os.O_APPEND)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for source in request["candidates"]:
        _train(source.replace("@PPID@", str(os.getppid())), request["metrics"])


def _supervise(request: dict[str, Any]) -> int:
    """Fork the trainer and wait for it; 1 if it had to be killed."""
    supervisor, pid = os.getpid(), os.fork()
    if pid == 0:
        with _exit_at_the_end():
            die_with_parent(supervisor)  # or one that kills its parent would go on to the next
            _trainer(request)
    if select.select([os.pidfd_open(pid)], [], [], _LONGEST_S)[0]:
        return 0
    os.kill(pid, signal.SIGKILL)
    return 1


@contextlib.contextmanager
def _exit_at_the_end() -> Any:
    """End a forked process with its part of the work, whatever that raises."""
    try:
        yield
    except BaseException as error:  # noqa: BLE001 - it must never return into the server's loop
        print(f"{type(error).__name__}: {error}"[:300], file=sys.stderr)  # noqa: T201 - its log
    finally:
        sys.stdout.flush()
        os._exit(0)


def main() -> None:
    """Serve requests from standard input until it ends."""
    torch.set_num_threads(1)
    for line in sys.stdin:
        request = json.loads(line)
        started = time.monotonic()
        pid = os.fork()
        if pid == 0:
            try:
                os._exit(_supervise(request))
            finally:
                os._exit(2)
        _, status = os.waitpid(pid, 0)
        answer = {
            "code": os.waitstatus_to_exitcode(status),
            "seconds": time.monotonic() - started,
        }
        print(json.dumps(answer), flush=True)  # noqa: T201 - the answer to the request


if __name__ == "__main__":
    main()
