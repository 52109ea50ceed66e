"""Run attacks in the naive trainer, where each that is marked so must win."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.adversarial.corpus import Attack
from tests.adversarial.observed import Observed, score_sightings
from tests.adversarial.processes import descendants, end_and_reap
from tests.adversarial.program import host_program, spliced
from tests.adversarial.scene import Scene

__all__ = ["NaiveRuns"]

_KILLED_AT_THE_END = 1


class NaiveRuns:
    """A preloaded naive trainer; a context manager."""

    def __init__(self) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.adversarial.naive"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            text=True,
        )
        descriptor, self._output = tempfile.mkstemp(prefix="nanoevolve-naive-")
        os.close(descriptor)
        self._reference: float | None = None

    def __enter__(self) -> Self:
        with Scene() as scene:
            self._ask([host_program()], scene)
            self._reference = _score(scene.metrics)
        if self._reference is None:
            raise RuntimeError(f"the naive trainer does not train: {self._printed()}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.kill()
        self._server.communicate()
        os.unlink(self._output)

    def attempt(self, attack: Attack, scene: Scene) -> Observed:
        """Run an attack and look for its effects."""
        known = set(descendants())
        sources = [spliced(attack, scene.fill_in(code)) for code in attack.candidates]
        answer = self._ask(sources, scene)
        survivors = end_and_reap(known)
        printed = self._printed()
        seen = scene.sightings(printed, attack.says, ignore=[scene.metrics])
        if os.environ["FAKE_API_KEY"] in printed:
            seen.append("the output has the canary of the environment")
        seen += [f"{count} processes {name!r} survived" for name, count in survivors.items()]
        if answer["code"] == _KILLED_AT_THE_END:
            seen.append("the trainer did not end")
        elif answer["code"] < 0:
            seen.append(f"its supervisor was killed by signal {-answer['code']}")
        if self._reference is not None:
            seen += score_sightings(attack.loss, _score(scene.metrics), self._reference)
        return Observed(
            verdict="fallen" if seen else "held",
            reason=printed[-200:],
            seconds=answer["seconds"],
            sightings=tuple(seen),
        )

    def _ask(self, sources: list[str], scene: Scene) -> dict[str, Any]:
        if self._server.stdin is None or self._server.stdout is None:
            raise RuntimeError("the naive trainer has no pipes")
        os.truncate(self._output, 0)
        request = {
            "candidates": sources,
            "metrics": str(scene.metrics),
            "workplace": str(scene.workplace),
            "output": self._output,
        }
        self._server.stdin.write(json.dumps(request) + "\n")
        self._server.stdin.flush()
        answer: dict[str, Any] = json.loads(self._server.stdout.readline())
        return answer

    def _printed(self) -> str:
        return Path(self._output).read_text(encoding="utf-8", errors="replace")


def _score(metrics: Path) -> float | None:
    text = metrics.read_text(encoding="utf-8") if metrics.exists() else ""
    return float(json.loads(text)["val_loss"]) if text else None
