"""Times of lineage: UTC microseconds since the epoch, as the log keeps them."""

from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def time_us(time: datetime) -> int:
    """Microseconds of an aware time."""
    return (time - _EPOCH) // timedelta(microseconds=1)
