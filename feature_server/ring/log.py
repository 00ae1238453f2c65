"""What copies need of the log of a shard, and of the store that they fill from it."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

from feature_server.domain.log_writes import LOG_EPOCH_BIT, LogWrite


class LogRange(NamedTuple):
    """Offsets that the log of a shard holds: the first that is kept, and the next to be written."""

    first_offset: int
    next_offset: int


class LogRows(NamedTuple):
    """Writes of a log in order, and the offset behind them. `first_offset` is where they begin: between the two may be
    offsets without writes. `epoch` tells the log from every other.
    """

    first_offset: int
    next_offset: int
    writes: Sequence[LogWrite] = ()
    epoch: int = LOG_EPOCH_BIT


class CopyStore(Protocol):
    """The rows of one copy on disk. Every method is durable before it returns, but `apply`, whose newest batches a
    crash may lose as a suffix, rows and offset together.

    Raises DataLoss for damaged bytes, and other errors of headrace.errors where the disk refuses.
    """

    @property
    def is_complete(self) -> bool:
        """Whether it has been a whole copy since `complete`, and is undamaged."""

    @property
    def next_offset(self) -> int:
        """First offset of the log that is not in it."""

    def begin(self) -> None:
        """Not complete from now on, and empty, at offset 0."""

    def spoil(self) -> None:
        """Not complete from now on, with all that is in it."""

    def apply(self, log_rows: LogRows) -> None:
        """Rows and the offset behind them, in one batch."""

    def complete(self) -> None:
        """Is a whole copy."""

    def drop(self) -> None:
        """Not complete from now on, and takes no room."""
