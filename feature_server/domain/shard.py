"""One shard, and what is done to it as a whole: copied, replaced, emptied, walked over, rid of rows nobody reads."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core_ext.hashing import content_hash_of
from core_ext.row_table import UNKNOWN
from feature_server.domain.row_store import RowStore
from feature_server.domain.shard_core import ShardCore
from feature_server.domain.shard_moves import check_not_logged, moving, other_snapshot
from feature_server.domain.shard_record import HASH_MASK, RECORD_KEY, ShardRecord
from feature_server.domain.shard_state import Position, ShardState, ShardStatus
from feature_server.domain.shard_writes import Durability, checked
from headrace.errors import DataLoss, HeadraceError

__all__ = ["Position", "Shard", "ShardState", "ShardStatus"]


class Shard(ShardCore):
    """Owns the store, the record and the queue of one shard."""

    def freeze(self) -> None:
        """Takes no writes until `thaw`: what was taken before is all that a snapshot has to hold."""
        with self._order:
            self._is_frozen = True

    def thaw(self) -> None:
        """Takes writes again."""
        with self._order:
            self._is_frozen = False

    def snapshot(self, folder: Path) -> ShardRecord:
        """Leaves a copy of all that was acknowledged in a new folder; its record says how far it is."""
        with self._commit:
            store = self._store
            if store is None or self.state is not ShardState.SERVING:
                raise self._unwritable() if store is not None else self._unreadable()
            self._drain()
            if self.state is not ShardState.SERVING:
                raise self._unwritable()  # what was acknowledged in memory is not in the store
            try:
                store.checkpoint(folder)
            except DataLoss as error:
                self.quarantine(error)
                raise
            return self._record

    def install(self, folder: Path, next_offset: int, content_hash: int) -> None:
        """Puts a snapshot in the place of what is here, in an epoch after that of both; raises DataLoss for another."""
        with self._commit:
            before = self._record
            self._close_for_good()
            self._opener.install(folder)
            self._open()
            record = self._record
            if self._store is None or self.state is not ShardState.SERVING:
                raise self._unwritable()
            if (record.next_offset, record.content_hash) != (next_offset, content_hash):
                lost = other_snapshot(self.number)
                self.quarantine(lost)
                raise lost
            epoch = max(before.epoch, record.epoch) + 1
            self._take_record(
                self._write_record(self._store, replace(record, epoch=epoch, epoch_offset=record.next_offset))
            )
            self._table.clear()  # of what was read while it closed

    def empty(self) -> None:
        """Drops every row, and goes on in the next epoch: no token of before is good any more.

        Raises FailedPrecondition where rows are logged for the offline store, and what the disk refuses.
        """
        with self._commit:
            if self.state is ShardState.SERVING and not self._record.next_offset and not self._queue:
                return
            before = self._record
            self._close_for_good()
            self._opener.remove()
            self._open()
            if self._store is None or self.state is not ShardState.SERVING:
                raise self._unwritable()
            next_offset = max(before.next_offset, self._next_offset)
            self._take_record(
                self._write_record(
                    self._store,
                    replace(self._record, epoch=before.epoch + 1, epoch_offset=next_offset, next_offset=next_offset),
                )
            )
            self._table.clear()  # of what was read while it closed

    def _close_for_good(self) -> None:
        # With `_commit` held: what was here is not wanted any more.
        check_not_logged(self.number, self.row_log)
        store, self._store = self._store, None
        if store is not None:
            self._close_store(store)
        with self._order:
            lost, self._queue, self._queued_bytes = list(self._queue), deque(), 0
        for entry in lost:
            entry.error, entry.is_done = moving(self.number), True
        self._report_lost([entry for entry in lost if entry.durability is Durability.MEMORY])
        self._table.clear()

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Up to so many keys from `start` on, with their rows, not yet checked; the record of the shard is one."""
        store = self._store
        if store is None:
            raise self._unreadable()
        return store.scan(start, count)

    def disk_bytes(self) -> int:
        """Bytes of its files."""
        store = self._store
        if store is None:
            raise self._unreadable()
        return store.disk_bytes()

    def remove(self, keys: Sequence[bytes]) -> tuple[int, int]:
        """Takes stored rows away that no read may ask for any more; how many rows there were, and their bytes.

        They take no offset and do not enter the row log.
        """
        with self._commit:
            store = self._store
            if store is None or self.state is not ShardState.SERVING:
                raise self._unwritable()
            try:
                return self._remove(store, keys)
            except HeadraceError as error:
                self._fail(error)
                raise

    def _remove(self, store: RowStore, keys: Sequence[bytes]) -> tuple[int, int]:
        found = zip(keys, store.get_many(keys), strict=True)
        rows = {key: checked(row) for key, row in found if row is not None}
        if not rows:
            return 0, 0
        record = replace(self._record, content_hash=self._record.content_hash - content_hash_of(rows) & HASH_MASK)
        store.replace(rows, {RECORD_KEY: record.encode()})
        # Written once more as they were, so that a fill that was read before the removal is dropped; then forgotten.
        self._table.apply(list(rows), list(rows.values()))
        held = [key for key in rows if self._table.lookup([key]) != [UNKNOWN]]
        while held:
            self._table.fill(held, [None] * len(held), self._table.ticket())
            held = [key for key in held if isinstance(self._table.lookup([key])[0], bytes)]
        self._record = record
        return len(rows), sum(len(key) + len(row) for key, row in rows.items())
