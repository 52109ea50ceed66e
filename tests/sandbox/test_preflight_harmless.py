"""The harmless edits: every one trains, and preflight lets every one pass."""

from __future__ import annotations

import pytest

from sandbox.preflight import preflight
from tests.sandbox.harmless.corpus import SCOPES, SHIPPED, Edit, edits
from tests.sandbox.harmless.training import functions_of, train_with

EDITS = edits()


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_a_harmless_edit_passes(edit: Edit) -> None:
    assert preflight(edit.source, SHIPPED, SCOPES) == ()


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: edit.name)
def test_a_harmless_edit_trains_and_its_code_runs(edit: Edit) -> None:
    trained = train_with(edit.source)

    assert trained.losses[-1] < trained.losses[0]
    assert functions_of(edit.source) - functions_of(SHIPPED) <= trained.entered


def test_the_corpus_is_as_large_as_the_rate_it_gives_is_fine() -> None:
    assert len(EDITS) >= 60
    assert len({edit.source for edit in EDITS}) == len(EDITS)
