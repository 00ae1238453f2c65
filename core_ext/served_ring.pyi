"""A sample of the answered reads: taken where they are answered, handed to the one thread that writes it down."""

from typing import TypedDict, final, type_check_only

HEAD_BYTES: int
TRACE_BYTES: int
UNKNOWN_TIME_US: int
"""Event time of a record that is not known; the least i64 means that no row gave the answer."""

def threshold_of(share: float) -> int:
    """Greatest hash that is in a sample of this share; 0 takes none. Raises ValueError outside of 0 to 1."""

def is_sampled(share: float, request: bytes, read_time_us: int) -> bool:
    """Whether a read is in a sample of this share: decided by the bytes of its request and its time alone."""

@type_check_only
class Counts(TypedDict):
    """What became of the sample."""

    sampled: int
    """Reads handed over."""
    dropped: int
    """Reads for which there was no room."""
    held_bytes: int
    """Memory of those that wait."""

@final
class ServedRing:
    """The sample between `RequestCore.log_reads` and the thread that takes it; layout in native/hr_served.h.

    `share` of the reads is chosen; those that wait take at most `bytes_max`, and what does not fit is dropped and
    counted. Raises ValueError for a share outside of 0 to 1, or no shard.
    """

    def __init__(self, share: float, bytes_max: int, shard_count: int) -> None: ...
    def mark(self, shard: int, epoch: int, offset: int) -> None:
        """Notes how far a shard is, once reads find its rows."""
    def take(self, timeout_s: float) -> list[bytes]:
        """Records that wait, in order; lets them gather for the time, or until half of the bound is taken."""
    def close(self) -> None:
        """Takes no more; what waits can still be taken."""
    def counts(self) -> Counts:
        """Totals since the start."""
