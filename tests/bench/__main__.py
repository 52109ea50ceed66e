"""`make bench`: measure speed and memory, print one table.

Everything is measured in this run, alternatives in turns, and reported as the median with its
quartiles. The machine is probably not quiet: ratios mean more than times.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

from rich.console import Console
from rich.table import Table

from nanochat.contract import Role
from tests.bench.controller import controller_cost
from tests.bench.figures import Figure
from tests.bench.jail_start import jail_start
from tests.bench.sandbox_cost import candidate_overhead, step_overhead, worker_memory
from tests.bench.speed import throughput

__all__ = ["main"]

_BENCHMARKS: dict[str, Callable[[], list[Figure]]] = {
    "candidate": lambda: [candidate_overhead(profile) for profile in ("micro", "cpu")],
    "start": jail_start,
    "step": lambda: [
        step_overhead(Role.EMBEDDING, "AdamW"),
        step_overhead(Role.MATRIX, "Muon"),
    ],
    "throughput": throughput,
    "controller": controller_cost,
    "memory": lambda: [worker_memory("cpu")],
}


def main(names: list[str]) -> int:
    """Run the benchmarks named, all of them by default; exit code 2 for an unknown name."""
    console = Console()
    unknown = [name for name in names if name not in _BENCHMARKS]
    if unknown:
        console.print(f"unknown benchmark {unknown[0]!r}: choose from {', '.join(_BENCHMARKS)}")
        return 2
    table = Table(title="NanoEvolve benchmarks", caption="median [quartiles]")
    for column in ("what", "reach", "measured", ""):
        table.add_column(column, overflow="fold")
    for name in names or _BENCHMARKS:
        console.print(f"measuring {name} ...")
        for figure in _BENCHMARKS[name]():
            mark = {True: "[green]met[/green]", False: "[red]missed[/red]", None: ""}[figure.met]
            table.add_row(figure.what, figure.reach, figure.measured, mark)
    console.print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
