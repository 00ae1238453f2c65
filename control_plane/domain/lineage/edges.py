"""Edges of lineage, and the changes that are appended to their log."""

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.lineage.values import EdgeKind, Node


@dataclass(frozen=True, slots=True, order=True)
class Edge:
    """One edge; `transform` is the text that computes the target where there is one."""

    source: Node
    target: Node
    kind: EdgeKind
    transform: str = ""


@dataclass(frozen=True, slots=True)
class Declaration:
    """All edges that one origin says from now on."""

    origin: Node
    edges: Sequence[Edge]


@dataclass(frozen=True, slots=True)
class EdgeChange:
    """What one origin, a definition or a run, says from now on: edges that begin, and edges that end now.

    Those that begin are valid from a time on, or from now.
    """

    origin: Node
    begun: Sequence[Edge] = ()
    ended: Sequence[Edge] = ()
    valid_from_us: int | None = None


def edge_change(
    origin: Node, before: Sequence[Edge], after: Sequence[Edge], valid_from_us: int | None = None
) -> EdgeChange | None:
    """What turns the edges of an origin into others, in a fixed order; None where nothing does."""
    old, new = set(before), set(after)
    begun, ended = tuple(edge for edge in after if edge not in old), tuple(edge for edge in before if edge not in new)
    return EdgeChange(origin, begun, ended, valid_from_us) if begun or ended else None
