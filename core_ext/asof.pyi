"""As-of join: the greatest history row that each spine row may see, and its values with their statuses."""

from typing import final

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn
from core_ext.keys import KeyBatch

HASH_BITS_MAX: int
SPINE_ROWS_MAX: int

@final
class Spine:
    """Entities with their query times; read-only, so that any number of threads may feed matches against it."""

    def __init__(self, keys: KeyBatch | NDArray[np.int64], times_us: NDArray[np.int64], hash_bits: int = 64) -> None:
        """Holds the keys, which may be given as integers where they are one each. Raises ValueError for sizes.

        `hash_bits` is narrowed by tests, so that keys collide.
        """

    def __len__(self) -> int: ...
    @property
    def entity_count(self) -> int:
        """Different keys; they are numbered by their first row."""

    @property
    def longest_search(self) -> int:
        """Slots that the search for a key passes at most: few where the keys spread well."""

    def find(self, keys: KeyBatch) -> NDArray[np.int64]:
        """Entity of every key, -1 where the spine has no such key."""

    def entities(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Entity and query time of every row."""

@final
class Matches:
    """What one thread found of one history; tables of several threads are merged, in any order."""

    def __init__(self, spine: Spine, has_ties: bool = True) -> None:
        """Without ties, only the event time orders the rows, and a match takes 16 bytes instead of 40."""

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
    ) -> None:
        """Takes a batch of history rows; its first row has `first_index` in the whole history.

        Keys that are one i64 each may be given as an array of them.

        Rows are seen from their event time and available time on, tombstones from their available time on.

        Without write times they are the event times, without available times those are the write times. Rows equal in
        the total order keep the one with the least index. Releases the GIL; one thread at a time may feed one table.
        """

    def merge(self, other: Matches) -> None:
        """Takes over what `other` found for the same spine."""

    def resolve(self, ttl_us: int, stale_us: int) -> tuple[NDArray[np.int64], NDArray[np.uint8]]:
        """History index (or -1) and row status of every spine row."""

    def newest(self) -> NDArray[np.int64]:
        """Index of the greatest row that every spine row sees, tombstones included, or -1."""

def gather(
    column_type: tuple[int, int, int, int],
    column: ArrowColumn,
    sources: NDArray[np.int64],
    targets: NDArray[np.int64],
    values: NDArray[np.uint8],
    nulls: NDArray[np.uint8],
) -> None:
    """Copies value sources[i] of an Arrow column into slot targets[i] of `values`, and whether it is null into `nulls`.

    column_type is (scalar, shape, list size, element bytes) of a type of fixed width; a boolean takes one byte.
    Threads may share `values` and `nulls` when their targets differ.
    """

def settle(
    row_statuses: NDArray[np.uint8],
    nulls: NDArray[np.uint8],
    fallback: int,
    default: bytes | None,
    include_expired: bool,
    values: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Status and slot content (SLOT_EMPTY, SLOT_VALUE, SLOT_DEFAULT) of every value, by the value rules.

    `values`, where given, holds one slot each: defaults are written into it, and empty slots are zeroed.
    """
