"""The lineage log in memory: rebuilt at the start, read on before every question."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.lineage.storage import NOT_REPLACED, EdgeRows, LineageStore, LogTail, joined, part
from core_ext.lineage import FOREVER_US, LineageGraph
from headrace.lineage.values import EdgeKind, Node, NodeKind

NOW_US: Final = FOREVER_US - 1  # sees every edge that has not ended


@dataclass(frozen=True, slots=True)
class Moment:
    """What is asked: what was valid at one time, by what was known at another."""

    valid_us: int
    known_us: int


@dataclass(frozen=True, slots=True)
class Closure:
    """What nodes reach: nodes by hops, positions of their parents, edges from those, and where each hop ends."""

    nodes: NDArray[np.uint32]
    parents: NDArray[np.uint32]
    edges: NDArray[np.uint32]
    ends: NDArray[np.uint32]

    def hops(self) -> list[tuple[int, int]]:
        """Start and end of the positions of each hop, the starts first."""
        return list(pairwise([0, *self.ends.tolist()]))

    def path(self, position: int) -> list[int]:
        """Positions from a start to this one."""
        found = [position]
        while found[-1] >= self.ends[0]:
            found.append(int(self.parents[found[-1]]))
        return found[::-1]


class Mirror:
    """Numbers of nodes and edges are those of the log. Thread-safe."""

    def __init__(self, store: LineageStore) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._graph = LineageGraph()
        self._names: list[str] = []
        self._numbers: dict[str, int] = {}
        self._node_kinds = _Bytes()
        self._edge_kinds = _Bytes()
        self._read_known_us = 0
        self._newest_known_us = 0

    def refresh(self) -> None:
        """Reads what was appended since."""
        with self._lock, self._store.tail(len(self._names), self._graph.edge_count) as tail:
            self._read(tail)

    @property
    def graph(self) -> LineageGraph:
        """The edges."""
        return self._graph

    @property
    def newest_known_us(self) -> int:
        """When the newest edge became known, 0 for none; never of a change that is half read."""
        return self._newest_known_us

    def number(self, name: str) -> int | None:
        """Number of a node by its text."""
        return self._numbers.get(name)

    def node(self, number: int) -> Node:
        """A node by number."""
        return Node(NodeKind(int(self._node_kinds.view()[number])), self._names[number])

    def node_kinds(self, nodes: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Kinds of nodes."""
        return self._node_kinds.view()[nodes]

    def edge_kinds(self, edges: NDArray[np.uint32]) -> NDArray[np.uint8]:
        """Kinds of edges."""
        return self._edge_kinds.view()[edges]

    def edge_kind(self, edge: int) -> EdgeKind:
        """Kind of one edge."""
        return EdgeKind(int(self._edge_kinds.view()[edge]))

    def closure(self, starts: Sequence[int], moment: Moment, *, upstream: bool) -> Closure:
        """Everything that nodes reach, themselves first."""
        numbers = np.array(starts, np.uint32)
        found = self._graph.closure(
            numbers, upstream=upstream, valid_us=moment.valid_us, known_us=moment.known_us
        )  # in one call, so that no edge comes in between
        return Closure(*found)

    def adjacent(
        self, nodes: NDArray[np.uint32], moment: Moment, *, upstream: bool
    ) -> tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]:
        """Edges of nodes: for each the position of its node, the node at its other end, and its number."""
        return self._graph.adjacent(nodes, upstream=upstream, valid_us=moment.valid_us, known_us=moment.known_us)

    def _read(self, tail: LogTail) -> None:
        for block in tail.nodes:
            self._graph.add_nodes(len(block))
            self._node_kinds.add(np.fromiter((kind for kind, _ in block), np.uint8, len(block)))
            for _, name in block:
                self._names.append(name)
                self._numbers[name] = len(self._names) - 1  # last: readers take no lock
        if self._graph.edge_count == 0:
            self._load(list(tail.edges))
        else:
            for rows in tail.edges:
                self._append(rows)
        self._newest_known_us = self._read_known_us  # last: readers take no lock

    def _load(self, blocks: Sequence[EdgeRows]) -> None:
        """The whole log at once, so that the graph has no gaps."""
        if not blocks:
            return
        rows = joined(blocks)
        known_to_us = np.full(len(rows.sources), FOREVER_US, np.int64)
        replacing = np.flatnonzero(rows.replaces != NOT_REPLACED)
        known_to_us[rows.replaces[replacing]] = rows.known_us[replacing]
        self._edge_kinds.add(rows.kinds)
        self._extend(rows, known_to_us)

    def _append(self, rows: EdgeRows) -> None:
        self._edge_kinds.add(rows.kinds)
        count = len(rows.sources)
        replacing = np.flatnonzero(rows.replaces != NOT_REPLACED).tolist()
        for start, at in pairwise([-1, *replacing, count]):
            between = part(rows, start + 1, at)
            self._extend(between, np.full(len(between.sources), FOREVER_US, np.int64))
            if at < count:
                self._graph.replace(
                    int(rows.sources[at]),
                    int(rows.targets[at]),
                    int(rows.replaces[at]),
                    int(rows.valid_to_us[at]),
                    int(rows.known_us[at]),
                )
                self._read_known_us = int(rows.known_us[at])

    def _extend(self, rows: EdgeRows, known_to_us: NDArray[np.int64]) -> None:
        if len(rows.sources) > 0:
            self._graph.extend(
                rows.sources, rows.targets, rows.valid_from_us, rows.valid_to_us, rows.known_us, known_to_us
            )
            self._read_known_us = int(rows.known_us[-1])


class _Bytes:
    """A growing array of bytes; a view that was taken stays as it is."""

    def __init__(self) -> None:
        self._room = np.empty(0, np.uint8)
        self._count = 0

    def add(self, values: NDArray[np.uint8]) -> None:
        """Appends."""
        needed = self._count + len(values)
        if needed > len(self._room):
            grown = np.empty(max(needed, len(self._room) + len(self._room) // 8), np.uint8)
            grown[: self._count] = self._room[: self._count]
            self._room = grown
        self._room[self._count : needed] = values
        self._count = needed

    def view(self) -> NDArray[np.uint8]:
        """What it holds."""
        return self._room[: self._count]
