"""Splitting a source into statements and telling equal programs apart."""

from __future__ import annotations

import ast
import contextlib

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from sandbox import source_form
from sandbox.baseline import seed_program
from sandbox.source_form import SourceError, digest, normalised_digest, parse, statements

PLAIN = "import math\n\n\ndef f(x):\n    return math.sqrt(x) * 0.001\n"


@pytest.mark.parametrize(
    "same",
    [
        PLAIN.replace("import math\n\n\n", "import math;\n"),
        "# a comment\n" + PLAIN,
        PLAIN.replace("def f(x):\n", 'def f(x):\n    """Say what it does."""\n'),
        PLAIN.replace("    ", "  "),
        PLAIN.replace("0.001", "1e-3"),
        PLAIN.replace("math.sqrt(x) *", "(math.sqrt( x )) *"),
        PLAIN.replace("import math\n\n", "import math; \n"),
        '"""A docstring of the module."""\n' + PLAIN,
    ],
)
def test_programs_that_differ_in_form_only_have_one_normalised_digest(same: str) -> None:
    assert digest(same) != digest(PLAIN)
    assert normalised_digest(same) == normalised_digest(PLAIN)


@pytest.mark.parametrize(
    "other",
    [
        PLAIN.replace("0.001", "0.002"),
        PLAIN.replace("sqrt", "log"),
        PLAIN + "x = 1\n",
        PLAIN.replace("0.001", "'a'"),
    ],
)
def test_programs_that_do_something_else_have_another_normalised_digest(other: str) -> None:
    assert normalised_digest(other) != normalised_digest(PLAIN)


def test_statements_on_one_line_equal_the_same_on_two() -> None:
    assert normalised_digest("x = 1; y = 2\n") == normalised_digest("x = 1\ny = 2\n")


def test_the_order_of_statements_counts() -> None:
    assert normalised_digest("x = 1\ny = 2\n") != normalised_digest("y = 2\nx = 1\n")


def test_a_body_of_only_a_docstring_equals_pass() -> None:
    assert normalised_digest('class A:\n    """Doc."""\n') == normalised_digest(
        "class A:\n    pass\n"
    )


def test_statements_are_those_of_a_parse_of_the_whole_with_their_lines() -> None:
    source = seed_program("none")

    ours = [(s.line_of(node), ast.dump(node)) for s in statements(source) for node in s.nodes]

    assert ours == [(node.lineno, ast.dump(node)) for node in ast.parse(source).body]


def test_a_statement_quotes_its_lines_decorators_included() -> None:
    source = "x = 1\n\n@a\n@b\ndef f():\n    pass\n# EVOLVE-BLOCK-END\ny = (1,\n  2)  # c\n"

    found = [(s.first_line, s.last_line, s.text) for s in statements(source)]

    assert found == [
        (1, 1, "x = 1"),
        (3, 6, "@a\n@b\ndef f():\n    pass"),
        (8, 9, "y = (1,\n  2)  # c"),
    ]


def test_statements_that_share_a_line_are_kept_together() -> None:
    [statement] = statements("x = 1; y = (2,\n3); z = 4\n")

    assert (statement.first_line, statement.last_line, len(statement.nodes)) == (1, 2, 3)


@pytest.mark.parametrize(
    "source",
    [
        "x = 'a\n# EVOLVE-BLOCK-END\n'",
        "x = '''\n# EVOLVE-BLOCK-END\n'''",
        "x = (1,\n# EVOLVE-BLOCK-END\n2)",
        "@f\n# EVOLVE-BLOCK-END\ndef g(): pass",
    ],
)
def test_a_statement_across_a_marker_is_a_syntax_error(source: str) -> None:
    with pytest.raises(SourceError):
        statements(source)


def test_a_syntax_error_after_a_marker_has_the_line_of_the_file() -> None:
    with pytest.raises(SourceError) as caught:
        statements("x = 1\n# EVOLVE-BLOCK-START a\ny = 2\nz = = 3\n")

    assert caught.value.line == 4


@pytest.mark.parametrize(
    "hostile",
    [
        "x = " + "(" * 5000 + ")" * 5000,
        "x = " + "-" * 90_000 + "1",
        "x = a" + ".b" * 30_000,
        "x = " + "1+" * 30_000 + "1",
        "x = " + "9" * 90_000,
        "if a: pass\n" + "elif a: pass\n" * 8000,
        "x = '\0'",
        "x = '\ud800'",
        "def f(:\n",
        "\tx = 1\n y = 2\n",
    ],
)
def test_text_that_cannot_be_parsed_is_a_source_error(hostile: str) -> None:
    with pytest.raises(SourceError):
        parse(hostile)


@given(st.text(alphabet="ab=1+-().:'\"\n\t #\\[]{}\0\r\f\u2028", max_size=60))
def test_any_text_has_statements_or_is_a_source_error(text: str) -> None:
    with contextlib.suppress(SourceError):
        assert all(1 <= s.first_line <= s.last_line for s in statements(text))
        assert len(normalised_digest(text)) == 64


def listed(source: str, base: str | None) -> list[tuple[int, int, str, str, int]] | int:
    """Return what a reader sees of the statements, or the line of the error."""
    try:
        found = statements(source, base)
    except SourceError as error:
        return error.line
    return [
        (s.first_line, s.last_line, s.text, " ".join(map(ast.dump, s.nodes)), s.line_of(s.nodes[0]))
        for s in found
    ]


PIECES = [
    "x = 1\n", "y = (1,\n", "  2)\n", "def f():\n", "    pass\n", "    return x\n", "@d\n",
    "if x:\n", "else:\n", "\n", "# c\n", "x = 1 \\\n", "+ 1\n", "a; b\n", "'''\n",
    "# EVOLVE-BLOCK-START a\n", "# EVOLVE-BLOCK-END\n", "try:\n", "except E:\n", "x = 1;\n",
    "é = 2\n", "class A:\n", "\f\n", "    '''doc'''\n", "elif x:\n", "    x = (\n", ")\n", "\\\n",
]  # fmt: skip
TEXTS = st.lists(st.sampled_from(PIECES), max_size=9)


# Most texts made of these pieces do not parse, and finding that out costs next to nothing.
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
@given(start=TEXTS, old=TEXTS, new=TEXTS, end=TEXTS)
def test_the_statements_of_a_child_do_not_depend_on_its_parent(
    start: list[str], old: list[str], new: list[str], end: list[str]
) -> None:
    child, parent = ("".join(start + middle + end) for middle in (new, old))
    assume(not isinstance(listed(parent, None), int))
    forget_everything()
    alone = listed(child, None)
    forget_everything()

    assert listed(child, parent) == alone


def forget_everything() -> None:
    source_form._KNOWN.clear()
    source_form._statements_of_piece.cache_clear()


def test_statements_of_parents_long_gone_are_read_again() -> None:
    for number in range(100):
        assert len(statements(f"x = {number}\n", "x = 0\n")) == 1

    assert len(source_form._KNOWN) <= 32
