"""The command `python -m agent.track3`: check logs of the public fixed-data optimizer benchmark."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from agent.output import OutputLostError, PipeConsole, printing, say
from agent.track3.report import Report, as_json, print_report
from agent.track3.submissions import LogsError, borrowed, collect
from agent.track3.verdicts import Verdict, compare, judge

__all__ = ["app"]

EXIT_NOT_PASSED = 1
EXIT_REFUSED = 2

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def main(
    logs: Annotated[
        list[Path],
        typer.Argument(
            help="Logs, folders of logs, or tables of curves; PATH:NAME keeps the submissions "
            "called NAME, which may hold * and ?."
        ),
    ],
    baseline: Annotated[
        list[Path] | None,
        typer.Option(help="Logs of what to be better than, by the pairwise rule; repeatable."),
    ] = None,
    step: Annotated[
        int | None,
        typer.Option(min=1, help="The step claimed; the earliest common step that passes."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check whether submissions reach 3.28 nats, and whether they are better than a baseline.

    The runs of a folder with the same number of planned steps are one submission. Exit code 0:
    everything passes; 1: something fails or is malformed; 2: there is nothing to check.
    """
    try:
        found, others = collect(logs), collect(baseline) if baseline else None
    except LogsError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_REFUSED) from error
    judgements = [judge(one, step) for one in found.submissions]
    references = [judge(one) for one in others.submissions] if others else []
    report = Report(
        judgements=judgements,
        comparisons=[compare(one, other) for one in judgements for other in references],
        without_runs=[*found.without_runs, *(others.without_runs if others else ())],
        borrowed=borrowed(found.submissions),
    )
    try:
        with printing("nothing was changed", silent_if_closed=True):
            if json:
                typer.echo(as_json(report))
            else:
                print_report(PipeConsole(highlight=False), report)
    except OutputLostError as error:
        say(f"error: {error}")
        raise typer.Exit(EXIT_NOT_PASSED) from error
    verdicts = [one.verdict for one in report.judgements]
    verdicts += [one.verdict for one in report.comparisons]
    if any(verdict is not Verdict.PASS for verdict in verdicts):
        raise typer.Exit(EXIT_NOT_PASSED)


if __name__ == "__main__":
    app()
