"""A generated lineage graph: heavy-tailed degrees, edges that began over two years, some of which have ended since.

Both ends of an edge are drawn before the nodes get their numbers, so that nothing lies beside what it is joined with.
"""

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from core_ext.lineage import FOREVER_US, LineageGraph

SEED: Final = 20_261_128
REVISION_COUNT: Final = 1_000  # moments at which edges begin or end, as applies and runs make them
STEP_US: Final = 63_000_000_000  # 1,000 of them are two years
TAIL: Final = 3.0  # power of the uniform draw of sources: the first node has 0.8 % of ten million edges
ENDED_SHARE: Final = 0.05
NOW_US: Final = FOREVER_US - 1


@dataclass(frozen=True, slots=True)
class Edges:
    """Rows as the log keeps them: an edge that ends is one row known until then, and one that says so since."""

    sources: NDArray[np.uint32]
    targets: NDArray[np.uint32]
    valid_from_us: NDArray[np.int64]
    valid_to_us: NDArray[np.int64]
    known_from_us: NDArray[np.int64]
    known_to_us: NDArray[np.int64]
    node_count: int

    def now(self) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
        """Ends of the edges that hold now, which is all that the peers are given."""
        holds = (self.valid_to_us == FOREVER_US) & (self.known_to_us == FOREVER_US)
        return self.sources[holds], self.targets[holds]

    def widest(self, count: int) -> NDArray[np.uint32]:
        """Nodes with the most edges down, the widest first."""
        degrees = np.bincount(self.now()[0], minlength=self.node_count)
        return np.argsort(-degrees, kind="stable")[:count].astype(np.uint32)

    def graph(self) -> LineageGraph:
        """All of it in memory."""
        made = LineageGraph()
        made.add_nodes(self.node_count)
        times = (self.valid_from_us, self.valid_to_us, self.known_from_us, self.known_to_us)
        made.extend(self.sources, self.targets, *times)
        return made


def generate(node_count: int, edge_count: int, seed: int = SEED) -> Edges:
    """An acyclic graph but for one edge in a thousand, which leads back."""
    rng = np.random.default_rng(seed)
    sources = (node_count * rng.random(edge_count) ** TAIL).astype(np.int64)
    targets = sources + 1 + (rng.random(edge_count) * (node_count - sources)).astype(np.int64)
    targets %= node_count
    back = rng.random(edge_count) < 0.001
    sources[back], targets[back] = targets[back], sources[back]
    numbers = rng.permutation(node_count).astype(np.uint32)
    begun = rng.integers(0, REVISION_COUNT, edge_count) * STEP_US
    ended = np.flatnonzero(rng.random(edge_count) < ENDED_SHARE)
    ends = begun[ended] + STEP_US * rng.integers(1, REVISION_COUNT, len(ended))
    forever = np.full(edge_count, FOREVER_US, np.int64)
    known_to = forever.copy()
    known_to[ended] = ends
    return Edges(
        sources=np.concatenate([numbers[sources], numbers[sources[ended]]]),
        targets=np.concatenate([numbers[targets], numbers[targets[ended]]]),
        valid_from_us=np.concatenate([begun, begun[ended]]),
        valid_to_us=np.concatenate([forever, ends]),
        known_from_us=np.concatenate([begun, ends]),
        known_to_us=np.concatenate([known_to, forever[ended]]),
        node_count=node_count,
    )
