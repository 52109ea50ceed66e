"""What the rules need to know about a program, gathered once per top-level statement.

Facts are remembered by the statement's text, so a child of a known program costs only its changed
statements. Every walk is a loop: no nesting, however deep, can overflow the stack.
"""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import NamedTuple

from sandbox.knobs import table_of
from sandbox.regions import Region, find_regions, region_at
from sandbox.source_form import Statement, parse, statements

__all__ = [
    "Constants",
    "Facts",
    "Finding",
    "Part",
    "Program",
    "added_statements",
    "bound_names",
    "facts_of",
]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something a rule objects to, at `line` of the program it was found in.

    Rules on single statements give the lines that its nodes have; `preflight` adds the shift.

    Two findings of the same rule and advice are the same objection, wherever they stand.
    """

    rule: str
    line: int
    advice: str


@dataclass(frozen=True, slots=True)
class Constants:
    """How many numbers are written out, and how many characters numbers and strings take."""

    numbers: int
    number_characters: int
    string_characters: int

    def __add__(self, other: Constants) -> Constants:
        return Constants(
            self.numbers + other.numbers,
            self.number_characters + other.number_characters,
            self.string_characters + other.string_characters,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a top-level statement does with names, and how large it is.

    `binds` holds every name bound anywhere inside, `defines` those bound in the module itself;
    `imports` maps local names to what they stand for, as in {"F": "torch.nn.functional"};
    `attributes` pairs each attribute with the name before its dot, None where that is no name.
    `constants` is what is written out: 0 and 1 count inside lists and the like only, docstrings
    not at all.
    """

    binds: frozenset[str]
    defines: frozenset[str]
    loads: frozenset[str]
    attributes: frozenset[tuple[str | None, str]]
    imports: Mapping[str, str]
    nodes: int
    depth: int
    constants: Constants


class Part(NamedTuple):
    """A top-level statement, the region it lies in (None: locked text), and its facts."""

    statement: Statement
    owner: str | None
    facts: Facts


