"""Impact: everything that a node reaches, with what a change of it would do there, and one shortest path to each."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.lineage.mirror import Closure, Mirror, Moment
from control_plane.domain.lineage.storage import EdgeDetail
from headrace.lineage.values import EdgeKind, Effect, Impacted, Node, NodeChange, NodeKind, PathStep, Total

PATH_STEPS_MAX: Final = 20_000  # of one page, some megabytes of names; the page then ends early and the next goes on

# What reads the node itself, or a part of it, by name; and what is made of that.
_EFFECTS: Final = {
    NodeChange.ANY: (Effect.AFFECTED, Effect.AFFECTED),
    NodeChange.DROP: (Effect.BROKEN, Effect.STARVED),
    NodeChange.RENAME: (Effect.BROKEN, Effect.STARVED),
    NodeChange.RETYPE: (Effect.RECOMPILED, Effect.AFFECTED),
}

Details = Callable[[Sequence[int]], dict[int, EdgeDetail]]


class Impact:
    """All that some nodes reached at one moment, as arrays; pages of it are made when they are asked for."""

    def __init__(self, mirror: Mirror, starts: Sequence[int], moment: Moment) -> None:
        self._mirror = mirror
        self.moment = moment
        self._closure: Closure = mirror.closure(starts, moment, upstream=False)
        self._kinds = mirror.node_kinds(self._closure.nodes)
        self._is_direct = _direct(mirror, np.array(starts, np.uint32), moment)[self._closure.nodes]

    @property
    def node_count(self) -> int:
        """Nodes held, those that were asked about included."""
        return len(self._closure.nodes)

    def totals(self) -> list[Total]:
        """Exact counts by hops and kind, whatever a page holds."""
        found = []
        for hop, (start, end) in enumerate(self._closure.hops()):
            if hop > 0:
                counts = np.bincount(self._kinds[start:end])
                found += [Total(hop, NodeKind(kind), int(counts[kind])) for kind in np.flatnonzero(counts).tolist()]
        return found

    def positions(self, kinds: frozenset[NodeKind], first: int, size: int) -> tuple[list[int], int]:
        """Positions of the next nodes of these kinds, all kinds without any, and where to go on; 0 at the end."""
        first = min(max(first, int(self._closure.ends[0])), len(self._kinds))  # a token may say anything
        mask = np.ones(len(self._kinds) - first, bool)
        if kinds:
            mask = np.isin(self._kinds[first:], [int(kind) for kind in kinds])
        found = (np.flatnonzero(mask) + first)[: size + 1].tolist()
        steps = 0
        taken: list[int] = []
        for position in found[:size]:
            steps += self._hop_count(position)
            if taken and steps > PATH_STEPS_MAX:
                return taken, position
            taken.append(position)
        return taken, found[size] if len(found) > size else 0

    def rows(
        self, positions: Sequence[int], change: NodeChange, owner: Callable[[Node], str], details: Details
    ) -> list[Impacted]:
        """The nodes at positions with their paths; `details` reads those of the edges on them."""
        paths = [self._closure.path(position) for position in positions]
        edges = {int(self._closure.edges[at]) for path in paths for at in path[1:]}
        known = details(sorted(edges))
        return [
            self._row(position, path, change, owner, known) for position, path in zip(positions, paths, strict=True)
        ]

    def _row(
        self,
        position: int,
        path: Sequence[int],
        change: NodeChange,
        owner: Callable[[Node], str],
        details: dict[int, EdgeDetail],
    ) -> Impacted:
        node = self._node(position)
        effect = _EFFECTS[change][0 if self._is_direct[position] else 1]
        steps = [PathStep(self._node(path[0]))]
        for at in path[1:]:
            edge = int(self._closure.edges[at])
            steps.append(PathStep(self._node(at), self._mirror.edge_kind(edge), details[edge].transform))
        return Impacted(node, len(path) - 1, owner(node), effect, tuple(steps))

    def _node(self, position: int) -> Node:
        return self._mirror.node(int(self._closure.nodes[position]))

    def _hop_count(self, position: int) -> int:
        return int(np.searchsorted(self._closure.ends, position, side="right"))


def _direct(mirror: Mirror, starts: NDArray[np.uint32], moment: Moment) -> NDArray[np.bool_]:
    """By number of a node: whether it is part of the starts, or reads one or a part of them, or is part of such.

    A shortest path does not tell: it may come to a reader by way of another one.
    """
    found = np.zeros(mirror.graph.node_count, bool)
    parts = _with_parts(mirror, starts, moment, found)
    _, readers, edges = mirror.adjacent(parts, moment, upstream=False)
    readers = readers[mirror.edge_kinds(edges) != EdgeKind.CONTAINS]
    _with_parts(mirror, np.unique(readers), moment, found)
    return found


def _with_parts(
    mirror: Mirror, nodes: NDArray[np.uint32], moment: Moment, found: NDArray[np.bool_]
) -> NDArray[np.uint32]:
    """Marks nodes and their parts; returns them."""
    every = [nodes]
    found[nodes] = True
    while len(nodes) > 0:
        _, ends, edges = mirror.adjacent(nodes, moment, upstream=False)
        ends = np.unique(ends[mirror.edge_kinds(edges) == EdgeKind.CONTAINS])
        nodes = ends[~found[ends]]
        found[nodes] = True
        every.append(nodes)
    return np.concatenate(every)
