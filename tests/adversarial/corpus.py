"""The attacks, as records read from the TOML files in `attacks/`, one file per group.

An attack is a piece of candidate code that cheats, leaks, breaks out or breaks down, with the
place it goes to and what must not be seen afterwards. Placeholders such as `@SECRET@` stand for
things made for each attempt alone: see `tests.adversarial.scene`.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any

__all__ = ["Attack", "CorpusError", "Loss", "Slot", "load_attacks"]

_FOLDER = Path(__file__).parent / "attacks"


class CorpusError(ValueError):
    """An entry of the corpus is not an attack."""


class Slot(StrEnum):
    """Where the code goes; the first four become the body of a function of the optimizer file.

    All but `end` and `file` lie in a region that a default run may edit.
    """

    STEP = "step"  # runs at the start of every step; `self` is the optimizer
    INIT = "init"  # runs at the end of the constructor; also has `params_list`
    EVAL = "eval"  # runs before validation
    OBSERVE = "observe"  # runs when the training state is told; also has `state`
    MODULE = "module"  # top level, ahead of the functions of its region
    END = "end"  # last in the file, where it can redefine anything
    FILE = "file"  # the whole file


class Loss(StrEnum):
    """What a run that ends well may score."""

    SAME = "same"  # to the bit what the program scores without the attack
    NO_BETTER = "no_better"  # it changes weights within its rights, and must not gain by it
    JUDGED = "judged"  # a legal optimizer as far as a jail can tell: statistical gates decide


@dataclass(frozen=True, slots=True, kw_only=True)
class Attack:
    """One attack.

    `ends` are the verdicts seen as apt by its author, for the reader: any verdict will do that
    keeps the oracle quiet, but a harmless control, whose only end is `ok`, must end so.
    `preflight` says whether preflight refuses it today. `oracle` names what must not be seen, and
    `says` lists texts that show it beside the canary. `then` is the code of a second candidate,
    run right after the first, that looks for what the first has left. `repeat` replaces
    placeholders by a text many times over.
    """

    id: str
    group: str
    slot: Slot
    code: str
    ends: tuple[str, ...]
    oracle: str
    preflight: str = "refuse"
    says: tuple[str, ...] = ()
    loss: Loss = Loss.SAME
    beats_naive: bool = False
    then: str = ""
    prelude: str = ""
    repeat: dict[str, tuple[str, int]] = field(default_factory=dict)
    note: str = ""

    @property
    def is_control(self) -> bool:
        """Whether it is harmless and must pass."""
        return self.ends == ("ok",)

    @property
    def candidates(self) -> tuple[str, ...]:
        """The code of the candidates to run one after the other, repetitions written out."""
        return tuple(self._expand(code) for code in (self.code, self.then) if code)

    def _expand(self, code: str) -> str:
        for placeholder, (text, count) in self.repeat.items():
            code = code.replace(placeholder, text * count)
        return code


def load_attacks(folder: Path = _FOLDER) -> tuple[Attack, ...]:
    """Read all attacks, in the order of groups and files.

    Raises:
        CorpusError: an entry lacks a field, has an unknown one, or shares its id.
    """
    attacks: list[Attack] = []
    for path in sorted(folder.glob("*.toml")):
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        prelude = content.get("prelude", "")
        attacks += [_attack(path.stem, prelude, entry) for entry in content["attack"]]
    ids = [attack.id for attack in attacks]
    if twice := sorted({name for name in ids if ids.count(name) > 1}):
        raise CorpusError(f"ids must be unique, found twice: {', '.join(twice)}")
    return tuple(attacks)


def _attack(group: str, prelude: str, entry: dict[str, Any]) -> Attack:
    name = entry.get("id", "an entry without id")
    known = {each.name for each in fields(Attack)}
    if unknown := sorted(set(entry) - known):
        raise CorpusError(f"{group}/{name}: unknown fields {', '.join(unknown)}")
    try:
        return Attack(
            **{
                **entry,
                "group": group,
                "prelude": prelude,
                "slot": Slot(entry["slot"]),
                "loss": Loss(entry.get("loss", Loss.SAME)),
                "ends": tuple(entry["ends"]),
                "says": tuple(entry.get("says", ())),
                "repeat": {key: tuple(value) for key, value in entry.get("repeat", {}).items()},
            }
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorpusError(f"{group}/{name}: {error}") from error