class Program:
    """A parsed source with its regions.

    Args:
        source: the text.
        base: a text it was made from, which makes reading it faster and changes nothing.

    Raises:
        SourceError: the source does not parse.
        RegionError: its markers do not form regions.
    """

    def __init__(self, source: str, base: str | None = None) -> None:
        self.source = source
        self.regions: tuple[Region, ...] = find_regions(source)
        self.parts: tuple[Part, ...] = tuple(
            Part(statement, region_at(self.regions, statement.first_line), facts_of(statement.text))
            for statement in statements(source, base)
        )

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the source, without their ends."""
        return self.source.split("\n")

    @cached_property
    def imports(self) -> Mapping[str, str]:
        """What imported names stand for; of two imports under one name, the first."""
        found: dict[str, str] = {}
        for part in self.parts:
            for name, origin in part.facts.imports.items():
                found.setdefault(name, origin)
        return found

    @cached_property
    def binds(self) -> frozenset[str]:
        """Every name that is bound anywhere."""
        return frozenset().union(*(part.facts.binds for part in self.parts))

    @cached_property
    def callables(self) -> Mapping[str, tuple[Statement, ast.FunctionDef | ast.ClassDef]]:
        """The functions and classes of the module; of two with one name, the last."""
        return {
            node.name: (part.statement, node)
            for part in self.parts
            for node in part.statement.nodes
            if isinstance(node, ast.FunctionDef | ast.ClassDef)
        }

    @cached_property
    def table_keys(self) -> Mapping[str, frozenset[str]]:
        """The knob tables of the module with their keys."""
        tables = [table_of(node) for part in self.parts for node in part.statement.nodes]
        return {
            table[0]: frozenset(str(keyword.arg) for keyword in table[1].keywords)
            for table in tables
            if table is not None
        }


def added_statements(program: Program, parent: Program) -> list[Statement]:
    """Return the statements of `program` that `parent` does not have, word for word."""
    known = Counter(part.statement.text for part in parent.parts)
    added = []
    for part in program.parts:
        if known[part.statement.text] > 0:
            known[part.statement.text] -= 1
        else:
            added.append(part.statement)
    return added


@lru_cache(maxsize=4096)
def facts_of(text: str) -> Facts:
    """Gather the facts of one top-level statement, given its lines."""
    tree = parse(text)
    loads: set[str] = set()
    binds: set[str] = set()
    attributes: set[tuple[str | None, str]] = set()
    imports: dict[str, str] = {}
    nodes = depth = 0
    for node, level in _walk(tree):
        nodes += 1
        depth = max(depth, level)
        binds.update(bound_names(node))
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load):
            loads.add(node.id)
        elif isinstance(node, ast.Attribute):
            root = node.value.id if isinstance(node.value, ast.Name) else None
            attributes.add((root, node.attr))
        elif isinstance(node, ast.Import | ast.ImportFrom):
            imports.update(_origins(node))
    return Facts(
        binds=frozenset(binds),
        defines=_defined_names(tree),
        loads=frozenset(loads),
        attributes=frozenset(attributes),
        imports=imports,
        nodes=nodes,
        depth=depth,
        constants=_constants(tree),
    )


def bound_names(node: ast.AST) -> Iterator[str]:
    """Yield the names that `node` itself binds, its children not counted."""
    match node:
        case ast.Name(id=name, ctx=ast.Store() | ast.Del()) | ast.arg(arg=name):
            yield name
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.ExceptHandler(name=str(name)):
            yield name
        case ast.MatchAs(name=str(name)) | ast.MatchStar(name=str(name)):
            yield name
        case ast.MatchMapping(rest=str(name)):
            yield name
        case ast.Import() | ast.ImportFrom():
            yield from _origins(node)
        case ast.Global(names=names) | ast.Nonlocal(names=names):
            yield from names


def _constants(tree: ast.Module) -> Constants:
    numbers = digits = characters = 0
    for node, _ in _walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):  # a docstring: no code can read it
                characters -= len(text)
            case ast.Constant(value=str(text)):
                characters += len(text)
            case ast.Constant(value=int() | float() | complex() as value) if value not in (0, 1):
                numbers += 1
                digits += _written_length(value)
            case ast.List(elts=elements) | ast.Tuple(elts=elements) | ast.Set(elts=elements):
                numbers += sum(map(_is_bit, elements))
            case ast.Dict(keys=keys, values=values):
                numbers += sum(map(_is_bit, [*keys, *values]))
    return Constants(numbers, digits, characters)


def _is_bit(node: ast.expr | None) -> bool:
    """Return whether a number is one of those that count only where they stand in a row."""
    if isinstance(node, ast.UnaryOp):
        node = node.operand
    return isinstance(node, ast.Constant) and node.value in (0, 1)


def _written_length(value: complex) -> int:
    """Return about how many characters it takes to write a number."""
    if isinstance(value, int):
        return value.bit_length() // 3 + 1  # printing it could take forever
    return len(repr(value))


def _origins(node: ast.Import | ast.ImportFrom) -> Mapping[str, str]:
    """Map each local name an import makes to the dotted name of what it stands for."""
    if isinstance(node, ast.ImportFrom):
        return {a.asname or a.name: f"{node.module or ''}.{a.name}" for a in node.names}
    return {
        alias.asname or alias.name.partition(".")[0]: alias.name
        if alias.asname
        else alias.name.partition(".")[0]
        for alias in node.names
    }


def _walk(tree: ast.Module) -> Iterator[tuple[ast.AST, int]]:
    """Yield every node below the module with its depth, a top-level statement being at 1."""
    waiting: list[tuple[ast.AST, int]] = [(node, 1) for node in tree.body]
    while waiting:
        node, level = waiting.pop()
        yield node, level
        waiting.extend((child, level + 1) for child in ast.iter_child_nodes(node))


def _defined_names(tree: ast.Module) -> frozenset[str]:
    """Return the names bound in the module: not those inside functions, classes and lambdas."""
    own_scope = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
    comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp
    found: set[str] = set()
    waiting: list[ast.AST] = list(tree.body)
    while waiting:
        node = waiting.pop()
        found.update(bound_names(node))
        if not isinstance(node, own_scope | comprehension):
            waiting.extend(ast.iter_child_nodes(node))
    return frozenset(found)
