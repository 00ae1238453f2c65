"""A copy over a shard of this server and a mark beside it that says whether it is whole."""

from pathlib import Path
from typing import Final, Protocol

from feature_server.domain.shard import Shard, ShardState
from feature_server.domain.shard_writes import Durability
from feature_server.ring.log import LogRows
from feature_server.ring.snapshot import SnapshotEnd
from headrace.errors import FailedPrecondition

ROWS_MAX: Final = 1_024  # of one write: half a millisecond of the interpreter at most


class Mark(Protocol):
    """One durable bit. Raises what the disk refuses."""

    def is_set(self) -> bool:
        """Whether it is set."""

    def set(self) -> None:
        """Sets it, durably."""

    def clear(self) -> None:
        """Clears it, durably."""


class ShardCopy:
    """Satisfies CopyStore. Without a log that all copies share, every copy stands at offset 0."""

    def __init__(self, shard: Shard, mark: Mark) -> None:
        self.number = shard.number
        self._shard = shard
        self._mark = mark
        self._is_marked = mark.is_set()
        self.next_offset = 0

    @property
    def is_complete(self) -> bool:
        return self._is_marked and self._shard.state is not ShardState.QUARANTINED

    def begin(self) -> None:
        self._unmark()
        self._shard.empty()

    def apply(self, log_rows: LogRows) -> None:
        for start in range(0, len(log_rows.keys), ROWS_MAX):
            rows = list(log_rows.rows[start : start + ROWS_MAX])
            keys = list(log_rows.keys[start : start + ROWS_MAX])
            self._shard.append(keys, lambda *_, made=rows: made, Durability.LOG, is_logged=False)

    def install(self, folder: Path, end: SnapshotEnd) -> None:
        """Puts a snapshot that has arrived in the place of what is here."""
        self._shard.install(folder, end.next_offset, end.content_hash)

    def complete(self) -> None:
        self._mark.set()
        self._is_marked = True

    def drop(self) -> None:
        # What is empty has no content hash; its offsets go on.
        if self._is_marked or self._shard.status().content_hash:
            self._unmark()
            self._shard.empty()

    def _unmark(self) -> None:
        self._is_marked = False
        self._mark.clear()


def check_new(shards: list[Shard], has_ring: bool) -> None:
    """Raises where a store that was no part of a ring is about to join one: the ring would drop its rows."""
    if not has_ring and any(shard.status().offset >= 0 for shard in shards):
        raise FailedPrecondition(
            "the data folder holds rows of a server without a ring, which joining one would drop; "
            "start with --ring on a new folder and write the rows again",
            reason="STORE_OUTSIDE_RING",
            field="ring",
        )
