"""What preflight lets through and what it refuses, with which reason."""

from __future__ import annotations

import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sandbox.baseline import seed_program
from sandbox.preflight import MAX_VIOLATIONS, Violation, preflight
from sandbox.regions import find_regions

SHIPPED = seed_program("none")
ALL = frozenset({"routing", "schedule", "policy", "muon", "adamw"})


def edit(old: str, new: str, source: str = SHIPPED) -> str:
    assert source.count(old) == 1, f"{source.count(old)} times: {old}"
    return source.replace(old, new)


def add(code: str, region: str = "muon") -> str:
    """Put top-level code at the end of a region."""
    [found] = [r for r in find_regions(SHIPPED) if r.name == region]
    lines = SHIPPED.split("\n")
    lines[found.last_line : found.last_line] = ["", *textwrap.dedent(code).strip("\n").split("\n")]
    return "\n".join(lines)


def step(code: str) -> str:
    """Put code at the start of a new function of the muon region."""
    return add(
        "def changed(self, x):\n" + textwrap.indent(textwrap.dedent(code).strip("\n"), "    ")
    )


def rules_of(candidate: str, scopes: frozenset[str] = ALL) -> set[str]:
    return {violation.rule for violation in preflight(candidate, SHIPPED, scopes)}


AVERAGE_TAIL = SHIPPED.index("def average_tail")
HARMLESS = {
    "nothing": SHIPPED,
    "comment": add("# A remark on the rule, with an é."),
    "docstring": edit('    """Set each norm', '    """Reset each norm'),
    "helper": add("def double(x: Tensor) -> Tensor:\n    return x * 2.0"),
    "constant": add("DAMPING = 0.5"),
    "new state tensor": step("""
        slow = self.state.setdefault("slow", torch.zeros_like(x))
        slow.lerp_(x, 0.1)
        return slow
    """),
    "state on self": step("self.count = getattr(self, 'count', 0) + 1"),
    "closure": step("""
        def scale(y: Tensor) -> Tensor:
            return y * x.norm()
        return scale(x)
    """),
    "nonlocal": step("""
        total = 0.0
        def take(y):
            nonlocal total
            total += float(y.sum())
        take(x)
        return total
    """),
    "lambda": step("return sorted(x, key=lambda y: float(y.norm()))"),
    "loop over groups": step("""
        for group in self.param_groups:
            for p in group["params"]:
                p.mul_(1.0 - group["lr"])
                group["seen"] = group.get("seen", 0) + 1
    """),
    "counted loop": step("for _ in range(10):\n    x = 1.5 * x - 0.5 * x @ x.mT @ x\nreturn x"),
    "bounded while": step("n = 0\nwhile n < 5:\n    n += 1"),
    "while with break": step("while True:\n    x = x / 2\n    if x.norm() < 1:\n        break"),
    "comprehension": step("return [p * 2 for p in x if p.ndim == 2]"),
    "many-tensor operations": step("torch._foreach_add_(x, 1.0)\nreturn torch._foreach_norm(x)"),
    "linear algebra": step("q, r = torch.linalg.qr(x)\nreturn q * torch.sign(torch.diagonal(r))"),
    "functional": add("""
        import torch.nn.functional as F


        def soft(x):
            return F.softplus(x)
    """),
    "second import of math": step("import math\nreturn math.cosh(0.5)"),
    "listed names": add("from itertools import pairwise\n\nPAIRS = tuple(pairwise((1, 2)))"),
    "decorator": add("@torch.no_grad()\ndef frozen(x):\n    return x.clone()"),
    "cached function": add("""
        from functools import lru_cache


        @lru_cache
        def square(n: int):
            return n * n
    """),
    "dataclass": add("""
        @dataclass(slots=True)
        class Memory:
            value: float = 0.0

            def __post_init__(self):
                self.value += 1.0
    """),
    "raise": step('raise ValueError(f"bad {x.shape}")'),
    "try": step("try:\n    return 1.0 / x\nexcept ZeroDivisionError:\n    return 0.0"),
    "match": step("""
        match x:
            case 1:
                return "one"
            case _:
                return "many"
    """),
    "generator": step("yield from (y for y in x)"),
    "walrus and starred": step("first, *rest = x\nif (n := len(rest)) > 2:\n    return n"),
    "changed default": edit("    ns_steps=5,", "    ns_steps=4,"),
    "new knob of a family": edit("MUON = Knobs(\n", "MUON = Knobs(\n    row_lr=0.5,\n"),
    "new table": add("EXTRA = Knobs(late_beta=0.5)"),
    "removed function": edit("        average_tail(stack)\n", "        pass\n").replace(
        SHIPPED[AVERAGE_TAIL : SHIPPED.index("# EVOLVE-BLOCK-END", AVERAGE_TAIL)], ""
    ),
    "optional parameter": edit(
        "def gate(sensors: Sensors, step_fraction: float)",
        "def gate(sensors: Sensors, step_fraction: float, floor: float = 0.0)",
    ),
    "type annotation": step("y: dict[str, Tensor] = {}\nreturn y"),
    "in-place result": step("return x.clamp_(min=-1e6, max=1e30).nan_to_num_(0.0)"),
}


