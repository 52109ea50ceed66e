"""Read and write the tunable constants of an optimizer file without executing it.

A table is a top-level `NAME = Knobs(key=literal, ...)`; a knob's full name is `NAME.key`. The
range of each knob is declared in the dict `BOUNDS`, by full name; `FAMILIES` gives ranges, by
the ending of the key, to knobs that a patch adds. Everything is read from the syntax tree.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType

from sandbox.line_error import LineError
from sandbox.regions import find_regions, region_at
from sandbox.source_form import Statement, parse, statements

__all__ = [
    "Bounds",
    "Choice",
    "Knob",
    "KnobError",
    "UnknownKnobError",
    "Value",
    "family_endings",
    "is_same",
    "read_knobs",
    "set_knobs",
    "table_of",
    "why_out_of_bounds",
]

Value = bool | int | float | str

MAX_INTEGER_BITS = 64  # beyond it an integer may be too long to be printed in a message


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a numeric knob, both ends allowed; scale is linear, log or integer."""

    low: float
    high: float
    scale: str = "linear"


@dataclass(frozen=True, slots=True)
class Choice:
    """The values of a knob that is not a number."""

    values: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Knob:
    """One tunable constant as it stands in a source.

    `bounds` is None where neither BOUNDS nor FAMILIES knows the knob, `region` None where it is
    declared in locked text.
    """

    name: str
    value: Value
    bounds: Bounds | Choice | None
    region: str | None
    line: int


class KnobError(LineError):
    """A table cannot be read from the syntax tree."""


class UnknownKnobError(KeyError):
    """A value was given for a knob that the source does not declare."""

    def __str__(self) -> str:
        return f"the source declares no knob {self.args[0]!r}"


@lru_cache(maxsize=64)
def read_knobs(source: str) -> Mapping[str, Knob]:
    """Return every declared knob by its full name, in the order of the file.

    Raises:
        SourceError: `source` does not parse.
        RegionError: its markers do not form regions.
        KnobError: a table, BOUNDS or FAMILIES is not made of literals, or declared twice.
    """
    tops = _assignments(source)
    declared, families = _ranges(tops, "BOUNDS"), _ranges(tops, "FAMILIES")
    regions = find_regions(source)
    knobs: dict[str, Knob] = {}
    for statement, table, call in _tables(tops):
        region = region_at(regions, statement.first_line)
        for keyword in call.keywords:
            name = f"{table}.{keyword.arg}"
            line = statement.line_of(keyword.value)
            if name in knobs:
                raise KnobError(line=line, reason=f"{name} is declared twice")
            value = _literal(keyword.value)
            if value is None:
                reason = f"{name}: expected a finite number, True, False or a string"
                raise KnobError(line=line, reason=reason)
            bounds = declared.get(name) or _family_range(name, families)
            knobs[name] = Knob(name=name, value=value, bounds=bounds, region=region, line=line)
    return MappingProxyType(knobs)


def family_endings(source: str) -> tuple[str, ...]:
    """Return the endings of names that knobs may be given which a patch adds.

    Raises:
        SourceError, KnobError: as `read_knobs`.
    """
    return tuple(_ranges(_assignments(source), "FAMILIES"))


def set_knobs(source: str, values: Mapping[str, Value]) -> str:
    """Return `source` with new values in its tables; everything else stays as it was written.

    A knob that already has its value keeps its spelling.

    Raises:
        UnknownKnobError: `source` declares no such knob.
        SourceError, RegionError, KnobError: as `read_knobs`.
    """
    knobs = read_knobs(source)
    new: dict[str, str] = {}
    for name, value in values.items():
        if name not in knobs:
            raise UnknownKnobError(name)
        if not is_same(knobs[name].value, value):
            new[name] = _spelled(value)
    if not new:
        return source
    lines = source.split("\n")
    for statement in reversed(statements(source)):
        _spell_in(lines, statement, new)
    return "\n".join(lines)


def why_out_of_bounds(value: Value, bounds: Bounds | Choice) -> str | None:
    """Say what `bounds` expects where `value` is not within it; None where it is."""
    if isinstance(bounds, Choice):
        if any(is_same(value, allowed) for allowed in bounds.values):
            return None
        return f"expected one of {', '.join(repr(v) for v in bounds.values)}, found {value!r}"
    expected = f"expected {bounds.low:g} to {bounds.high:g}"
    if isinstance(value, bool | str):
        return f"{expected}, found {value!r}"
    if bounds.scale == "integer" and not isinstance(value, int):
        return f"{expected}, a whole number, found {value!r}"
    return None if bounds.low <= value <= bounds.high else f"{expected}, found {value!r}"


def is_same(left: Value, right: Value) -> bool:
    """Return whether two values are equal and of the same kind: `True` is not `1`."""
    return type(left) is type(right) and left == right


