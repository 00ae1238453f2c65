"""Lineage graph: edges between numbered nodes with the times at which they held, walked breadth first."""

from typing import final

import numpy as np
from numpy.typing import NDArray

NONE: int
"""Position or edge of what was not reached: a start."""

FOREVER_US: int
"""End of a span that has none."""

HOPS_MAX: int

@final
class LineageGraph:
    """Nodes are numbered from 0 in the order in which they were added, edges likewise. Any thread may read or write.

    An edge is valid from a time to another, which is known from a time to another, both half open. It is never taken
    away: what ends or was wrong is replaced, so that each moment's belief can be asked again. Walks release the GIL.
    """

    def __init__(self) -> None: ...
    @property
    def node_count(self) -> int:
        """Nodes that were added."""

    @property
    def edge_count(self) -> int:
        """Edges that were added, those that have ended or were replaced included."""

    @property
    def span_count(self) -> int:
        """Different spans of time of the edges."""

    @property
    def memory_bytes(self) -> int:
        """Bytes of nodes, edges and spans, with the room kept for more."""

    def measured(self) -> tuple[int, int, int, int]:
        """Nodes, edges, spans and bytes at one moment."""

    def add_nodes(self, count: int) -> int:
        """Adds nodes; returns the number of the first. Raises OverflowError past 32 bits."""

    def extend(
        self,
        sources: NDArray[np.uint32],
        targets: NDArray[np.uint32],
        valid_from_us: NDArray[np.int64],
        valid_to_us: NDArray[np.int64],
        known_from_us: NDArray[np.int64],
        known_to_us: NDArray[np.int64],
    ) -> int:
        """Adds edges; returns the number of the first. Many at once are laid out without gaps.

        An edge costs O(degree of its ends). Raises ValueError for a node that is not there, and then adds none.
        """

    def replace(self, source: int, target: int, edge: int, valid_to_us: int, known_us: int) -> int:
        """Says from a known time on that an edge was valid to another time; returns the edge that says so.

        Raises ValueError for an edge that is not there, or that was replaced before.
        """

    def closure(
        self,
        starts: NDArray[np.uint32],
        *,
        upstream: bool,
        valid_us: int,
        known_us: int,
        hops_max: int = ...,
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
        """Everything that the starts reach: nodes, positions of their parents, edges from those, and ends of the hops.

        Nodes stand in the order of hops, then of their parents, then of age of the edge; the starts come first, with
        NONE for parent and edge. Hop h is nodes[ends[h - 1]:ends[h]]; following the parents gives one shortest path.
        """

    def adjacent(
        self, nodes: NDArray[np.uint32], *, upstream: bool, valid_us: int, known_us: int
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
        """Edges of nodes: for each the position of its node, the node at its other end, and its number."""
