"""Twin of core_ext.lineage: a list of edges, each looked at for every node."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

NONE: Final = 2**32 - 1
FOREVER_US: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Edge:
    """One edge with when it was valid and when that was known, both half open."""

    source: int
    target: int
    valid_from_us: int
    valid_to_us: int = FOREVER_US
    known_from_us: int = 0
    known_to_us: int = FOREVER_US

    def holds(self, valid_us: int, known_us: int) -> bool:
        """Whether it is seen at these times."""
        is_valid = self.valid_from_us <= valid_us < self.valid_to_us
        return is_valid and self.known_from_us <= known_us < self.known_to_us

    def ends(self, upstream: bool) -> tuple[int, int]:
        """Where a walk enters and leaves it."""
        return (self.target, self.source) if upstream else (self.source, self.target)


@dataclass(slots=True)
class Twin:
    """The same graph, slowly."""

    edges: list[Edge] = field(default_factory=list)

    def replace(self, edge: int, valid_to_us: int, known_us: int) -> int:
        """Ends what is known of an edge and adds what is known from then on."""
        held = self.edges[edge]
        if held.known_to_us != FOREVER_US:
            raise ValueError("the edge has been replaced before")
        self.edges[edge] = replace(held, known_to_us=known_us)
        self.edges.append(replace(held, valid_to_us=valid_to_us, known_from_us=known_us))
        return len(self.edges) - 1

    def closure(
        self, starts: Sequence[int], *, upstream: bool, valid_us: int, known_us: int, hops_max: int = NONE - 1
    ) -> tuple[list[int], list[int], list[int], list[int]]:
        """Nodes, positions of their parents, edges from those, and ends of the hops."""
        nodes = list(dict.fromkeys(starts))
        parents, edges, ends = [NONE] * len(nodes), [NONE] * len(nodes), [len(nodes)]
        at = 0
        while len(ends) <= hops_max and at < len(nodes):
            for position in range(at, len(nodes)):
                for number, node in self._adjacent(nodes[position], upstream, valid_us, known_us):
                    if node not in nodes:
                        nodes.append(node)
                        parents.append(position)
                        edges.append(number)
            at = ends[-1]
            if len(nodes) > at:
                ends.append(len(nodes))
        return nodes, parents, edges, ends

    def adjacent(
        self, nodes: Sequence[int], *, upstream: bool, valid_us: int, known_us: int
    ) -> tuple[list[int], list[int], list[int]]:
        """Positions of the nodes, other ends and numbers of their edges."""
        found = [
            (position, end, number)
            for position, node in enumerate(nodes)
            for number, end in self._adjacent(node, upstream, valid_us, known_us)
        ]
        return [one[0] for one in found], [one[1] for one in found], [one[2] for one in found]

    def _adjacent(self, node: int, upstream: bool, valid_us: int, known_us: int) -> list[tuple[int, int]]:
        return [
            (number, edge.ends(upstream)[1])
            for number, edge in enumerate(self.edges)
            if edge.ends(upstream)[0] == node and edge.holds(valid_us, known_us)
        ]
