"""As-of join of histories whose rows come in the order in which they are seen, as logs and sorted tables do."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from core_ext.asof import Matches, Spine
from core_ext.keys import KeyBatch

@final
class Queries:
    """The rows of a spine by time; read-only, so that any number of threads may sweep over them."""

    def __init__(self, spine: Spine) -> None: ...
    @property
    def is_dense(self) -> bool:
        """Whether the keys are integers that are found by subtraction."""

@final
class Sweep:
    """What one part of a history gives, whose rows are seen in ascending order; for one thread."""

    def __init__(self, queries: Queries, has_ties: bool = True) -> None:
        """Without ties, only the event time orders the rows, as in Matches."""

    def feed(
        self,
        keys: KeyBatch | NDArray[np.int64],
        event_us: NDArray[np.int64],
        first_index: int,
        cutoff_us: int,
        *,
        write_us: NDArray[np.int64] | None = None,
        available_us: NDArray[np.int64] | None = None,
        tombstones: NDArray[np.uint8] | None = None,
        source_ids: NDArray[np.uint32] | None = None,
        partitions: NDArray[np.int32] | None = None,
        offsets: NDArray[np.int64] | None = None,
    ) -> bool:
        """Takes a batch as Matches.feed does, or says False where its rows do not come in order.

        The first batch may begin anywhere; a batch that is refused changes nothing, and goes to Matches.
        """

@final
class Resolution:
    """What the sweeps over all parts of a history, and matches of rows out of order, give every spine row."""

    def __init__(self, queries: Queries, sweeps: Sequence[Sweep], matches: Matches | None = None) -> None:
        """The parts may overlap in time, and stand in any order. Raises ValueError for parts of another spine."""

    def part(
        self,
        start: int,
        end: int,
        ttl_us: int,
        stale_us: int,
        indexes: NDArray[np.int64],
        statuses: NDArray[np.uint8],
    ) -> None:
        """Writes the history index (or -1) and row status of the queries [start, end), each at its spine row.

        Threads may write different queries of one resolution.
        """

def arranged(indexes: NDArray[np.int64], low: int, high: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The indexes in [low, high), ascending, and their places; those of equal indexes ascend. Releases the GIL."""
