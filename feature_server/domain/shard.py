"""One shard, and what is done to it as a whole: fed by a log, copied, replaced, emptied, walked over, rid of rows."""

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from core_ext.hashing import content_hash_of
from core_ext.row_table import UNKNOWN
from feature_server.domain.log_writes import LogWrite, groups, other_log
from feature_server.domain.row_store import RowStore
from feature_server.domain.shard_core import ShardCore
from feature_server.domain.shard_moves import check_not_logged, moving, other_snapshot
from feature_server.domain.shard_record import HASH_MASK, RECORD_KEY, ShardRecord
from feature_server.domain.shard_state import Position, ShardState, ShardStatus
from feature_server.domain.shard_writes import Durability, Entry, checked
from headrace.errors import DataLoss, HeadraceError, InternalError

__all__ = ["Position", "Shard", "ShardState", "ShardStatus"]


class Shard(ShardCore):
    """Owns the store, the record and the queue of one shard."""

    def follow(self, epoch: int, first_offset: int, next_offset: int, writes: Sequence[LogWrite]) -> bool:
        """Applies a range of the log that all copies share, rows and offset in one batch after the other.

        False, and nothing is changed, where the range does not begin where this copy ends. Raises DataLoss for a range
        of another log, and what a shard raises that takes no writes.
        """
        with self._commit:
            record = self._record
            if record.next_offset != first_offset:
                return False
            store = self._store
            if store is None or self.state is not ShardState.SERVING:
                raise self._unwritable()
            if record.next_offset and record.epoch != epoch:
                raise other_log(self.number, epoch, record.epoch)
            self._record = replace(record, epoch=epoch, epoch_offset=0)
            for group in groups(writes, next_offset):
                self._commit_followed(store, group)
            return True

    def _commit_followed(self, store: RowStore, group: Sequence[Entry]) -> None:
        try:
            self._commit_entries(store, group)
        except HeadraceError as error:
            self._fail(error)
            raise
        except BaseException:
            # Nobody knows whether the table still agrees with the disk: the shard is opened again before it goes on.
            self._table.clear()
            self._set_state(ShardState.READ_ONLY, InternalError("a write failed inside the server", reason="INTERNAL"))
            raise

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
            if not self.follows_log:
                record = replace(record, epoch=max(before.epoch, record.epoch) + 1, epoch_offset=record.next_offset)
                self._take_record(self._write_record(self._store, record))
            self._table.clear()  # of what was read while it closed

    def empty(self) -> None:
        """Drops every row, and goes on in the next epoch: no token of before is good any more.

        A copy that follows a log begins it again. Raises FailedPrecondition where rows are logged for the offline
        store, and what the disk refuses.
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
            record = self._record
            if not self.follows_log:
                next_offset = max(before.next_offset, self._next_offset)
                record = replace(record, epoch=before.epoch + 1, epoch_offset=next_offset, next_offset=next_offset)
            self._take_record(self._write_record(self._store, record))
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