@pytest.mark.parametrize("name", HARMLESS)
def test_a_harmless_edit_passes(name: str) -> None:
    assert preflight(HARMLESS[name], SHIPPED, ALL) == ()


@pytest.mark.parametrize("profile", ["cpu", "micro", "gpu"])
def test_every_seed_program_is_an_acceptable_child_of_the_shipped_file(profile: str) -> None:
    assert preflight(seed_program(profile), SHIPPED, ALL) == ()


ATTACKS = [
    ("name", "x = open('/etc/passwd').read()"),
    ("name", "eval('1')"),
    ("name", "exec('x = 1')"),
    ("name", "print('val_loss: 0.0')"),
    ("name", "__import__('subprocess').run(['id'])"),
    ("name", "\uff4f\uff50\uff45\uff4e('x')"),
    ("name", "raise SystemExit(0)"),
    ("name", "T = type('T', (), {})"),
    ("name", "f = getattr\nf(torch, 'save')"),
    ("name", "getattr(torch, 'sa' + 've')"),
    ("name", "getattr(x, '__globals__')"),
    ("name", "globals()['x'] = 1"),
    ("name", "vars(POLICY).update(lr=9)"),
    ("name", "return undefined_thing(x)"),
    ("name", "setattr(MUON, 'lr', 9)"),
    ("name", "for torch in x: pass"),
    ("name", "import math as torch"),
    ("name", "def open(): pass"),
    ("import", "import os; os.symlink('a', 'b')"),
    ("import", "import sys\nm = sys.modules['__main__']"),
    ("import", "import gc\ngc.get_objects()"),
    ("import", "import ctypes; ctypes.CDLL(None).ptrace(16, 1, 0, 0)"),
    ("import", "import threading"),
    ("import", "import numpy as np"),
    ("import", "import importlib"),
    ("import", "from operator import attrgetter"),
    ("import", "from torch.serialization import load"),
    ("import", "from torch.utils.cpp_extension import load_inline"),
    ("import", "from torch import os"),
    ("import", "from typing import sys"),
    ("import", "from . import contract"),
    ("import", "import torch.multiprocessing as mp"),
    ("attribute", "torch.save({}, 'x')"),
    ("attribute", "torch.os.environ.get('KEY')"),
    ("attribute", "torch.builtins.open('x')"),
    ("attribute", "torch.special.torch.os"),
    ("attribute", "torch.jit.load('m')"),
    ("attribute", "torch.compile(lambda y: y)(x)"),
    ("attribute", "torch.ops.load_library('evil.so')"),
    ("attribute", "torch.set_default_dtype(torch.float64)"),
    ("attribute", "torch.from_file('x', size=1)"),
    ("attribute", "t = torch\nt.os"),
    ("attribute", "torch.save.__globals__['os']"),
    ("attribute", "(i for i in [1]).gi_frame"),
    ("attribute", "'{x.__class__}'.format(x=x)"),
    ("attribute", "s.format_map({}) if (s := 'a') else 0"),
    ("attribute", "match x:\n    case object(__globals__=g): return g"),
    ("attribute", "x.data_ptr()"),
    ("attribute", "x.untyped_storage().resize_(9)"),
    ("attribute", "x.register_hook(lambda g: g * 0)"),
    ("attribute", "try:\n    x()\nexcept ValueError as e:\n    e.__traceback__"),
    ("attribute", "self.__class__.cache = []"),
    ("write", "torch.nn.Module.eval = None"),
    ("write", "math.sqrt = None"),
    ("write", "MUON.lr = 100.0"),
    ("write", "BOUNDS['MUON.lr'] = Bounds(0, 9)"),
    ("write", "BOUNDS.update({})"),
    ("write", "MuonAdamW.step = None"),
    ("write", "TrainingState.step = 3"),
    ("write", "del POLICY.control"),
    ("write", "for p in x: p.data = p.double()"),
    ("write", "self.param_groups[0]['params'] = []"),
    ("statement", "global POLICY\nPOLICY = 1"),
    ("statement", "try:\n    x()\nexcept:\n    pass"),
    ("statement", "try:\n    x()\nexcept BaseException:\n    pass"),
    ("class", "class Z(torch.Tensor):\n    pass"),
    ("class", "class M(type):\n    pass"),
    ("class", "class C(metaclass=abs):\n    pass"),
    ("name", "class C:\n    def __del__(self): pass"),
    ("loop", "while True: pass"),
    ("loop", "while x > 0:\n    y = 1"),
    ("loop", "for i in range(10**9): pass"),
    ("loop", "for i in range(100):\n    for j in range(100): pass"),
    ("loop", "y = [[] for _ in range(10**6)]"),
    ("loop", "for i in range(0, 9999, 3): pass"),
    ("loop", "for y in iter(int, 1): pass"),
    ("literal", "W = [0.1234] * 5000"),
    ("literal", "W = (" + ", ".join(["0.1"] * 40) + ")"),
    ("literal", "x = 123456789"),
    ("literal", "x = 1 << 40"),
    ("literal", "x = 10 ** 10 ** 10"),
    ("literal", "x = 1e999"),
    ("literal", "x = b'abc'"),
    ("literal", "x = '" + "a" * 300 + "'"),
]


