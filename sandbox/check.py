"""`python -m sandbox.check`: print what this machine can isolate, by trying it."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.table import Table

from sandbox.jail_process import SandboxFailure, Zygote
from sandbox.probe import ProbeReport, probe

__all__ = ["app", "check"]


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main() -> None:
    """Show what a jail prevents on this machine, by trying it; exit code 1 below level S2."""
    raise typer.Exit(check())


def check() -> int:
    """Probe this machine, print the evidence and the level; return the exit code."""
    console = Console()
    try:
        zygote = Zygote()
        try:
            report = probe(zygote)
        finally:
            zygote.close()
    except SandboxFailure as failure:
        console.print(f"No jail could be started: {failure}")
        return 1
    console.print(_table(report))
    for line in report.missing:
        console.print(f"The kernel does not offer {line}", highlight=False)
    console.print(f"This machine reaches sandbox level [bold]S{report.level}[/bold].")
    lacking = report.lacking(2)
    if lacking:
        console.print(f"S2, the default requirement, is not met: {'; '.join(lacking)}.")
        return 1
    return 0


def _table(report: ProbeReport) -> Table:
    table = Table(title="What a jail prevents here", caption="outside is the positive control")
    for column in ("capability", "act", "inside the jail", "outside", "holds"):
        table.add_column(column, overflow="fold")
    for row in report.rows:
        holds = "[green]yes[/green]" if row.holds else "[red]no[/red]"
        table.add_row(row.capability, row.act, row.inside, row.outside, holds)
    return table


if __name__ == "__main__":
    app()
