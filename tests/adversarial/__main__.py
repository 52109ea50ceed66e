"""`python -m tests.adversarial`: try the corpus of attacks, print the catch-rate table.

Every attack goes through preflight, then through a jail with preflight left out; those marked for
it also through a naive trainer, where they must win. Exit code 1 if anything was breached, left
behind or too weak.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from rich.console import Console

from sandbox.levels import parse_level
from tests.adversarial.corpus import Attack, load_attacks
from tests.adversarial.lane import LaneSettings
from tests.adversarial.runner import CorpusRun, LaneError, run_corpus
from tests.adversarial.settings import as_ordinary_user, without_namespaces
from tests.adversarial.table import show

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Run the corpus as the arguments say."""
    options = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 110)
    attacks = [
        attack
        for attack in load_attacks()
        if (not options.group or attack.group in options.group)
        and (not options.id or attack.id in options.id)
    ]
    if not attacks:
        groups = ", ".join(sorted({attack.group for attack in load_attacks()}))
        console.print(f"no attack has this group or id: the groups are {groups}; ids: --list")
        return 2
    if options.list:
        for attack in attacks:
            print(f"{attack.group}  {attack.id}")  # noqa: T201 - a command
        return 0
    json_file = options.json.open("w") if options.json else None  # with this user's rights
    if options.as_user:
        as_ordinary_user()
    if options.no_userns:
        without_namespaces()
    settings = LaneSettings(
        jail=True, naive=not options.no_naive, required_level=options.required_sandbox
    )
    try:
        run = run_corpus(attacks, settings, lanes=options.lanes)
    except LaneError as error:
        console.print(f"the corpus could not be tried to the end: {error}", markup=False)
        return 1
    show(run, console, "namespaces refused" if options.no_userns else "namespaces as allowed")
    if json_file:
        with json_file:
            _write(run, json_file)
    bad = run.leftovers or any(each.breaches or each.is_weak for each in run.tried)
    return 1 if bad else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.adversarial", description=__doc__)
    parser.add_argument("--group", action="append", help="only this group; may be repeated")
    parser.add_argument("--id", action="append", help="only this attack; may be repeated")
    parser.add_argument("--list", action="store_true", help="print groups and ids, try nothing")
    parser.add_argument("--no-naive", action="store_true", help="leave the naive trainer out")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all observations there")
    parser.add_argument("--lanes", type=int, default=2, help="how many to try at a time")
    parser.add_argument(
        "--required-sandbox",
        type=_level,
        default=2,
        metavar="LEVEL",
        help="refuse to run below it, S0 to S4",
    )
    parser.add_argument(
        "--as-user", action="store_true", help="started by root: become an ordinary user first"
    )
    parser.add_argument(
        "--no-userns",
        action="store_true",
        help="refuse namespaces to everything below, as containers do",
    )
    return parser


def _level(text: str) -> int:
    try:
        return parse_level(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: {error}") from error


def _write(run: CorpusRun, stream: TextIO) -> None:
    def plain(attack: Attack) -> dict[str, object]:
        return {"id": attack.id, "group": attack.group, "beats_naive": attack.beats_naive}

    content = {
        "ready": run.ready,
        "wall_s": run.wall_s,
        "leftovers": run.leftovers,
        "attacks": [
            {
                **plain(each.attack),
                "preflight": dataclasses.asdict(each.preflight),
                "jail": dataclasses.asdict(each.jail) if each.jail else None,
                "naive": dataclasses.asdict(each.naive) if each.naive else None,
            }
            for each in run.tried
        ],
    }
    json.dump(content, stream, indent=1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
