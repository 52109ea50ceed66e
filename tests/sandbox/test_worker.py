from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox import worker
from sandbox.evaluator import Evaluator, UnusableConfigurationError
from sandbox.jobs import WorkerSpec
from sandbox.levels import CAPABILITIES
from sandbox.probe import ProbeReport, ProbeRow
from sandbox.zygote_process import Zygote


class _Describing:
    """Takes the place of an evaluator that only has to describe itself."""

    def describe(self, **facts: Any) -> dict[str, Any]:
        return facts


def _report_of(leaky: str, missing: tuple[str, ...]) -> ProbeReport:
    rows = tuple(
        ProbeRow(
            capability=capability.name,
            act=act,
            inside="succeeded" if capability.name == leaky else "OSError: no",
            outside="succeeded",
        )
        for capability in CAPABILITIES
        for act in capability.acts
    )
    return ProbeReport(rows=rows, missing=missing)


def _start(monkeypatch: pytest.MonkeyPatch, report: ProbeReport, spec: WorkerSpec) -> Any:
    monkeypatch.setattr(worker, "probe", lambda _: report)
    return worker._report(spec, cast(Evaluator, _Describing()), cast(Zygote, None))


def test_a_machine_below_the_required_level_is_refused_with_what_would_help(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = _report_of("own_net", ("namespaces: not allowed",))

    with pytest.raises(UnusableConfigurationError) as caught:
        _start(monkeypatch, report, WorkerSpec(required_level=3))

    message = str(caught.value)
    assert "reaches sandbox level S2, but S3 is required" in message
    assert "own_net" in message
    assert "namespaces" in message
    assert "--unsafe-sandbox" in message


def test_unsafe_starts_below_the_required_level_and_reports_the_true_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = _report_of("own_net", ("namespaces: not allowed",))

    facts = _start(monkeypatch, report, WorkerSpec(required_level=3, unsafe=True))

    assert facts["sandbox_level"] == 2
    assert "own_net" not in facts["capabilities"]


def test_a_kernel_that_does_not_do_what_it_accepted_is_refused_at_any_level(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = _report_of("tree_kill", missing=())

    with pytest.raises(UnusableConfigurationError, match="although process table was set up"):
        _start(monkeypatch, report, WorkerSpec(required_level=0))


def test_at_the_required_level_the_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = _start(monkeypatch, _report_of("", ()), WorkerSpec(required_level=4))

    assert facts["sandbox_level"] == 4


def test_on_a_system_without_jails_the_worker_refuses_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bytes] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(worker, "_Channel", lambda: SimpleNamespace(send=sent.append))

    code = worker.main()

    assert code == 2
    assert b"refused" in sent[0]
    assert b"this is darwin: use Linux" in sent[0]
