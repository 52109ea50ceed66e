"""What preflight lets through and what it refuses, with which reason."""

from __future__ import annotations

import textwrap
import time

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
    ("attribute", "'{0[__class__]}'.format(x)"),
    ("attribute", "'{:{0.__class__}}'.format(x)"),
    ("attribute", "'{}{x.real}'.format(x, x=x)"),
    ("attribute", "template = '{0.__class__}'\ntemplate.format(x)"),
    ("attribute", "f = '{}'.format_map"),
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
    ("budget", "\n".join(f"X{i} = (1, 0, 0, 1)" for i in range(20))),
    ("budget", "\n".join(f"X{i} = {{1: 0, 0: 1}}" for i in range(20))),
    ("budget", "\n".join(f"X{i} = '{'q' * 190}'" for i in range(20))),
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


MESSAGES = [
    ("import os", "os may not be imported; imports may only be of"),
    ("from os import path", "os may not be imported; imports may only be of"),
    ("import numpy as np", "numpy may not be imported; use torch; imports may only be of"),
    ("import time", "follow the step of the training state"),
    ("return bytes(3)", "bytes is a built-in that an optimizer may not use; do without"),
    ("from torch import os", "torch.os is not among the names of torch"),
    ("y = undefined_thing", "undefined_thing is not defined in this file; define it, or correct"),
    ("open('x')", "open is not allowed: an optimizer neither runs text, nor reads, nor prints"),
    ("return x.__dict__", ".__dict__ may not be used: it leads into the interpreter"),
    ("def __del__(self): pass", "__del__ may not be defined; of the special methods only"),
    ("MUON.lr = 1.0", "MUON belongs to the whole module and may not be changed; keep state"),
    ("x.data = x", "do not assign .data; write into the tensor, as in x.copy_(y)"),
    ("return 123456789", "write a large factor as a float, such as 1e9"),
    ("return 1e999", "use math.inf"),
    ("for i in range(2000): pass", "use fewer, or one operation on the whole tensor"),
    ("while True: pass", "nothing in this loop is seen to end it; use `for _ in range(...)`"),
    ("return POLICY.speed", "add speed=<number> to POLICY, or correct the name"),
    ("x = 1 #\r", "the line holds a carriage return (U+000D); end lines with a newline alone"),
    ("x = 1 #\x0c", "the invisible character U+000C is not allowed"),
    ("x = '\ufeff'", "byte order mark"),
]


@pytest.mark.parametrize(("code", "advice"), MESSAGES, ids=[advice[:30] for _, advice in MESSAGES])
def test_a_message_says_what_to_do(code: str, advice: str) -> None:
    messages = [violation.message for violation in preflight(step(code), SHIPPED, ALL)]

    assert any(advice in message for message in messages), messages


def test_a_locked_line_is_quoted_as_it_was() -> None:
    candidate = edit("import math\n", "import os\n")

    messages = [v.message for v in preflight(candidate, SHIPPED, frozenset({"muon", "policy"}))]

    [message] = [text for text in messages if "it was `import math`, leave it so" in text]
    assert "outside the regions that may change (muon, policy)" in message


def test_a_new_knob_of_no_family_is_told_the_families() -> None:
    [violation] = preflight(add("MORE = Knobs(strange=1.0)"), SHIPPED, ALL)

    assert "_lr, _multiplier, _scale" in violation.message


def test_what_is_gone_is_missed_in_the_region_it_was_in() -> None:
    candidate = edit("def matrix_settings(", "def other_settings(")

    violations = preflight(candidate, SHIPPED, ALL)

    [schedule] = [region for region in find_regions(candidate) if region.name == "schedule"]
    [missing] = [v for v in violations if "matrix_settings is gone" in v.message]
    assert missing.line == schedule.first_line


def test_a_budget_is_charged_to_the_largest_addition() -> None:
    numbers = "LARGE = [\n" + "".join(f"    [0.{i}1, 0.{i}2, 0.{i}3],\n" for i in range(30)) + "]"

    [violation] = preflight(add(f"SMALL = 0.5\n{numbers}"), SHIPPED, ALL)

    assert (violation.rule, violation.text) == ("budget", "LARGE = [")


def test_a_lineage_cannot_add_numbers_without_end() -> None:
    parent, generations = SHIPPED, 0
    while not preflight(child := with_numbers(parent, generations), parent, ALL):
        parent, generations = child, generations + 1
        assert generations < 10

    reasons = {violation.message for violation in preflight(child, parent, ALL)}
    assert generations == 4  # of 60 numbers each; 256 may be added to the shipped file
    assert any("the editable regions would hold" in reason for reason in reasons)