def table_of(node: ast.stmt) -> tuple[str, ast.Call] | None:
    """Return the name and the call of a top-level `NAME = Knobs(...)`, None for any other."""
    name, value = _assigned_name(node), getattr(node, "value", None)
    match value:
        case ast.Call(func=ast.Name(id="Knobs")) if name is not None:
            return name, value
    return None


def _assigned_name(node: ast.stmt) -> str | None:
    match node:
        case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
            return name
    return None


def _assignments(source: str) -> list[tuple[Statement, ast.stmt, str]]:
    """Return the top-level assignments to a single name."""
    return [
        (statement, node, name)
        for statement in statements(source)
        for node in statement.nodes
        if (name := _assigned_name(node)) is not None
    ]


def _tables(
    tops: list[tuple[Statement, ast.stmt, str]],
) -> Iterator[tuple[Statement, str, ast.Call]]:
    seen: set[str] = set()
    for statement, node, _ in tops:
        table = table_of(node)
        if table is None:
            continue
        name, call = table
        line = statement.line_of(node)
        if name in seen:
            raise KnobError(line=line, reason=f"table {name} is declared twice")
        if call.args or any(keyword.arg is None for keyword in call.keywords):
            raise KnobError(line=line, reason=f"table {name}: expected only key=literal")
        seen.add(name)
        yield statement, name, call


def _literal(node: ast.expr) -> Value | None:
    match node:
        case ast.Constant(value=bool() | str() as value):
            return value
        case ast.Constant(value=int() as value):
            return value if value.bit_length() < MAX_INTEGER_BITS else None
        case ast.Constant(value=float() as number) if math.isfinite(number):
            return number
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _literal(operand)
            return None if inner is None or isinstance(inner, bool | str) else -inner
    return None


def _ranges(
    tops: list[tuple[Statement, ast.stmt, str]], table: str
) -> Mapping[str, Bounds | Choice]:
    found = [statement for statement, _, name in tops if name == table]
    if not found:
        return {}
    if len(found) > 1:
        raise KnobError(line=found[1].first_line, reason=f"expected one dict {table}")
    try:
        return _ranges_of(found[0].text, table)
    except KnobError as error:
        line = error.line + found[0].first_line - 1
        raise KnobError(line=line, reason=error.reason) from error


@lru_cache(maxsize=32)
def _ranges_of(text: str, table: str) -> Mapping[str, Bounds | Choice]:
    """Read the ranges in the lines of one assignment."""
    node = next(n for n in parse(text).body if _assigned_name(n) == table)
    value = getattr(node, "value", None)
    if not isinstance(value, ast.Dict):
        raise KnobError(line=node.lineno, reason=f"expected {table} to be a dict literal")
    ranges: dict[str, Bounds | Choice] = {}
    for key, item in zip(value.keys, value.values, strict=True):
        try:
            ranges[str(ast.literal_eval(key))] = _range(item)  # type: ignore[arg-type]  # None raises
        except (ValueError, TypeError) as error:
            reason = f"{table}: expected Bounds(low, high[, scale]) or Choice((...))"
            raise KnobError(line=item.lineno, reason=reason) from error
    return MappingProxyType(ranges)


def _range(node: ast.expr) -> Bounds | Choice:
    match node:
        case ast.Call(func=ast.Name(id="Bounds"), args=[low, high, *scale], keywords=[]):
            return Bounds(
                float(ast.literal_eval(low)),
                float(ast.literal_eval(high)),
                *(str(ast.literal_eval(item)) for item in scale),
            )
        case ast.Call(func=ast.Name(id="Choice"), args=[values], keywords=[]):
            return Choice(tuple(ast.literal_eval(values)))
    raise ValueError("neither Bounds nor Choice")


def _family_range(name: str, families: Mapping[str, Bounds | Choice]) -> Bounds | Choice | None:
    endings = [ending for ending in families if name.endswith(ending)]
    return families[max(endings, key=len)] if endings else None


def _spell_in(lines: list[str], statement: Statement, new: Mapping[str, str]) -> None:
    """Put the new spelling of each named knob of a statement into the lines of the file."""
    places = [
        (statement.line_of(keyword.value) - 1, keyword.value, new[f"{table[0]}.{keyword.arg}"])
        for node in statement.nodes
        if (table := table_of(node)) is not None
        for keyword in table[1].keywords
        if f"{table[0]}.{keyword.arg}" in new
    ]
    for first, value, spelling in sorted(places, key=lambda p: (p[0], p[1].col_offset))[::-1]:
        last = first + (value.end_lineno or value.lineno) - value.lineno
        # The syntax tree counts columns in bytes.
        head = lines[first].encode()[: value.col_offset].decode()
        tail = lines[last].encode()[value.end_col_offset :].decode()
        lines[first : last + 1] = [f"{head}{spelling}{tail}"]


def _spelled(value: Value) -> str:
    """Return the literal for `value`, strings as the formatter would quote them."""
    spelled = repr(value)
    if isinstance(value, str) and spelled == f"'{value}'" and '"' not in value:
        return f'"{value}"'
    return spelled
