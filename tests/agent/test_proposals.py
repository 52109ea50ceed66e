"""The records between the controller and a proposer."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import pytest

from agent.proposals import ParentView, ProposedPatch
from sandbox.patches import Patch


def test_a_proposal_cannot_be_changed_after_it_was_made() -> None:
    proposed = ProposedPatch(patch=Patch(()), description="x", proposer="y", parents=("a",))

    with pytest.raises(dataclasses.FrozenInstanceError):
        proposed.description = "z"  # type: ignore[misc]  # that is what is tested


def test_a_parent_without_measurements_has_no_effect() -> None:
    assert ParentView(program_id="a", source="").effect_bpb is None


def test_proposing_imports_neither_torch_nor_the_substrate() -> None:
    code = (
        "import sys, agent.operators.proposer, sandbox.preflight; "
        "print(sorted({'torch', 'nanochat', 'sqlalchemy', 'git'} & set(sys.modules)))"
    )

    # the interpreter that runs this test, on a constant
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert done.stdout == "[]\n"