def with_numbers(source: str, generation: int) -> str:
    rows = "".join(f"X{generation}_{i} = (0.{i + 11}, 0.{i + 51})\n" for i in range(30))
    marker = "# EVOLVE-BLOCK-START adamw\n"
    return edit(marker, marker + rows, source)


def test_a_parent_beyond_the_budget_still_has_acceptable_children() -> None:
    parent = SHIPPED
    for generation in range(6):
        parent = with_numbers(parent, generation)

    assert preflight(edit("    ns_steps=5,", "    ns_steps=4,", parent), parent, ALL) == ()


HOSTILE = {
    "empty": "",
    "null": "\0",
    "byte order mark": "\ufeff" + SHIPPED,
    "utf-7": "# -*- coding: utf-7 -*-\n" + SHIPPED,
    "carriage returns": SHIPPED.replace("\n", "\r\n"),
    "form feeds": SHIPPED.replace("\n", "\n\x0c"),
    "a million lines": "x = 1\n" * 1_000_000,
    "a megabyte line": add("x = '" + "a" * 1_000_000 + "'"),
    "megabytes of the shipped file": SHIPPED * 30,
    "a million operators": add("x = 1" + " + 1" * 1_000_000),
    "a chain within the limits": add("x = (1\n" + "+ 1\n" * 3800 + ")"),
    "a comparison chain": add("x = (1\n" + "< 1\n" * 3800 + ")"),
    "parentheses": "x = " + "(" * 10_000,
    "parentheses in lines": add("x = (\n" + "(\n" * 7000),
    "unary operators": add("x = (" + "-\n" * 7000 + "1)"),
    "not": add("x = (" + "not\n" * 3900 + "1)"),
    "attributes": add("x = (a" + "\n.b" * 5000 + ")"),
    "calls": add("x = (a" + "\n()" * 5000 + ")"),
    "subscripts": add("x = (a" + "\n[0]" * 4000 + ")"),
    "elif": add("if a: pass\n" + "elif a: pass\n" * 1200),
    "else if": add("x = (" + "1 if a else\n" * 1200 + "1)"),
    "lists": add("x = [" + "[],\n" * 4000 + "]"),
    "hexadecimal": add("x = 0x" + "f" * 450),
    "digits": add("x = " + "9" * 450),
    "digits in lines": add("x = (\n" + ("9" * 400 + "\n+") * 30 + "1)"),
    "surrogate": add("x = '\ud800'"),
    "lambda": add("lambda: " * 60 + "0"),
    "nested f-strings": step("x = f\"{f'{open(1)}'}\""),
    "braces of an f-string": add("x = f'" + "{" * 201 + "'"),
    "format specs": add("x = f'" + "{1:" * 100 + "}" * 100 + "'"),
    "decorators": add("@open\n" * 2500 + "def f(): pass"),
    "match": add("def f(x):\n    match x:\n" + "        case [*_, open]: pass\n" * 500),
    "match in depth": add(
        "def f(x):\n    match x:\n        case " + "[" * 90 + "a" + "]" * 90 + ": pass"
    ),
    "type comment": add("x = open  # type: ignore"),
    "blocks in depth": add(
        "\n".join(" " * i + "if 1:" for i in range(99)) + "\n" + " " * 99 + "pass"
    ),
    "functions in depth": add(
        "\n".join(" " * i + f"def f{i}():" for i in range(60)) + "\n" + " " * 60 + "pass"
    ),
    "look-alike": step("\U0001d428\U0001d429\U0001d41e\U0001d427('x')"),
    "line continuations": add("x = 1 " + "\\\n" * 7000 + "; import os"),
    "markers": add("# EVOLVE-BLOCK-END\n# EVOLVE-BLOCK-START m\n" * 300),
    "many names": add("\n".join(f"n{i} = m{i}" for i in range(1000))),
    "many arguments": add("def f(" + ", \n".join(f"a{i}=0" for i in range(1500)) + "): pass"),
    "star imports": add("from torch import *\n" * 600),
    "deletions": add("del (" + "a,\n" * 3000 + ")"),
    "walrus": step("x = [\n" + "(a := open),\n" * 900 + "]"),
}


@pytest.mark.parametrize("hostile", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_is_refused_soon_without_a_crash(hostile: str) -> None:
    started = time.process_time()

    violations = preflight(hostile, SHIPPED, ALL)

    assert violations != ()
    assert all(v.message.isprintable() and v.text.isprintable() for v in violations)
    assert time.process_time() - started < 1.0  # the limit of its process is 2 s


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet=" \n\t()[]{}=.,:+-*'\"#@\\_abexyz019", max_size=60) | st.text(max_size=40))
def test_no_text_makes_preflight_crash(text: str) -> None:
    for violation in preflight(add(text), SHIPPED, ALL):
        assert violation.line >= 1
