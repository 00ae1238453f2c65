"""Syntax tree of an expression."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

Constant: TypeAlias = bool | int | float | str | datetime | date | None


@dataclass(frozen=True, slots=True)
class Node:
    """Part of an expression; `position` is the offset of the character that an error about it points at."""

    position: int

    @property
    def children(self) -> "tuple[Node, ...]":
        """Parts in the order of the text."""
        return ()


@dataclass(frozen=True, slots=True)
class Literal(Node):
    """A constant; a datetime is UTC."""

    value: Constant


@dataclass(frozen=True, slots=True)
class ColumnName(Node):
    """A column."""

    name: str


@dataclass(frozen=True, slots=True)
class Operation(Node):
    """An operator over one or two parts: neg, not, or the symbol."""

    operator: str
    parts: tuple[Node, ...]
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 1 + max(map(depth_of, self.parts)))

    @property
    def children(self) -> tuple[Node, ...]:
        """Its operands."""
        return self.parts


@dataclass(frozen=True, slots=True)
class Call(Node):
    """A function over its arguments; also `in`, whose first argument is what is looked for."""

    function: str
    parts: tuple[Node, ...]
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 1 + max(map(depth_of, self.parts), default=0))

    @property
    def children(self) -> tuple[Node, ...]:
        """Its arguments."""
        return self.parts


@dataclass(frozen=True, slots=True)
class Cast(Node):
    """An explicit cast to a named type."""

    part: Node
    type_name: str
    type_position: int
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "depth", 1 + depth_of(self.part))

    @property
    def children(self) -> tuple[Node, ...]:
        """What is cast."""
        return (self.part,)


@dataclass(frozen=True, slots=True)
class Case(Node):
    """Conditions with their values, and the value where none is true."""

    branches: tuple[tuple[Node, Node], ...]
    otherwise: Node | None
    depth: int = field(init=False, compare=False)

    def __post_init__(self) -> None:
        # Each branch is compiled inside the branches before it.
        object.__setattr__(self, "depth", len(self.branches) + max(map(depth_of, self.children)))

    @property
    def children(self) -> tuple[Node, ...]:
        """Conditions and values in the order of the text."""
        parts = tuple(part for branch in self.branches for part in branch)
        return parts if self.otherwise is None else (*parts, self.otherwise)


def depth_of(node: Node) -> int:
    """Levels of nesting, 1 for a leaf."""
    return getattr(node, "depth", 1)


def walk(node: Node) -> Iterator[Node]:
    """The node and everything below it."""
    yield node
    for child in node.children:
        yield from walk(child)
