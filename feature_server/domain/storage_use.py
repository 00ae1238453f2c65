"""What rows take on disk: a walk over shards within a bound of I/O, that neither holds up reads nor fills caches."""

import struct
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

import numpy as np

from core_ext.row_log import split_records
from feature_server.domain.catalogue import Catalogue
from feature_server.domain.layouts import ViewLayout
from feature_server.domain.row_log import LogPosition, RowLog
from feature_server.domain.served_writer import ServedStore
from feature_server.domain.shard import Shard
from feature_server.domain.shard_set import ShardSet
from feature_server.domain.storage_keys import is_record, view_id_of
from headrace.errors import HeadraceError, InvalidArgument, ResourceExhausted
from headrace.serving.principal import Principal

PERMISSION: Final = "REGISTRY_READ"
SCAN_ROWS: Final = 256  # of one step: some hundred microseconds of the interpreter
SCAN_BYTES_PER_S: Final = 64 << 20  # a fraction of what a disk gives, so that reads of cold rows keep theirs
LOG_CHUNK_BYTES: Final = 1 << 20
BUSY_RETRY_MS: Final = 1_000
_TOMBSTONE: Final = 1
_HEAD: Final = struct.Struct("<2xH12xq")  # flags and event time of a row, as native/hr_layout.h
_MICROSECOND: Final = timedelta(microseconds=1)


@dataclass(slots=True)
class ViewUse:
    """Rows of one view version in one shard; bytes are those of keys and rows before compression."""

    view_id: int
    layout: ViewLayout | None
    row_count: int = 0
    row_bytes: int = 0
    expired_count: int = 0
    expired_bytes: int = 0
    tombstone_count: int = 0
    tombstone_bytes: int = 0
    logged_count: int = 0
    logged_bytes: int = 0


@dataclass(slots=True)
class ShardUse:
    """What one shard takes; `problem` says why it could not be measured."""

    shard: int
    measured_us: int
    problem: str = ""
    disk_bytes: int = 0
    row_log_bytes: int = 0
    served_log_bytes: int = 0
    views: dict[int, ViewUse] = field(default_factory=dict)


class StorageUse:
    """Measures shards, one caller at a time."""

    def __init__(
        self,
        shards: ShardSet,
        catalogue: Catalogue,
        clock_us: Callable[[], int],
        served: ServedStore | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._shards = shards
        self._catalogue = catalogue
        self._clock_us = clock_us
        self._served = served
        self._sleep = sleep
        self._monotonic = monotonic
        self._turn = threading.BoundedSemaphore(1)

    def measure(
        self, principal: Principal, numbers: Sequence[int], is_wanted: Callable[[], bool] = lambda: True
    ) -> Iterator[ShardUse]:
        """Shards one by one, all without numbers; ends early when nobody wants it any more. Raises HeadraceError."""
        principal.require(PERMISSION)
        chosen = [self._shard(number) for number in numbers] or self._shards.shards
        with self.turn():
            for place, shard in enumerate(chosen):
                use = ShardUse(shard.number, self._clock_us())
                if place == 0 and self._served is not None:
                    use.served_log_bytes = self._served.status().stored_bytes
                try:
                    self._walk(shard, use, is_wanted)
                except HeadraceError as error:
                    use.problem = error.message
                if not is_wanted():
                    return
                yield use

    @contextmanager
    def turn(self) -> Iterator[None]:
        """One walk over the rows; raises ResourceExhausted while another one goes on."""
        if not self._turn.acquire(blocking=False):
            raise ResourceExhausted(
                "another walk over the rows goes on; try again when it has ended",
                reason="ALREADY_WALKING",
                retry_after_ms=BUSY_RETRY_MS,
            )
        try:
            yield
        finally:
            self._turn.release()

    def _shard(self, number: int) -> Shard:
        if not 0 <= number < len(self._shards):
            raise InvalidArgument(
                f"there is no shard {number}; this store has {len(self._shards)}",
                reason="UNKNOWN_SHARD",
                field="shards",
                metadata={"shard": str(number)},
            )
        return self._shards[number]

    def _walk(self, shard: Shard, use: ShardUse, is_wanted: Callable[[], bool]) -> None:
        use.disk_bytes = shard.disk_bytes()
        start = b""
        while is_wanted():
            begun_s = self._monotonic()
            rows = shard.scan(start, SCAN_ROWS)
            for key, row in rows:
                if not is_record(key):
                    self._count(use, key, row)
            if len(rows) < SCAN_ROWS:
                break
            start = rows[-1][0] + b"\0"
            # At most half of the time, and at most so many bytes a second.
            byte_count = sum(len(row) for _, row in rows)
            self._sleep(max(self._monotonic() - begun_s, byte_count / SCAN_BYTES_PER_S))
        if shard.row_log is not None:
            self._count_log(shard.row_log, use)

    def _count(self, use: ShardUse, key: bytes, row: bytes) -> None:
        one = self._view(use, view_id_of(key))
        byte_count = len(key) + len(row)
        one.row_count += 1
        one.row_bytes += byte_count
        if len(row) < _HEAD.size:
            return  # damaged: the read that finds it says so
        flags, event_us = _HEAD.unpack_from(row)
        if flags & _TOMBSTONE:
            one.tombstone_count += 1
            one.tombstone_bytes += byte_count
            return
        ttl = None if one.layout is None else one.layout.definition.ttl
        if ttl is not None and use.measured_us - event_us >= ttl // _MICROSECOND:
            one.expired_count += 1
            one.expired_bytes += byte_count

    def _count_log(self, row_log: RowLog, use: ShardUse) -> None:
        use.row_log_bytes = row_log.status().stored_bytes
        for chunk in row_log.read(LogPosition(0, 0), LOG_CHUNK_BYTES):
            rows = split_records(chunk.records)
            byte_counts = rows.row_ends - rows.key_starts
            for view_id in np.unique(rows.view_ids).tolist():
                chosen = rows.view_ids == view_id
                one = self._view(use, view_id)
                one.logged_count += int(chosen.sum())
                one.logged_bytes += int(byte_counts[chosen].sum())
            self._sleep(len(chunk.records) / SCAN_BYTES_PER_S)

    def _view(self, use: ShardUse, view_id: int) -> ViewUse:
        if view_id not in use.views:
            use.views[view_id] = ViewUse(view_id, self._catalogue.view_of_id(view_id))
        return use.views[view_id]
