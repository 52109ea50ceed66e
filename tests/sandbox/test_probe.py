from __future__ import annotations

import dataclasses
import os
import shutil
from collections.abc import Iterator

import pytest

from sandbox.levels import CAPABILITIES
from sandbox.probe import ProbeReport, ProbeRow, probe
from sandbox.zygote_process import Outer, Zygote


@pytest.fixture(scope="module")
def report(zygote: Zygote) -> ProbeReport:
    return probe(zygote)


@pytest.fixture(scope="module")
def bare_report() -> Iterator[ProbeReport]:
    zygote = Zygote(Outer.NONE)
    try:
        yield probe(zygote)
    finally:
        zygote.close()


def test_every_act_succeeds_outside_the_jail(report: ProbeReport) -> None:
    assert {row.act: row.outside for row in report.rows} == {
        row.act: "succeeded" for row in report.rows
    }


def test_this_machine_reaches_level_2_at_least(report: ProbeReport) -> None:
    assert report.level >= 2, (report.rows, report.missing)
    assert report.lacking(2) == ()
    assert report.contradictions == ()


@pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user may not be allowed to")
def test_root_reaches_level_3(report: ProbeReport) -> None:
    assert report.level >= 3, (report.rows, report.missing)


def test_without_namespaces_and_control_groups_level_2_remains(bare_report: ProbeReport) -> None:
    inside = {(row.capability, row.act): row.inside for row in bare_report.rows}

    assert bare_report.level == 2
    # The controls of the higher levels: what these prevent is possible without them.
    for capability in ("own_net", "own_files", "tree_kill", "pid_cap", "tree_mem_cap"):
        acts = next(c.acts for c in CAPABILITIES if c.name == capability)
        assert {inside[capability, act] for act in acts} == {"succeeded"}
    assert any("own_net" in line and "namespaces" in line for line in bare_report.lacking(3))
    assert any("pid_cap" in line and "control group" in line for line in bare_report.lacking(4))


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="needs bubblewrap")
def test_bubblewrap_takes_the_place_of_namespaces_of_our_own() -> None:
    zygote = Zygote(Outer.BUBBLEWRAP)
    try:
        found = probe(zygote)
    finally:
        zygote.close()

    assert {"own_net", "own_files"} <= set(found.capabilities)
    assert zygote.is_wrapped


@pytest.mark.parametrize("act", [act for c in CAPABILITIES for act in c.acts])
def test_one_act_that_succeeds_inside_costs_its_capability(report: ProbeReport, act: str) -> None:
    rows = tuple(
        dataclasses.replace(row, inside="succeeded") if row.act == act else row
        for row in report.rows
    )

    leaky = ProbeReport(rows=rows, missing=())

    assert not set(leaky.capabilities) & {c.name for c in CAPABILITIES if act in c.acts}
    assert any(act in line for line in leaky.contradictions)


def test_a_leak_is_no_contradiction_where_its_mechanism_is_known_to_be_missing(
    report: ProbeReport,
) -> None:
    rows = tuple(
        dataclasses.replace(row, inside="succeeded")
        if row.capability in ("no_read", "no_net")
        else row
        for row in report.rows
    )

    leaky = ProbeReport(rows=rows, missing=("landlock: absent",))

    assert len(leaky.contradictions) == 4
    assert all("seccomp was set up" in line for line in leaky.contradictions)


def test_an_act_that_fails_outside_too_proves_nothing(report: ProbeReport) -> None:
    rows = tuple(
        dataclasses.replace(row, outside="OSError: no") if row.act == "read_file" else row
        for row in report.rows
    )

    blind = ProbeReport(rows=rows, missing=())

    assert blind.level == 1
    assert "proves nothing" in blind.lacking(2)[0]
    assert not ProbeRow(capability="c", act="a", inside="OSError", outside="OSError").holds
