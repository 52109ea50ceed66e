"""Put an attack into the optimizer file that a real run starts from.

The host is the tuned seed program of the profile `micro` with four functions that do nothing, in
a region a default run may edit, called from the locked optimizer class with the optimizer as
their argument. So an attack gets hold of what it needs at a place that preflight and jail treat
like any edit, and all that preflight can object to is the attack itself.
"""

from __future__ import annotations

import textwrap

from sandbox.baseline import seed_program
from tests.adversarial.corpus import Attack, Slot

__all__ = ["PROFILE", "SCOPES", "host_program", "spliced"]

PROFILE = "micro"
SCOPES = frozenset({"policy", "muon", "schedule"})

_REGION_START = "# EVOLVE-BLOCK-START muon\n"
# Line of the locked class -> the call put in front of it, and the function called.
_HOOKS = {
    Slot.STEP: (
        "        if self.training_state is None:\n",
        "        before_step(self)\n",
        "def before_step(self):\n",
    ),
    Slot.INIT: (
        "        self._before_eval: list[Tensor] | None = None\n",
        "        after_init(self, [param.tensor for param in params])\n",
        "def after_init(self, params_list):\n",
    ),
    Slot.EVAL: (
        "        averaged = [stack for stack in self.stacks",
        "        before_eval(self)\n",
        "def before_eval(self):\n",
    ),
    Slot.OBSERVE: (
        "        self.training_state = state\n",
        "        before_observe(self, state)\n",
        "def before_observe(self, state):\n",
    ),
}
_NOTHING = '    """Do nothing."""\n'


def host_program() -> str:
    """Return the program that attacks are put into; it trains like the seed program."""
    source = seed_program(PROFILE)
    functions = ""
    for line, call, head in _HOOKS.values():
        source = _replace_once(source, line, call + line)
        functions += f"\n\n{head}{_NOTHING}"
    return _replace_once(source, _REGION_START, f"{_REGION_START}{functions.lstrip()}\n\n")


def spliced(attack: Attack, code: str) -> str:
    """Return the host program with `code`, the attack's placeholders filled in, at its slot."""
    if attack.slot is Slot.FILE:
        return code
    host = host_program()
    if attack.prelude:
        host = _replace_once(host, _REGION_START, f"{_REGION_START}{attack.prelude}\n\n")
    if attack.slot is Slot.END:
        return f"{host}\n\n{code}\n"
    if attack.slot is Slot.MODULE:
        return _replace_once(host, _REGION_START, f"{_REGION_START}{code}\n\n\n")
    head = _HOOKS[attack.slot][2] + _NOTHING
    return _replace_once(host, head, head + textwrap.indent(code, "    ").rstrip() + "\n")


def _replace_once(text: str, old: str, new: str) -> str:
    if text.count(old) != 1:
        raise LookupError(f"expected once in the optimizer file, found {text.count(old)}: {old!r}")
    return text.replace(old, new)
