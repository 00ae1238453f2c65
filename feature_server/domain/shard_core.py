"""The heart of a shard: places writes in its log, commits them in order, reads rows, knows whether it answers."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from core_ext.hashing import content_hash_of
from core_ext.row_table import UNKNOWN, RowTable
from feature_server.domain.row_log import RowLog
from feature_server.domain.row_store import RowStore, StoreOpener
from feature_server.domain.shard_moves import moving
from feature_server.domain.shard_record import HASH_MASK, RECORD_KEY, ShardRecord, decode_record
from feature_server.domain.shard_state import Position, ShardState, ShardStatus
from feature_server.domain.shard_writes import Deltas, Durability, Entry, Stamp, checked, logged, newest_rows
from headrace.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    HeadraceError,
    InternalError,
    ResourceExhausted,
    Unavailable,
)
from headrace.serving.logging import EventLog

GROUP_ROWS_MAX: Final = 2_048  # rows of one commit: no step of it holds the interpreter for over half a millisecond
QUEUE_BYTES_MAX: Final = 16 << 20  # of writes that are acknowledged in memory; beyond it the writer commits itself
RETRY_AFTER_MS: Final = 1_000  # what a refused writer is told to wait; the disk is probed that often
WAITER_COUNT_MAX: Final = 4  # of all shards: half of the server's threads, so that others are still served
WAITER_RETRY_MS: Final = 10
WAIT_STEP_S: Final = 1.0


class ShardCore:
    """Owns the store, the record and the queue of one shard.

    Two locks, taken in this order: `_commit` while a group is compared, written and put into the table; `_order` while
    a write gets its time and offset and enters the queue. Reads take none.
    """

    def __init__(  # noqa: PLR0917 - every one is a different thing that the shard is given
        self,
        number: int,
        opener: StoreOpener,
        table: RowTable,
        clock_us: Callable[[], int],
        log: EventLog,
        waiters: threading.BoundedSemaphore,
        row_log: RowLog | None = None,
    ) -> None:
        self.number = number
        self.row_log = row_log
        self.state = ShardState.QUARANTINED
        self.detail = "not opened"
        self._opener = opener
        self._table = table
        self._clock_us = clock_us
        self._log = log
        self._waiters = waiters
        self._store: RowStore | None = None
        self._record = ShardRecord()
        self._commit = threading.Lock()
        self._order = threading.Lock()
        self._applied = threading.Condition()
        self._queue: deque[Entry] = deque()
        self._queued_bytes = 0
        self._next_offset = 0
        self._time_us = 0
        self._has_begun = False
        self._is_frozen = False
        self.follows_log = False  # set before it is opened: offsets and epoch are those of a log that copies share
        self._refusal: HeadraceError | None = None
        self.on_state: Callable[[Any], None] = lambda shard: None  # Any: the shard as its owner knows it
        self.on_applied: Callable[[int, int, int], None] = lambda shard, epoch, offset: None

    # Opening and closing.

    def open(self) -> None:
        """Opens the store. A store that is damaged or cannot be written leaves this shard alone in that state."""
        with self._commit:
            self._open()

    def close(self) -> None:
        """Commits what is queued and closes the store cleanly."""
        with self._commit:
            self._drain()
            self._report_lost(self._queue)
            store, self._store = self._store, None
            if store is None:
                return
            try:
                if self.state is ShardState.SERVING:
                    self._write_record(store, replace(self._record, is_clean=True))
                    store.anchor()
            except HeadraceError as error:
                self._log.error("shard_not_closed_cleanly", shard=self.number, detail=error.message)
            self._close_store(store)
            if self.row_log is not None:
                self.row_log.close()

    def resume(self) -> None:
        """Tries to accept writes again: after a probe of the disk the store is opened anew, never trusted as it is."""
        with self._commit:
            if self.state is not ShardState.READ_ONLY:
                return
            try:
                self._opener.probe()
            except HeadraceError as error:
                self.detail = error.message
                return
            store, self._store = self._store, None
            if store is not None:
                self._close_store(store)
            # What the table knows may have come from a memtable that the disk never saw.
            self._table.clear()
            self._open()

    def quarantine(self, error: DataLoss) -> None:
        """Stops serving: stored bytes failed a check. Other shards go on."""
        self._set_state(ShardState.QUARANTINED, error)
        store, self._store = self._store, None
        if store is not None:
            self._close_store(store)

    # Reading.

    def read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Stored rows in the order of the keys, not yet checked."""
        store = self._store
        if store is None:
            raise self._unreadable()
        try:
            return store.get_many(keys)
        except DataLoss as error:
            self.quarantine(error)
            raise

    def read_known(self, keys: Sequence[bytes]) -> tuple[list[bytes | None], int]:
        """Checked rows and a write time: the rows hold every write up to that time, and later ones get a later time.

        Commits what is queued, and holds the writes of this shard back while it reads.
        """
        with self._commit:
            known_us = self._fence()
            store = self._store
            if store is None:
                raise self._unreadable()
            try:
                return self._stored(store, keys), known_us
            except DataLoss as error:
                self.quarantine(error)
                raise

    def wait_for(self, epoch: int, offset: int, deadline_s: float) -> None:
        """Returns when the log is past an offset; raises DeadlineExceeded at a time of the monotonic clock."""
        record = self._record
        if epoch == record.epoch - 1 and offset < record.epoch_offset:
            return
        has_begun = bool(record.next_offset) or not self.follows_log
        if epoch != record.epoch and has_begun:
            raise FailedPrecondition(
                f"shard {self.number} is in epoch {record.epoch}, and the token is of epoch {epoch}: "
                "a restart may have lost that write; write it again",
                reason="EPOCH_MISMATCH",
                field="options.min_offsets",
                metadata={"shard": str(self.number), "epoch": str(epoch), "shard_epoch": str(record.epoch)},
            )
        if offset >= record.next_offset:
            self._await_offset(offset, deadline_s)

    def status(self) -> ShardStatus:
        """State and position now."""
        record = self._record
        return ShardStatus(
            self.number, record.epoch, record.next_offset - 1, self.state, record.content_hash, self.detail
        )

    # Writing.

    def append(
        self,
        keys: Sequence[bytes],
        stamp: Stamp,
        durability: Durability,
        *,
        is_logged: bool = True,
        deltas: Deltas | None = None,
        records: Mapping[bytes, bytes] | None = None,
    ) -> tuple[Position, int]:
        """Writes rows; returns the position of the last one and how many were older than what is stored.

        MEMORY returns when the rows are queued and counts none as older. Rows that come from the offline store are not
        logged for it again. With `deltas` a row is merged with what is stored; one that would grow beyond what a row
        may hold refuses the whole write. `records` are kept beside the rows, in the same batch as them.
        """
        assert not self.follows_log, "what a log orders comes by `follow`"
        with self._order:
            self.check_writable()
            time_us = max(self._clock_us(), self._time_us)
            rows = stamp(time_us, self._next_offset)
            self._time_us = time_us
            self._next_offset += len(keys) if deltas is None else deltas.offset_count
            entry = Entry(keys, rows, durability, self._next_offset, time_us, deltas)
            entry.is_logged = is_logged
            entry.records = records or {}
            self._queue.append(entry)
            self._queued_bytes += entry.byte_count
            is_queued = durability is Durability.MEMORY and self._queued_bytes <= QUEUE_BYTES_MAX
        if not is_queued:
            self._commit_through(entry)
            if entry.error is not None:
                raise entry.error
        return Position(self.number, self._record.epoch, entry.next_offset - 1), entry.stale_count

    def commit_queued(self) -> None:
        """Commits what was acknowledged in memory."""
        with self._commit:
            self._drain()

    @property
    def has_queued(self) -> bool:
        """Whether writes wait for their commit."""
        return bool(self._queue)

    @property
    def highest_id(self) -> int:
        """Highest registry id that this shard has seen."""
        return self._record.highest_id

    def note_highest_id(self, highest_id: int) -> None:
        """Remembers the highest registry id, so that an older registry is refused later."""
        with self._commit:
            store = self._store
            if store is None or self.state is not ShardState.SERVING or highest_id <= self._record.highest_id:
                return
            try:
                self._record = self._write_record(store, replace(self._record, highest_id=highest_id))
            except HeadraceError as error:
                self._fail(error)

    def _await_offset(self, offset: int, deadline_s: float) -> None:
        # Takes the lock of readers itself.
        if not self._waiters.acquire(blocking=False):
            raise ResourceExhausted(
                f"{WAITER_COUNT_MAX} reads already wait for their min_offsets; try again",
                reason="TOO_MANY_WAITERS",
                field="options.min_offsets",
                retry_after_ms=WAITER_RETRY_MS,
            )
        try:
            with self._applied:
                while self._record.next_offset <= offset:
                    remaining_s = min(deadline_s - time.monotonic(), WAIT_STEP_S)
                    if remaining_s <= 0:
                        raise DeadlineExceeded(
                            f"shard {self.number} has not reached offset {offset}; "
                            f"it is at {self._record.next_offset - 1}",
                            reason="MIN_OFFSET_NOT_REACHED",
                            field="options.min_offsets",
                            metadata={"shard": str(self.number), "offset": str(offset)},
                        )
                    self._applied.wait(remaining_s)
        finally:
            self._waiters.release()

    # Below: with `_commit` held, unless said otherwise.

    def _open(self) -> None:
        try:
            store = self._opener.open()
        except DataLoss as error:
            self._set_state(ShardState.QUARANTINED, error)
            return
        except HeadraceError as error:
            self._open_read_only(error)
            return
        try:
            self._begin_epoch(store)
        except DataLoss as error:
            self._close_store(store)
            self._set_state(ShardState.QUARANTINED, error)
            return
        except HeadraceError as error:
            self._close_store(store)
            self._open_read_only(error)
            return
        self._store = store
        self._set_state(ShardState.SERVING, None)

    def _open_read_only(self, cause: HeadraceError) -> None:
        try:
            store = self._opener.open_read_only()
            data = store.get(RECORD_KEY)
            self._take_record(decode_record(data) if data is not None else ShardRecord())
        except DataLoss as error:
            self._set_state(ShardState.QUARANTINED, error)
            return
        except HeadraceError as error:
            # Not readable now, and not damaged as far as anybody knows: resume tries again.
            self._set_state(ShardState.READ_ONLY, error)
            return
        self._store = store
        self._set_state(ShardState.READ_ONLY, cause)

    def _begin_epoch(self, store: RowStore) -> None:
        data = store.get(RECORD_KEY)
        record = decode_record(data) if data is not None else ShardRecord()
        if self.row_log is not None:
            self.row_log.open(record.epoch, record.epoch_offset, record.next_offset)
        if not self._has_begun and not record.is_clean and not self.follows_log:
            # Offsets after the last durable one may have been acknowledged in memory and lost: tokens of the old
            # epoch hold only below here.
            record = replace(record, epoch=record.epoch + 1, epoch_offset=record.next_offset)
        self._take_record(self._write_record(store, replace(record, is_clean=False)))
        self._has_begun = True  # opened again by this process, the shard goes on in its epoch
        store.anchor()

    def _close_store(self, store: RowStore) -> None:
        # A damaged or failing store may not close cleanly; that is no reason to stop the other shards. What it could
        # not flush lies in its log.
        try:
            store.close()
        except HeadraceError as error:
            self._log.error("store_not_closed", shard=self.number, reason=error.reason, detail=error.message)

    def _take_record(self, record: ShardRecord) -> None:
        with self._order:
            self._record = record
            self._next_offset = max(self._next_offset, record.next_offset)
            self._time_us = max(self._time_us, record.write_time_us)
        self.on_applied(self.number, record.epoch, record.next_offset - 1)

    def _write_record(self, store: RowStore, record: ShardRecord) -> ShardRecord:
        store.write([RECORD_KEY], [record.encode()], sync=True)
        return record

    def _commit_through(self, entry: Entry) -> None:
        # Takes the lock itself. Whoever holds it commits the writes of those who wait, in one go.
        with self._commit:
            while not entry.is_done:
                self._commit_group()

    def _fence(self) -> int:
        """A time such that every write up to it is committed, and every later write gets a later one."""
        while True:
            self._drain()
            with self._order:
                if not self._queue:
                    known_us = max(self._clock_us(), self._time_us)
                    self._time_us = known_us + 1
                    return known_us
                if self.state is not ShardState.SERVING:
                    raise self._unwritable()

    def _drain(self) -> None:
        while self._queue and self.state is ShardState.SERVING:
            self._commit_group()

    def _commit_group(self) -> None:
        entries = self._next_group()
        store = self._store
        try:
            if store is None or self.state is not ShardState.SERVING:
                raise self._unwritable()
            self._commit_entries(store, entries)
        except HeadraceError as error:
            if self.state is ShardState.SERVING:
                self._fail(error)
            # A writer is told when to try again, not only what the disk said.
            self._give_back(entries, self._unwritable() if self.state is ShardState.READ_ONLY else error)
        except BaseException:
            # Our bug, or no memory: nobody knows whether the record and the table still agree with the disk, so that
            # the shard is opened again before it takes another write.
            self._table.clear()
            failure = InternalError("a write failed inside the server", reason="INTERNAL")
            self._set_state(ShardState.READ_ONLY, failure)
            self._give_back(entries, failure)
            raise

    def _next_group(self) -> list[Entry]:
        entries: list[Entry] = []
        row_count = 0
        with self._order:
            while self._queue and (not entries or row_count + len(self._queue[0].keys) <= GROUP_ROWS_MAX):
                entry = self._queue.popleft()
                self._queued_bytes -= entry.byte_count
                row_count += len(entry.keys)
                entries.append(entry)
        return entries

    def _give_back(self, entries: Sequence[Entry], error: HeadraceError) -> None:
        # What was acknowledged in memory waits for the disk to come back; the others are told.
        kept = [entry for entry in entries if entry.durability is Durability.MEMORY]
        if self.state is ShardState.QUARANTINED:
            self._report_lost(kept)
            kept = []
        with self._order:
            self._queue.extendleft(reversed(kept))
            self._queued_bytes += sum(entry.byte_count for entry in kept)
        for entry in entries:
            entry.error = error
            entry.is_done = True

    def _report_lost(self, entries: Iterable[Entry]) -> None:
        row_count = sum(len(entry.keys) for entry in entries)
        if row_count:
            self._log.error("memory_writes_lost", shard=self.number, row_count=row_count)

    def _commit_entries(self, store: RowStore, entries: Sequence[Entry]) -> None:
        if len(entries) == 1:
            keys, rows = entries[0].keys, entries[0].rows
        else:
            keys = [key for entry in entries for key in entry.keys]
            rows = [row for entry in entries for row in entry.rows]
        stored = self._stored(store, keys)
        kept = dict(zip(keys, rows, strict=True))
        hashed = self._record.content_hash
        if len(kept) < len(keys) or any(stored) or any(entry.deltas for entry in entries):
            kept, hashed = newest_rows(entries, stored, hashed)
        last = entries[-1]
        record = replace(
            self._record,
            next_offset=last.next_offset,
            content_hash=hashed + content_hash_of(kept) & HASH_MASK,
            write_time_us=last.time_us,
        )
        records = {key: value for entry in entries if entry.error is None for key, value in entry.records.items()}
        records[RECORD_KEY] = record.encode()
        sync = any(entry.durability is Durability.FSYNC for entry in entries)
        if self.row_log is not None:
            self.row_log.append(record.epoch, [logged(entry) for entry in entries], sync=sync)
        store.write([*kept, *records], [*kept.values(), *records.values()], sync=sync)
        if self.row_log is not None:
            self.row_log.publish()
        if kept:
            self._table.apply(list(kept), list(kept.values()))
        for entry in entries:
            entry.is_done = True
        with self._applied:
            self._record = record
            self._applied.notify_all()
        self.on_applied(self.number, record.epoch, record.next_offset - 1)

    def _stored(self, store: RowStore, keys: Sequence[bytes]) -> list[bytes | None]:
        # The table knows the newest row of what it holds: every commit passes through it.
        found = self._table.lookup(keys)
        if found.count(UNKNOWN) == len(found):
            rows = store.get_many(keys)
            if any(rows):
                rows = [None if row is None else checked(row) for row in rows]
            return rows
        unknown = [index for index, row in enumerate(found) if isinstance(row, int)]  # UNKNOWN
        rows = [None if isinstance(row, int) else row for row in found]
        if unknown:
            for index, row in zip(unknown, store.get_many([keys[index] for index in unknown]), strict=True):
                rows[index] = None if row is None else checked(row)
        return rows

    def _fail(self, error: HeadraceError) -> None:
        if isinstance(error, DataLoss):
            self.quarantine(error)
        else:
            self._set_state(ShardState.READ_ONLY, error)

    def _set_state(self, state: ShardState, cause: HeadraceError | None) -> None:
        self.state = state
        self.detail = cause.message if cause is not None else ""
        self._refusal = cause
        if cause is None:
            self._log.info("shard_serving", shard=self.number, epoch=self._record.epoch)
        else:
            self._log.error("shard_state", shard=self.number, state=state.name, reason=cause.reason, detail=self.detail)
        self.on_state(self)

    # Refusals; no lock needed.

    def check_writable(self) -> None:
        """Raises why this shard accepts no writes now."""
        if self._is_frozen:
            raise moving(self.number)
        if self.state is not ShardState.SERVING:
            raise self._unwritable()
        if self.row_log is not None:
            self.row_log.check_room()

    def _unwritable(self) -> HeadraceError:
        if self.state is ShardState.QUARANTINED:
            return self._unreadable()
        kind = ResourceExhausted if isinstance(self._refusal, ResourceExhausted) else Unavailable
        reason = self._refusal.reason if self._refusal is not None else "SHARD_READ_ONLY"
        return kind(
            f"shard {self.number} accepts no writes now: {self.detail}; reads go on, try again later",
            reason=reason,
            metadata={"shard": str(self.number)},
            retry_after_ms=RETRY_AFTER_MS,
        )

    def _unreadable(self) -> HeadraceError:
        if self.state is ShardState.QUARANTINED:
            return DataLoss(
                f"shard {self.number} is quarantined: {self.detail}; it must be rebuilt",
                reason="SHARD_QUARANTINED",
                metadata={"shard": str(self.number)},
            )
        return Unavailable(
            f"shard {self.number} is being opened again; try again",
            reason="SHARD_OPENING",
            metadata={"shard": str(self.number)},
            retry_after_ms=RETRY_AFTER_MS,
        )
