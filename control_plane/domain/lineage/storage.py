"""What lineage asks of its storage."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from control_plane.domain.lineage.edges import EdgeChange
from headrace.definitions.registered import RegistryState
from headrace.lineage.values import Node, Run

NOT_REPLACED = -1


class EdgeRows(NamedTuple):
    """Rows of the log in its order, by columns; `replaces` is NOT_REPLACED, or the row whose place one takes."""

    sources: NDArray[np.uint32]
    targets: NDArray[np.uint32]
    kinds: NDArray[np.uint8]
    valid_from_us: NDArray[np.int64]
    valid_to_us: NDArray[np.int64]
    known_us: NDArray[np.int64]
    replaces: NDArray[np.int64]


def joined(blocks: Sequence[EdgeRows]) -> EdgeRows:
    """Rows of several blocks, at least one, one after the other."""
    columns: list[Any] = [np.concatenate(column) for column in zip(*blocks, strict=True)]  # Any: of three types
    return EdgeRows(*columns)


def part(rows: EdgeRows, start: int, end: int) -> EdgeRows:
    """Rows from one to before another."""
    columns: list[Any] = [column[start:end] for column in rows]  # Any: of three types
    return EdgeRows(*columns)


@dataclass(frozen=True, slots=True)
class EdgeDetail:
    """What the log says of one edge: who says so, the text of the transform, and when it was valid."""

    origin: Node
    transform: str
    valid_from_us: int
    valid_to_us: int


class LogTail(Protocol):
    """The log from some node and edge on, as of one moment."""

    @property
    def nodes(self) -> Iterator[Sequence[tuple[int, str]]]:
        """Kinds and texts, to be read first."""

    @property
    def edges(self) -> Iterator[EdgeRows]:
        """Rows."""


class LineageStore(Protocol):
    """Durable log of lineage. Nodes and edges are numbered from 0 without gaps, in the order in which they came."""

    def tail(self, node_count: int, edge_count: int) -> AbstractContextManager[LogTail]:
        """What came after so many nodes and edges; nodes are to be read first."""

    def details(self, edges: Sequence[int]) -> Mapping[int, EdgeDetail]:
        """Details of edges by number."""

    def catch_up(self, state: RegistryState, now_us: int) -> int:
        """Appends what a registry declares and the log does not say; returns the number of edges."""

    def record_run(self, run: Run, change: EdgeChange, now_us: int) -> bool:
        """Keeps a run and its edges; False where it is known. Raises AlreadyExists where another one is."""

    def runs(self, names: Sequence[str]) -> Mapping[str, Run]:
        """Runs by the texts of their nodes."""
