"""What a shard needs of the log of its committed rows, which feeds the offline store."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple, Protocol


class LogPosition(NamedTuple):
    """The first place of a row log that is not covered; epochs are compared first."""

    epoch: int
    next_offset: int


class LogEntry(NamedTuple):
    """Rows of one write with the offset behind them. One without rows moves the position alone."""

    next_offset: int
    keys: Sequence[bytes] = ()
    rows: Sequence[bytes] = ()


class LogChunk(NamedTuple):
    """Whole records of one epoch, as core_ext.row_log reads them, and the offsets that they cover."""

    epoch: int
    first_offset: int
    next_offset: int
    records: bytes


class RowLogStatus(NamedTuple):
    """How full a row log is, and from where on it is not acknowledged."""

    stored_bytes: int
    bytes_max: int
    acknowledged: LogPosition
    end: LogPosition


class RowLog(Protocol):
    """Written before the store commits a group, read and acknowledged by whoever drains it.

    The store's own record decides what was committed: `open` drops what lies behind it.
    """

    def open(self, epoch: int, epoch_offset: int, next_offset: int) -> None:
        """Opens the log where the record of the shard stands; raises Unavailable where it is damaged."""

    def check_room(self) -> None:
        """Raises ResourceExhausted where the log is full: nothing is dropped to make room."""

    def append(self, epoch: int, entries: Sequence[LogEntry], *, sync: bool) -> None:
        """Writes entries that the store is about to commit."""

    def publish(self) -> None:
        """The store has committed what was appended: readers may have it."""

    def read(self, start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
        """What was committed from a position on, up to now; earlier than acknowledged means from there."""

    def acknowledge(self, position: LogPosition) -> None:
        """What lies before the position is safe elsewhere; repeating one changes nothing."""

    def status(self) -> RowLogStatus:
        """State now."""

    def close(self) -> None:
        """Lets go of the files."""
