from __future__ import annotations

import dataclasses

import pytest

from sandbox.jail_process import Zygote
from sandbox.probe import CAPABILITIES, ProbeReport, ProbeRow, probe


@pytest.fixture(scope="module")
def report(zygote: Zygote) -> ProbeReport:
    return probe(zygote)


def test_every_act_succeeds_outside_the_jail(report: ProbeReport) -> None:
    assert {row.act: row.outside for row in report.rows} == {
        row.act: "succeeded" for row in report.rows
    }


def test_this_machine_reaches_level_2(report: ProbeReport) -> None:
    assert report.level == 2, (report.rows, report.missing)
    assert report.lacking(2) == ()


@pytest.mark.parametrize("act", [act for acts in CAPABILITIES.values() for act in acts])
def test_one_act_that_succeeds_inside_costs_the_level(report: ProbeReport, act: str) -> None:
    rows = tuple(
        dataclasses.replace(row, inside="succeeded") if row.act == act else row
        for row in report.rows
    )

    leaky = ProbeReport(rows=rows, missing=())

    assert leaky.level < 2
    assert leaky.lacking(2)


def test_an_act_that_fails_outside_too_proves_nothing() -> None:
    row = ProbeRow(capability="no_net", act="connect", inside="OSError", outside="OSError")

    assert not row.holds


def test_a_level_nobody_has_built_is_not_reached(report: ProbeReport) -> None:
    assert "not implemented" in report.lacking(4)[0]
