"""`python -m sandbox.check`: print what this machine can isolate, by trying it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from sandbox.jail_process import SandboxFailure
from sandbox.levels import ELSEWHERE, HIGHEST_LEVEL, parse_level
from sandbox.probe import ProbeReport, probe
from sandbox.seccomp import is_tested
from sandbox.zygote_process import Zygote

__all__ = ["app", "check"]

_WIDTH = 100

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    required: Annotated[
        str, typer.Option("--required-sandbox", help="level below which to exit with 1, S0 to S4")
    ] = "S2",
) -> None:
    """Show what a jail prevents on this machine, by trying it.

    Every act is attempted inside a jail, where it must fail, and outside, where it must succeed.
    Exit code 1 below the required level.
    """
    try:
        level = parse_level(required)
    except ValueError as error:
        print(f"--required-sandbox cannot be {required!r}: {error}", file=sys.stderr)  # noqa: T201 - a command
        raise typer.Exit(2) from error
    raise typer.Exit(check(level))


def check(required: int = 2) -> int:
    """Probe this machine, print the evidence and the level; return the exit code."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    if sys.platform != "linux":
        console.print(
            f"S0: nothing is isolated on {sys.platform}. Jails are made of Landlock, seccomp and "
            f"namespaces: {ELSEWHERE}."
        )
        return 1
    try:
        zygote = Zygote()
        try:
            report = probe(zygote)
            wrapped = zygote.is_wrapped
        finally:
            zygote.close()
    except SandboxFailure as failure:
        console.print(f"No jail could be started: {failure}")
        return 1
    console.print(_table(report))
    _explain(console, report, wrapped=wrapped)
    lacking = report.lacking(required)
    if lacking or report.contradictions:
        console.print(f"The required level S{required} is [red]not met[/red].", highlight=False)
        return 1
    return 0


def _table(report: ProbeReport) -> Table:
    table = Table(
        title="What a jail prevents here",
        caption="outside is the positive control; own_*, separate_uid, tree_* and pid_cap are "
        "tried with the filters left out; of separate_uid and tree_kill one is enough",
    )
    for column in ("capability", "act", "inside the jail", "outside", "holds"):
        table.add_column(column, overflow="fold")
    previous = ""
    for row in report.rows:
        holds = "[green]yes[/green]" if row.holds else "[red]no[/red]"
        capability = row.capability if row.capability != previous else ""
        previous = row.capability
        table.add_row(capability, row.act, _short(row.inside), _short(row.outside), holds)
    return table


def _short(result: str) -> str:
    """Leave out the number of the error and the path, which nobody needs here."""
    kind, _, message = result.partition(": ")
    return (
        f"{kind}: {message.partition('] ')[2].partition(': ')[0]}"
        if "[Errno" in message
        else result
    )


def _explain(console: Console, report: ProbeReport, *, wrapped: bool) -> None:
    if wrapped:
        console.print("Bubblewrap is the outer layer: namespaces of our own are not allowed here.")
    if not is_tested():
        console.print("The system call filter for this processor has never been tested.")
    for line in report.missing:
        console.print(f"Not available: {line}", highlight=False, markup=False)
    for line in report.contradictions:
        console.print(f"The kernel contradicts itself: {line}", highlight=False, markup=False)
    console.print(
        f"This machine reaches sandbox level [bold]S{report.level}[/bold]; docs/security.md says "
        "what the levels mean.",
        highlight=False,
    )
    if report.level < HIGHEST_LEVEL:
        console.print(f"For S{report.level + 1}:", highlight=False)
        for line in report.lacking(report.level + 1):
            console.print(Padding(Text(line), (0, 0, 0, 2)))


if __name__ == "__main__":
    app()
