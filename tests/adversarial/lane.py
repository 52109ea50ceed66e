"""One lane of the corpus: a process that tries attacks one after the other.

`python -m tests.adversarial.lane SETTINGS` reads attack ids as lines and writes what it found as
JSON lines. Every process it starts stays below it, so whatever survives an attack is its own.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from sandbox.preflight import preflight
from tests.adversarial.corpus import Attack, load_attacks
from tests.adversarial.jailed_runs import JailedRuns
from tests.adversarial.naive_runs import NaiveRuns
from tests.adversarial.observed import Observed
from tests.adversarial.processes import adopt_orphans
from tests.adversarial.program import SCOPES, host_program, spliced
from tests.adversarial.scene import Scene

__all__ = ["LaneSettings", "main"]

_SLOW_PREFLIGHT_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneSettings:
    """What a lane is to try, and the lowest sandbox level to do it at."""

    jail: bool
    naive: bool
    required_level: int


def check_by_preflight(attack: Attack, scene: Scene) -> Observed:
    """Have preflight judge an attack the way it judges any candidate of a default run."""
    started = time.monotonic()
    host = host_program()
    seen: list[str] = []
    rules: list[str] = []
    message = ""
    for code in attack.candidates:
        violations = preflight(spliced(attack, scene.fill_in(code)), host, SCOPES)
        rules += [each.rule for each in violations]
        message = message or next((each.message for each in violations), "")
    seconds = time.monotonic() - started
    if seconds > _SLOW_PREFLIGHT_S:
        seen.append(f"preflight took {seconds:.1f} s")
    if attack.is_control and rules:
        seen.append(f"harmless, but refused: {message}")
    return Observed(
        verdict="refused" if rules else "passed",
        reason=message,
        seconds=seconds,
        sightings=tuple(seen),
    )


def main(settings: LaneSettings) -> None:
    """Try the attacks named on standard input until it ends."""
    adopt_orphans()
    os.environ["FAKE_API_KEY"] = f"KEY-{secrets.token_hex(8)}"
    attacks = {attack.id: attack for attack in load_attacks()}
    with contextlib.ExitStack() as open_:
        folder = open_.enter_context(tempfile.TemporaryDirectory(prefix="nanoevolve-lane-"))
        open_.enter_context(contextlib.chdir(folder))
        naive = open_.enter_context(NaiveRuns()) if settings.naive else None
        jailed = open_.enter_context(JailedRuns(settings.required_level)) if settings.jail else None
        _answer(dataclasses.asdict(jailed.ready) if jailed else {})
        for line in sys.stdin:
            attack = attacks[line.strip()]
            found: dict[str, Any] = {"id": attack.id}
            with Scene() as scene:
                found["preflight"] = dataclasses.asdict(check_by_preflight(attack, scene))
            if naive is not None and attack.beats_naive:
                with Scene() as scene:
                    found["naive"] = dataclasses.asdict(naive.attempt(attack, scene))
            if jailed is not None:
                with Scene() as scene:
                    found["jail"] = dataclasses.asdict(jailed.attempt(attack, scene))
            _answer(found)
        _answer({"processes": sorted(jailed.processes) if jailed else []})


def _answer(found: dict[str, Any]) -> None:
    print(json.dumps(found), flush=True)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main(LaneSettings(**json.loads(sys.argv[1])))
