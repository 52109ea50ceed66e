"""Add evaluations to the store in the folder given, and acknowledge each, until killed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

from db.store import Store
from tests.db.builders import after, evaluation, program


def main() -> None:
    with Store.open(Path(sys.argv[1])) as store:
        store.begin_session(after(0))
        for seed in count(len(store.evaluations())):
            store.add_evaluation(
                evaluation(program().id, seed=seed, output_tail="x" * (seed % 5000))
            )
            sys.stdout.write(f"{seed}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
