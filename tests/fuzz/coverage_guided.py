"""Fuzz one target with Atheris, which mutates inputs towards code that was not reached yet.

Not run by pytest. Atheris is not among the project's dependencies; use an environment of its own:

    python3.11 -m venv /tmp/fuzz && /tmp/fuzz/bin/pip install atheris
    PYTHONPATH=. nice -n 15 /tmp/fuzz/bin/python tests/fuzz/coverage_guided.py preflight \\
        /tmp/corpus-of-preflight -max_total_time=600 -max_len=4096 -timeout=20

The targets are `failure`, `text`, `patch`, `line` and `preflight`; what follows the name is
libFuzzer's: a folder to keep interesting inputs in, filled with examples if it is empty, and
options. An input that breaks a promise is
written to a file `crash-...`, and belongs into the tests of the module it broke.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris  # type: ignore[import-untyped]  # installed only where this is run

with atheris.instrument_imports(include=["sandbox"]):
    from tests.fuzz.targets import (
        SHIPPED,
        check_clean_text,
        check_examination_line,
        check_failure,
        check_patch_text,
        check_preflight,
        inserted,
    )

# What programs and patches are made of; a byte picks one.
WORDS = [
    *sorted({word for line in SHIPPED.split("\n") for word in line.replace("(", " ( ").split()}),
    *("import", "from", "open", "eval", "exec", "getattr", "__class__", "__import__", "del", "@"),
    *(
        "async",
        "await",
        "yield",
        "lambda:",
        "match",
        "case _:",
        "while True:",
        "global",
        "nonlocal",
    ),
    *(
        "[",
        "]",
        "{",
        "}",
        ":",
        ",",
        ";",
        "=",
        ".",
        "\\",
        "'",
        '"',
        "'''",
        'f"',
        "\0",
        "\r",
        "\ufeff",
    ),
    *("\n", "\n    ", "\n        ", "# EVOLVE-BLOCK-END", "# EVOLVE-BLOCK-START muon"),
]


def fuzz_failure(data: bytes) -> None:
    """Read a failure report: as it is, with the right length, and with the right fields."""
    kind, message, where, *rest = (*data.decode("latin-1").split("\0"), "", "", "")
    fields = {"kind": kind, "message": message, "where": where, "line": len(rest) or None}
    check_failure(data)
    for body in (data, json.dumps(fields).encode("ascii")):
        check_failure(len(body).to_bytes(4, "little") + body)


def fuzz_text(data: bytes) -> None:
    """Clean a text."""
    check_clean_text(data.decode("utf-8", "surrogateescape"))


def fuzz_patch(data: bytes) -> None:
    """Read and apply a patch."""
    check_patch_text(data.decode("utf-8", "surrogateescape"))


def fuzz_line(data: bytes) -> None:
    """Read a request or an answer."""
    check_examination_line(data)


def fuzz_preflight(data: bytes) -> None:
    """Look at a text alone, in a region, and at words strung together in a region."""
    text = data.decode("utf-8", "surrogateescape")
    if data[:1] == b"\0":
        check_preflight(text[1:])
    elif data[:1] < b"\x80":
        check_preflight(inserted(text))
    else:
        pairs = zip(data[1::2], data[2::2], strict=False)
        words = [WORDS[(256 * first + second) % len(WORDS)] for first, second in pairs]
        check_preflight(inserted(" ".join(words)))


TARGETS = {
    "failure": fuzz_failure,
    "text": fuzz_text,
    "patch": fuzz_patch,
    "line": fuzz_line,
    "preflight": fuzz_preflight,
}

EXAMPLES = {
    "failure": [
        b"kind\0message\0where\0",
        b'{"kind": "a", "message": "b", "where": "c", "line": 1}',
    ],
    "text": ["\x1b[31mé\u202e\ud800\t\n".encode("utf-8", "surrogatepass")],
    "patch": [
        b'[{"search": "    lr=0.02,", "replace": "    lr=0.03,"}]',
        b"<<<<<<< SEARCH\n    lr=0.02,\n=======\n    lr=0.03,\n>>>>>>> REPLACE\n",
    ],
    "line": [
        b'{"patch": "[]", "parent": "", "scopes": ["muon"]}',
        b'{"accepted": {"source": "a", "digest": "b", "normalised": "c"}, "violations": []}',
        b'{"accepted": null, "violations": [{"rule": "a", "line": 1, "text": "", "message": ""}]}',
    ],
    "preflight": [
        b"def f(x: Tensor) -> Tensor:\n    return x * 2.0",
        b"X = Knobs(late_lr=0.5)\n@torch.no_grad()\nclass A:\n  def __init__(self): self.x = 1",
        b"\0def f(a):\n    try:\n        pass\n    except ValueError as e:\n        raise\n",
        b"from math import sqrt\ndef g(x):\n  match x:\n    case [a, *_] if a: return f'{a:{x}}'",
        b"def h(x):\n  while (y := x.pop()): del x[0], x.a\n  return [i for i in x if lambda: i]",
        b"\xff" + bytes(range(256)),
    ],
}

if __name__ == "__main__":
    name = sys.argv.pop(1) if len(sys.argv) > 1 else ""
    if name not in TARGETS:
        sys.exit(f"name a target: one of {', '.join(TARGETS)}")
    for folder in map(Path, [argument for argument in sys.argv[1:2] if argument[0] != "-"]):
        folder.mkdir(exist_ok=True)
        for number, example in enumerate([] if any(folder.iterdir()) else EXAMPLES[name]):
            (folder / f"example-{number}").write_bytes(example)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
