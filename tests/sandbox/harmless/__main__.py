"""Print which edits of the corpus preflight refuses, and how many: its false-rejection rate.

python -m tests.sandbox.harmless
"""

from __future__ import annotations

import sys

from sandbox.preflight import preflight
from tests.sandbox.harmless.corpus import SCOPES, SHIPPED, edits
from tests.sandbox.harmless.training import train_with


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Try every edit; exit code 1 if one is refused or does not train."""
    refused = broken = 0
    corpus = edits()
    for edit in corpus:
        violations = preflight(edit.source, SHIPPED, SCOPES)
        refused += bool(violations)
        for violation in violations:
            say(f"{edit.name}: refused: {violation.rule}: {violation.message}")
        try:
            train_with(edit.source)
        except Exception as error:  # noqa: BLE001 - of an edit that is broken, whatever it raises
            broken += 1
            say(f"{edit.name}: does not train: {type(error).__name__}: {error}")
    say(
        f"{len(corpus)} harmless edits: {refused} refused by preflight "
        f"({100 * refused / len(corpus):.1f} %), {broken} do not train"
    )
    return 1 if refused or broken else 0


if __name__ == "__main__":
    sys.exit(main())