@pytest.mark.parametrize(("rule", "code"), ATTACKS, ids=[code[:30] for _, code in ATTACKS])
def test_an_attack_is_refused_by_its_rule(rule: str, code: str) -> None:
    assert rule in rules_of(step(code))


MODULE_ATTACKS = [
    ("top level", "BOUNDS.update({})"),
    ("top level", "for i in (1, 2):\n    X = i"),
    ("top level", "if True:\n    X = 1"),
    ("name", "@exec\n@str.strip\n@(lambda f: f)\ndef f(): pass"),
    ("name", "X = open"),
    ("write", "MUON.lr = 1.0"),
    ("redefinition", "BOUNDS = {}"),
    ("redefinition", "def build_optimizer(params, horizon):\n    return None"),
    ("redefinition", "class MuonAdamW:\n    pass"),
    ("redefinition", "def gate(sensors, step_fraction):\n    return 1.0"),
    ("name", "from dataclasses import field as Bounds"),
    ("import", "from torch.serialization import *"),
    ("characters", "x = 1 #\x0cimport os"),
    ("characters", "x = 1 # \u202e reversed"),
    ("characters", "x = '\u200b'"),
    ("characters", "x = 1\rimport os"),
    ("syntax", "x = ("),
    ("syntax", "def f(:"),
    ("size", "x = " + "1 + " * 200 + "1"),
    ("size", "# " + "\n# ".join(["filler"] * 5000)),
    ("budget", "x = (\n" + "[\n" * 60 + "]\n" * 60 + ")"),
    ("budget", "\n".join(f"X{i} = 0.{i + 10}" for i in range(90))),
    ("budget", "def f(a):\n" + "    a = a + a * a\n" * 700),
    ("scope", "# EVOLVE-BLOCK-END\nx = 1\n# EVOLVE-BLOCK-START muon"),
    ("scope", "# EVOLVE-BLOCK-START other"),
    ("scope", "# EVOLVE-BLOCK-END\nx = 1\n# EVOLVE-BLOCK-START new"),
    ("scope", "X = '''\n# EVOLVE-BLOCK-END"),
    ("knob", "MORE = Knobs(strange=1.0)"),
    ("knob", "MORE = Knobs(late_beta=1.5)"),
    ("knob", "MORE = Knobs(late_beta=0.5 + 0.1)"),
    ("knob", "MORE = Knobs(late_lr=0x" + "f" * 400 + ")"),
    ("knob", "def f():\n    return POLICY.speed"),
]


@pytest.mark.parametrize(
    ("rule", "code"), MODULE_ATTACKS, ids=[code[:30] for _, code in MODULE_ATTACKS]
)
def test_an_attack_at_the_top_level_is_refused_by_its_rule(rule: str, code: str) -> None:
    assert rule in rules_of(add(code))


@pytest.mark.parametrize(
    ("rule", "candidate"),
    [
        ("knob", edit("    ns_steps=5,", "    ns_steps=6,")),
        ("knob", edit("    ns_steps=5,", "    ns_steps=4.0,")),
        ("knob", edit('    clip="none",', '    clip="hard",')),
        ("knob", edit("    control=False,", "    control=0,")),
        ("knob", edit("    gate_bias=0.0,", "    gate_bias=-9.0,")),
        ("knob", edit("    control=False,\n", "")),
        ("knob", edit("MUON = Knobs(", "MUON = dict(")),
        ("contract", edit("def muon_step(stacks: ", "def muon_step(tensors, stacks: ")),
        ("contract", edit("def gate(sensors: Sensors, ", "def gate(sensors: Sensors, x, ")),
        ("contract", edit("def fixed_actuators()", "def fixed_actuators(x)")),
        ("contract", edit("def read_loss(self, ", "def read_losses(self, ")),
        ("contract", edit("def matrix_settings(", "def other_settings(")),
        ("name", edit("def snap_norm(", "def snap_norms(")),
    ],
)
def test_a_broken_promise_is_refused(rule: str, candidate: str) -> None:
    assert rule in rules_of(candidate)


