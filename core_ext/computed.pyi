"""Rows of views that are computed when read: windows over a tile map, and derived expressions."""

from collections.abc import Sequence
from typing import Final, NamedTuple, final

from core_ext.expressions import Program
from core_ext.row_codec import Schema
from core_ext.windows import Windows

FROM_LATEST: Final[int]
FROM_WINDOW: Final[int]
FROM_DERIVED: Final[int]

class MergedRow(NamedTuple):
    """A stored row after a delta. `is_stale`: the delta changed nothing, as what is stored comes after it."""

    row: bytes
    late_events: int
    is_stale: bool

class ReplacedRow(NamedTuple):
    """What stands after a row of a batch: it, or what was stored.

    `is_stale`: what is stored says the same, or comes after it. `is_deferred`: it holds events that the batch has not
    seen.
    """

    row: bytes
    is_stale: bool
    is_deferred: bool

@final
class ComputedView:
    """What a view stores and what it answers.

    Stored rows hold the latest columns and, where there are windows, a tile map; answers hold every column. Any number
    of threads may use one.
    """

    stored: Schema
    answered: Schema
    windows: Windows | None
    def __init__(
        self,
        schema_id: int,
        columns: Sequence[tuple[int, int, int]],
        sources: Sequence[tuple[int, int]],
        windows: Windows | None,
        programs: Sequence[tuple[Program, Sequence[int]]],
    ) -> None:
        """Columns as `Schema` takes them.

        Per column one source: FROM_LATEST with the place among the stored columns, which rises by one, FROM_WINDOW with
        the feature of the plan, or FROM_DERIVED with the program. A program comes with the columns that it reads, none
        of them derived. Raises ValueError where they do not fit together.
        """

    def with_tiles(self, latest: bytes, tile_map: bytes) -> bytes:
        """Stored row of latest columns and a tile map. Raises ValueError where it would exceed ROW_BYTES_MAX."""

    def merge(self, stored: bytes | None, delta: bytes, offset: int) -> MergedRow:
        """Stored row (None: none) with a row whose tile map is a delta, written at a log offset of its shard.

        The latest columns are those of the row that is greater by the total order; without windows that is the whole
        row. Raises CorruptRowError or
        CorruptMapError for damaged rows, and ValueError where the row would exceed ROW_BYTES_MAX.
        """

    def replace(self, stored: bytes | None, row: bytes, covered: int) -> ReplacedRow:
        """Stored row (None: none) with a row that a batch has made of every event up to a log offset.

        Its tiles stand in the place of the stored ones, where none of these holds a later offset; the latest columns
        are those of the greater row. Raises CorruptRowError or CorruptMapError, and ValueError where the row would
        exceed ROW_BYTES_MAX.
        """

    def check(self, row: bytes) -> None:
        """Every check of the tiles of a row that is stored; check_row has those of its columns.

        Raises CorruptRowError or CorruptMapError.
        """

    def covered(self, row: bytes) -> int:
        """Greatest log offset that a tile of a row holds, TIME_NONE of core_ext.windows where there is none."""

    def image(self, row: bytes | None, read_us: int) -> bytes:
        """Row of `answered` for a read at a time, with checksum; None is a row that is not stored.

        Raises CorruptMapError.
        """
