"""A copy over a shard of this server and a mark beside it that says whether it is whole."""

from pathlib import Path
from typing import Protocol

from feature_server.domain.log_writes import is_log_epoch
from feature_server.domain.shard import Shard, ShardState
from feature_server.ring.log import LogRows
from feature_server.ring.snapshot import SnapshotEnd
from headrace.errors import FailedPrecondition


class Mark(Protocol):
    """One durable bit. Raises what the disk refuses."""

    def is_set(self) -> bool:
        """Whether it is set."""

    def set(self) -> None:
        """Sets it, durably."""

    def clear(self) -> None:
        """Clears it, durably."""


class ShardCopy:
    """Satisfies CopyStore. The record of the shard holds the offset of the log, in the same batch as the rows.

    Without a log that all copies share, every copy stands at offset 0.
    """

    def __init__(self, shard: Shard, mark: Mark) -> None:
        self.number = shard.number
        self._shard = shard
        self._mark = mark
        self._is_marked = mark.is_set()

    @property
    def next_offset(self) -> int:
        return self._shard.status().offset + 1 if self._shard.follows_log else 0

    @property
    def is_complete(self) -> bool:
        return self._is_marked and self._shard.state is not ShardState.QUARANTINED

    def begin(self) -> None:
        self.spoil()
        self._shard.empty()

    def spoil(self) -> None:
        self._is_marked = False
        self._mark.clear()

    def apply(self, log_rows: LogRows) -> None:
        self._shard.follow(log_rows.epoch, log_rows.first_offset, log_rows.next_offset, log_rows.writes)

    def install(self, folder: Path, end: SnapshotEnd) -> None:
        """Puts a snapshot that has arrived in the place of what is here."""
        self._shard.install(folder, end.next_offset, end.content_hash)

    def complete(self) -> None:
        self._mark.set()
        self._is_marked = True

    def drop(self) -> None:
        # What is empty has no content hash; without a log its offsets go on.
        if self._is_marked or self.next_offset or self._shard.status().content_hash:
            self.begin()


def check_new(shards: list[Shard], has_ring: bool) -> None:
    """Raises where a store that was no part of a ring is about to join one: the ring would drop its rows.

    So it does where its rows were ordered by a log and are not to be from now on, or the other way about.
    """
    statuses = [shard.status() for shard in shards if shard.status().offset >= 0]
    follows_log = any(shard.follows_log for shard in shards)
    if has_ring and any(is_log_epoch(one.epoch) != follows_log for one in statuses):
        raise FailedPrecondition(
            "the rows of this data folder are ordered by a log of all copies where the server was started with "
            "--kafka, and by each server where it was not; start it as before, or on a new folder",
            reason="OTHER_LOG",
            field="kafka",
        )
    if not has_ring and statuses:
        raise FailedPrecondition(
            "the data folder holds rows of a server without a ring, which joining one would drop; "
            "start with --ring on a new folder and write the rows again",
            reason="STORE_OUTSIDE_RING",
            field="ring",
        )