def test_a_region_out_of_scope_may_not_change() -> None:
    candidate = edit("    embedding_lr=0.3,", "    embedding_lr=0.4,")

    [violation] = preflight(candidate, SHIPPED, frozenset({"policy", "muon", "schedule"}))

    assert violation.rule == "scope"
    assert "embedding_lr=0.4" in violation.text
    assert "region adamw" in violation.message
    assert preflight(candidate, SHIPPED, ALL) == ()


def test_locked_text_may_not_change_by_a_byte() -> None:
    for old, new in [
        ("import math\n", "import math \n"),
        ("return MuonAdamW(params, horizon)", "return MuonAdamW(params,  horizon)"),
        ('"POLICY.ns_steps": Bounds(1, 5,', '"POLICY.ns_steps": Bounds(1, 7,'),
    ]:
        [violation, *_] = preflight(edit(old, new), SHIPPED, ALL)
        assert violation.rule == "scope"
        assert violation.text in edit(old, new).split("\n")[violation.line - 1]


def test_a_decorator_at_the_end_of_a_region_does_not_reach_the_locked_text() -> None:
    assert rules_of(add("@staticmethod")) == {"syntax"}


def test_a_string_from_one_region_to_the_next_is_refused() -> None:
    candidate = add("X = '''", "routing")
    candidate = edit(
        "# EVOLVE-BLOCK-START schedule\n", "# EVOLVE-BLOCK-START schedule\n'''\n", candidate
    )

    assert rules_of(candidate) == {"syntax"}


def test_the_whole_file_may_not_be_replaced() -> None:
    assert "scope" in rules_of(
        "import torch\n\n\ndef build_optimizer(params, horizon):\n    pass\n"
    )


def test_a_message_says_where_what_and_what_would_do() -> None:
    [violation] = preflight(step("import os"), SHIPPED, ALL)

    line = step("import os").split("\n").index("    import os") + 1
    assert violation == Violation(
        rule="import",
        line=line,
        text="import os",
        message=f"line {line}: `import os`: {violation.message.partition('`: ')[2]}",
    )
    assert "imports may only be of" in violation.message
    assert "torch" in violation.message


def test_what_the_parent_already_does_is_not_held_against_its_child() -> None:
    parent = step("import os\nreturn os.environ")
    child = edit("    import os\n", "    import os\n    x = x * 2\n", parent)

    assert preflight(child, parent, ALL) == ()


def test_doing_once_more_what_the_parent_does_is_refused_on_the_new_line() -> None:
    parent = step("open('a')\nreturn x")
    child = edit("    open('a')\n", "    open('b')\n    open('a')\n", parent)

    [violation] = preflight(child, parent, ALL)

    assert (violation.rule, violation.text) == ("name", "open('b')")


def test_there_are_never_more_than_a_few_violations() -> None:
    assert len(preflight(step("import os\n" * 300), SHIPPED, ALL)) == MAX_VIOLATIONS


def test_a_violation_never_quotes_control_characters() -> None:
    [violation, *_] = preflight(add("x = '\x1b[31m\0'"), SHIPPED, ALL)

    assert violation.text.isprintable()


@pytest.mark.parametrize(
    "hostile",
    [
        "",
        "\0",
        "\ufeff" + SHIPPED,
        "# -*- coding: utf-7 -*-\n" + SHIPPED,
        "x = 1\n" * 200_000,
        "x = " + "(" * 10_000,
        add("x = (" + "-\n" * 8000 + "1)"),
        add("x = (a" + "\n.b" * 5000 + ")"),
        add("if a: pass\n" + "elif a: pass\n" * 1200),
        add("x = [" + "[],\n" * 4000 + "]"),
        add("x = 0x" + "f" * 450),
        add("x = '\ud800'"),
        add("lambda: " * 60 + "0"),
        add("\n".join(" " * i + "if 1:" for i in range(99)) + "\n" + " " * 99 + "pass"),
    ],
    ids=range(14),
)
def test_hostile_text_is_refused_without_a_crash(hostile: str) -> None:
    assert preflight(hostile, SHIPPED, ALL) != ()


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=" \n\t()[]{}=.,:+-*'\"#@\\_abexyz019", max_size=60) | st.text(max_size=40))
def test_no_text_makes_preflight_crash(text: str) -> None:
    for violation in preflight(add(text), SHIPPED, ALL):
        assert violation.line >= 1
