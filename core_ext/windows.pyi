"""Windows over events: tile maps made, merged and folded; plans come from core_ext.window_plan."""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple, final

import numpy as np
from numpy.typing import NDArray

from core_ext.arrow import ArrowColumn
from core_ext.window_plan import WindowPlan

TIME_NONE: Final[int]

class CorruptMapError(ValueError):
    """Bytes that are no tile map of the plan: the message says which check failed."""

class Deltas(NamedTuple):
    """What events add to the stored maps of their groups: None where a group has no event.

    `late_events` are in no delta, as the newest event of their group leaves no window that holds them.
    """

    maps: list[bytes | None]
    late_events: int

class Merged(NamedTuple):
    """A full map, and what was left out of it; docs/decisions/0013-tiles.md has the rules."""

    map: bytes
    late_events: int
    replayed_tiles: int
    overtaken_tiles: int
    split_tiles: int

class Folded(NamedTuple):
    """One value per feature: int (times in us, dates in days), float, str, bytes, bool, list or None.

    `losses` say why a value is None although there were values (HR_LOST_*), else 0. `is_exact` is False where a read
    before the newest event may have counted later events, or missed tiles that are no longer kept.
    """

    values: list[Any]  # of the type that each feature has
    losses: list[int]
    is_exact: bool

class History(NamedTuple):
    """A column per feature, with a value for every read, and per feature the lost values by cause (HR_LOST_*)."""

    columns: list[ArrowColumn]
    losses: list[list[int]]

class MapHeader(NamedTuple):
    """Head of a checked map; TIME_NONE where there is no such time or offset. Tiles are counted per ladder, level."""

    newest_us: int
    cut_us: int
    covered_offset: int
    tile_counts: list[int]

@final
class Windows:
    """The kernel of one plan. Any number of threads may call it.

    Raises CorruptMapError for maps that are damaged or of another plan, and ValueError for times beyond 2^60 us.
    """

    @property
    def plan(self) -> WindowPlan: ...
    @property
    def result_types(self) -> list[tuple[int, bool]]:
        """Element type of each feature, as in headrace.types.Scalar, and whether it is a list."""
    def __init__(self, plan: WindowPlan) -> None:
        """Raises ValueError where the plan does not hold together."""

    def update(
        self,
        columns: Sequence[ArrowColumn],
        event_us: NDArray[np.int64],
        groups: NDArray[np.int64],
        group_count: int,
        *,
        write_us: NDArray[np.int64] | None = None,
        source_ids: NDArray[np.uint32] | None = None,
        partitions: NDArray[np.int32] | None = None,
        offsets: NDArray[np.int64] | None = None,
    ) -> Deltas:
        """One delta per group, from the inputs of the plan for each event. Releases the GIL.

        Events come in any order. Without write times these equal the event times; other order columns default to 0.
        """

    def history(
        self,
        columns: Sequence[ArrowColumn],
        event_us: NDArray[np.int64],
        groups: NDArray[np.int64],
        read_us: NDArray[np.int64],
        read_groups: NDArray[np.int64],
        group_count: int,
        *,
        write_us: NDArray[np.int64] | None = None,
        source_ids: NDArray[np.uint32] | None = None,
        partitions: NDArray[np.int32] | None = None,
        offsets: NDArray[np.int64] | None = None,
        available_us: NDArray[np.int64] | None = None,
        threads: int = 1,
    ) -> History:
        """Exact values of every feature at any time of any group, in the order of the reads. Releases the GIL.

        A read sees the events that were available by its time; without available times that is their own time. What was
        written after a knowledge cut-off is left out by the caller.

        Up to `threads` threads (64 at most) share the groups; the values do not depend on it.

        Raises OverflowError where the texts of a column exceed 2 GiB.
        """

    def apply(self, base: bytes | None, delta: bytes, offset: int) -> Merged:
        """The stored map (None: no row) with a delta that is written at a log offset.

        Tiles that cover the offset already leave their part of the delta out, so that a replay changes nothing.
        """

    def merge(self, base: bytes | None, other: bytes) -> Merged:
        """What two full maps of one row say together: before the greater cut the tiles of its map alone."""

    def stamp(self, delta: bytes, cut_us: int, covered_offset: int) -> bytes:
        """Full map of a batch, from the delta of all of its events, none after the cut, up to a log offset."""

    def fold(self, map: bytes | None, read_us: int) -> Folded:
        """Values of a map at a read time; None is a row that is not stored."""

    def fold_many(self, maps: Sequence[bytes | None], read_us: NDArray[np.int64]) -> tuple[History, bytes]:
        """Values of many maps, each at its own read time, as columns; and a byte each, 1 where they are exact."""

    def check_map(self, map: bytes) -> MapHeader:
        """Header after every check of every byte."""
