"""Which comparisons count as recognising the run, and which do not."""

from __future__ import annotations

import textwrap

import pytest

from sandbox.tells import TellKind, find_tells
from tests.sandbox.harmless.corpus import SHIPPED, edits

HEAD = "import torch\n\n\ndef rule(p, step, total_steps, name, horizon, params):\n"
PARENT = HEAD + "    return p\n"


def program(code: str) -> str:
    return HEAD + textwrap.indent(textwrap.dedent(code).strip("\n"), "    ") + "\n"


TELLS = [
    (TellKind.SIZE, "if p.numel() < 200000: return p"),
    (TellKind.SIZE, "return p if p.shape == (64, 64) else 2 * p"),
    (TellKind.SIZE, "return p if tuple(p.shape) in {(64, 64), (256, 64)} else 2 * p"),
    (TellKind.SIZE, "return p if p.shape == torch.Size([64, 64]) else 2 * p"),
    (TellKind.SIZE, "return p if p.size(0) == 8 * 8 else 2 * p"),
    (TellKind.SIZE, "n = p.numel()\nif n < 200_000: return p"),
    (TellKind.SIZE, "m, n = p.shape\nreturn p if m > 512 else -p"),
    (TellKind.SIZE, "total = sum(q.numel() for q in params)\nif p.shape[0] * 2 == 128: return p"),
    (TellKind.SIZE, "return p if horizon.model_width == 64 else -p"),
    (TellKind.SIZE, "match p.shape:\n    case (64, 64): return p\n    case _: return -p"),
    (TellKind.SIZE, "return p * {64: 1.0, 128: 0.5}.get(p.shape[-1], 0.7)"),
    (TellKind.SIZE, "return p * {64: 1.0, 128: 0.5}[p.shape[-1]]"),
    (TellKind.HORIZON, "if horizon.total_steps == 400: return p"),
    (TellKind.HORIZON, "if 390 < total_steps <= 410: return p"),
    (TellKind.HORIZON, "long = total_steps // 2 > 200\nreturn p if long else -p"),
    (TellKind.STEP, "return p if step < 100 else -p"),
    (TellKind.STEP, "phase = step % 100\nif phase == 37: return -p\nreturn p"),
    (TellKind.NAME, "return p if 'blocks.0' in name else -p"),
    (TellKind.NAME, "return p if name.startswith('blocks.0') else -p"),
    (TellKind.NAME, "return p if params[0].layer == 7 else -p"),
]


@pytest.mark.parametrize(("kind", "code"), TELLS, ids=[code[:40] for _, code in TELLS])
def test_code_that_recognises_its_run_is_told(kind: TellKind, code: str) -> None:
    [tell] = find_tells(program(code), PARENT)

    assert tell.kind is kind
    assert tell.text == program(code).split("\n")[tell.line - 1].strip()
    assert f"line {tell.line} " in tell.sentence


@pytest.mark.parametrize(
    "code",
    [
        "return p if p.ndim == 2 else -p",
        "return p if p.size(-2) > p.size(-1) else p.mT",
        "return p if step / total_steps < 0.35 else -p",
        "progress = step / total_steps\nreturn p if progress > 0.9 else -p",
        "return p if step == 0 else -p",
        "return p if step % 2 == 0 else -p",
        "return p if step < MUON.warmup_steps else -p",
        "return p if p.norm() > 5.0 else -p",
        "return p if params[0].role == 'matrix' else -p",
        "names = {'a': 64}\nreturn p * names['a']",
        "return p if p.abs().sum() < 1000 else -p",
        "y = torch.zeros(p.shape)\nreturn p if float(y.sum()) > 100 else -p",
    ],
)
def test_code_that_follows_the_training_tells_nothing(code: str) -> None:
    assert find_tells(program(code), PARENT) == ()


def test_a_tell_of_the_parent_is_not_held_against_its_child() -> None:
    parent = program("return p if p.shape == (64, 64) else 2 * p")

    assert find_tells(parent.replace("2 * p", "3 * p"), parent) == ()


def test_one_more_of_a_tell_that_the_parent_has_is_told() -> None:
    parent = program("return p if step < 100 else 2 * p")

    [tell] = find_tells(parent.replace("2 * p", "(-p if step < 100 else p)"), parent)

    assert tell.kind is TellKind.STEP


def test_the_shipped_file_tells_nothing() -> None:
    assert find_tells(SHIPPED, "") == ()


def test_the_harmless_edits_tell_nothing() -> None:
    assert {
        edit.name: found for edit in edits() if (found := find_tells(edit.source, SHIPPED))
    } == {}
