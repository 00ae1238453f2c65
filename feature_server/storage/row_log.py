"""Row log of one shard in segment files: written before the store, cut where the store stands, dropped when drained."""

import errno
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Final

from core_ext.row_log import Record, encode_record, record_bytes
from feature_server.domain.row_log import LogChunk, LogEntry, LogPosition, RowLogStatus
from feature_server.storage.files import read_file, sync_folder, write_file
from feature_server.storage.row_log_files import (
    SEGMENT_HEAD_BYTES,
    Segment,
    damaged,
    read_segments,
    records_after,
    records_of,
    segment_head,
    segment_path,
)
from headrace.errors import Aborted, HeadraceError, InvalidArgument, ResourceExhausted, Unavailable
from headrace.serving.logging import EventLog

SEGMENT_BYTES_MAX: Final = 16 << 20  # what is synced when a segment ends, and the least that an acknowledgement frees
SEGMENTS_MIN: Final = 8  # of a log that is full, so that acknowledging a part of it makes room
RECORD_BYTES_TARGET: Final = 8 << 20  # a write of more becomes several records
WARN_SHARE: Final = 0.8  # of the limit; below half of it the warning is over
CALM_SHARE: Final = 0.5
RETRY_AFTER_MS: Final = 5_000  # a drain takes seconds
ACKNOWLEDGED_NAME: Final = "acknowledged"
START: Final = LogPosition(0, 0)

_NUMBER_BYTES: Final = 8
_FULL_NUMBERS: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


class SegmentLog:
    """One writer, which holds the commit of its shard; any number of readers; `acknowledge` from any thread."""

    def __init__(self, folder: Path, bytes_max: int, log: EventLog) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._segment_bytes = max(SEGMENT_HEAD_BYTES, min(SEGMENT_BYTES_MAX, bytes_max // SEGMENTS_MIN))
        self._log = log
        self._lock = threading.Lock()  # of the list of segments and what it sums up to
        self._acknowledging = threading.Lock()  # never waited for by the writer, as it is held while the disk syncs
        self._segments: list[Segment] = []
        self._stored_bytes = 0
        self._acknowledged = START
        self._descriptor: int | None = None  # of the last segment
        self._written = 0  # bytes of the last segment that hold whole records
        self._end = START
        self._published = (0, 0, START)  # last segment, its bytes, position: all that readers may see
        self._is_open = False
        self._is_warned = False

    def open(self, epoch: int, epoch_offset: int, next_offset: int) -> None:
        """Finds the end of what the store committed and drops what lies behind it."""
        self.close()
        try:
            if not self._folder.exists():
                self._folder.mkdir()
                sync_folder(self._folder.parent)
            self._acknowledged = self._read_acknowledged()
            with self._lock:
                self._segments = read_segments(self._folder)
            self._cut(epoch, epoch_offset, next_offset)
            if self._segments:
                self._open_last()
        except OSError as error:
            raise self._failed(error) from error
        is_new = not self._segments and self._acknowledged == START
        if not is_new and self._end.next_offset < next_offset:
            self._log.error(
                "row_log_rows_missing",
                folder=self._folder.name,
                first_offset=self._end.next_offset,
                next_offset=next_offset,
                detail="committed while the log was off, or lost in a power cut without FSYNC; the offline store "
                "will not have them",
            )
        self._end = LogPosition(epoch, next_offset)
        self.publish()
        self._is_open = True

    def check_room(self) -> None:
        """Raises ResourceExhausted where the log is full."""
        if self._stored_bytes >= self._bytes_max and self._acknowledged < self._end:
            raise ResourceExhausted(
                f"row log {self._folder.name} holds {self._stored_bytes} bytes that are not drained into the offline "
                f"store, at most {self._bytes_max}: see why the drain worker stands still, or raise --row-log-bytes",
                reason="ROW_LOG_FULL",
                metadata={"row_log": self._folder.name, "stored_bytes": str(self._stored_bytes)},
                retry_after_ms=RETRY_AFTER_MS,
            )

    def append(self, epoch: int, entries: Sequence[LogEntry], *, sync: bool) -> None:
        """Writes the records of one group."""
        records = [record for entry in entries for record in _records(epoch, entry)]
        try:
            data = records[0] if len(records) == 1 else b"".join(records)
            first = LogPosition(epoch, entries[0].next_offset - len(entries[0].rows))
            if self._descriptor is None or self._written + len(data) > self._segment_bytes:
                self._begin_segment(first)
            assert self._descriptor is not None, "a segment has begun"
            self._write(self._descriptor, data)
            if sync:
                os.fdatasync(self._descriptor)
        except OSError as error:
            raise self._failed(error) from error
        self._end = LogPosition(epoch, entries[-1].next_offset)
        if self._stored_bytes > WARN_SHARE * self._bytes_max and not self._is_warned:
            self._is_warned = True
            self._log.warning(
                "row_log_filling", folder=self._folder.name, stored_bytes=self._stored_bytes, bytes_max=self._bytes_max
            )

    def publish(self) -> None:
        """Lets readers have what was appended."""
        number = self._segments[-1].number if self._segments else 0
        self._published = (number, self._written, self._end)

    def read(self, start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
        """Chunks of at least one record and otherwise at most `chunk_bytes`."""
        if not self._is_open:
            raise Unavailable(f"row log {self._folder.name} is not open", reason="ROW_LOG_CLOSED")
        last, last_bytes, end = self._published
        with self._lock:
            segments = [segment for segment in self._segments if segment.number <= last]
        start = max(start, self._acknowledged)
        begun = [segment for segment, following in pairwise(segments) if following.first > start] + segments[-1:]
        if start >= end or not begun:
            return
        for segment in begun:
            held = last_bytes if segment.number == last else segment.byte_count
            yield from _chunks(self._records(segment, held), start, chunk_bytes)

    def acknowledge(self, position: LogPosition) -> None:
        """Remembers the position durably, then drops the segments before it."""
        end = self._published[2]
        if position > end:
            raise InvalidArgument(
                f"position {position.epoch}:{position.next_offset} lies behind the end {end.epoch}:{end.next_offset} "
                f"of {self._folder.name}",
                reason="NOT_COMMITTED",
                field="next_offset",
            )
        if not self._is_open:
            raise Unavailable(f"row log {self._folder.name} is not open", reason="ROW_LOG_CLOSED")
        with self._acknowledging:
            if position <= self._acknowledged:
                return
            data = b"".join(number.to_bytes(_NUMBER_BYTES, "little") for number in position)
            write_file(self._folder / ACKNOWLEDGED_NAME, data)
            self._acknowledged = position
            with self._lock:
                done = [segment for segment, following in pairwise(self._segments) if following.first <= position]
                del self._segments[: len(done)]
                self._stored_bytes -= sum(segment.byte_count for segment in done)
            for segment in done:
                segment_path(self._folder, segment.number).unlink(missing_ok=True)
            if self._stored_bytes < CALM_SHARE * self._bytes_max:
                self._is_warned = False

    def status(self) -> RowLogStatus:
        """State now."""
        return RowLogStatus(self._stored_bytes, self._bytes_max, self._acknowledged, self._published[2])

    def close(self) -> None:
        """Lets go of the files; readers that have begun go on."""
        self._is_open = False
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    # Below: with the commit of the shard held.

    def _begin_segment(self, first: LogPosition) -> None:
        if self._descriptor is not None:
            # So that a power cut never tears a segment that others follow.
            os.fdatasync(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = None
        number = self._segments[-1].number + 1 if self._segments else self._next_number()
        path = segment_path(self._folder, number)
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        self._written = 0
        with self._lock:
            self._segments.append(Segment(number, first, 0))
        self._write(self._descriptor, segment_head(number))
        sync_folder(self._folder)

    def _next_number(self) -> int:
        return 1 + max((int(path.stem) for path in self._folder.glob("*.rows")), default=0)

    def _write(self, descriptor: int, data: bytes) -> None:
        written = os.pwrite(descriptor, data, self._written)
        while written < len(data):
            written += os.pwrite(descriptor, data[written:], self._written + written)
        self._written += len(data)
        with self._lock:
            last = self._segments[-1]
            self._segments[-1] = last._replace(byte_count=self._written)
            self._stored_bytes += len(data)

    def _cut(self, epoch: int, epoch_offset: int, next_offset: int) -> None:
        """Ends the log at the last record that the store has committed."""

        def is_committed(position: LogPosition) -> bool:
            # What an older epoch wrote behind the beginning of this one was lost by the store before this one began.
            if position.epoch < epoch:
                return position.next_offset <= epoch_offset
            return position <= LogPosition(epoch, next_offset)

        self._end = self._acknowledged
        while self._segments:
            segment = self._segments[-1]
            whole = self._committed_bytes(segment, is_committed)
            if whole > SEGMENT_HEAD_BYTES:
                self._segments[-1] = segment._replace(byte_count=whole)
                break
            segment_path(self._folder, self._segments.pop().number).unlink()
        self._stored_bytes = sum(segment.byte_count for segment in self._segments)

    def _committed_bytes(self, segment: Segment, is_committed: Callable[[LogPosition], bool]) -> int:
        path = segment_path(self._folder, segment.number)
        whole = SEGMENT_HEAD_BYTES
        with path.open("rb") as file:
            for record, _ in records_of(file.fileno(), whole, segment.byte_count):
                position = LogPosition(record.epoch, record.next_offset)
                if not is_committed(position):
                    return whole
                whole = record.start + record.size
                self._end = max(self._end, position)
            # A crash tears the end; where what was committed follows, stored bytes have changed.
            later = records_after(file.fileno(), whole, segment.byte_count)
            if any(is_committed(LogPosition(record.epoch, record.next_offset)) for record in later):
                raise damaged(self._folder, f"{path.name} is broken at byte {whole}")
        return whole

    def _open_last(self) -> None:
        segment = self._segments[-1]
        self._descriptor = os.open(segment_path(self._folder, segment.number), os.O_RDWR | os.O_CLOEXEC)
        os.ftruncate(self._descriptor, segment.byte_count)
        self._written = segment.byte_count

    def _records(self, segment: Segment, end: int) -> Iterator[tuple[Record, bytes]]:
        path = segment_path(self._folder, segment.number)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise Aborted(
                f"{self._folder.name} was acknowledged while it was read; read it again", reason="ROW_LOG_MOVED"
            ) from error
        try:
            at = SEGMENT_HEAD_BYTES
            for record, data in records_of(descriptor, at, end):
                at = record.start + record.size
                yield record, data
            if at < end:
                raise damaged(self._folder, f"{path.name} is broken at byte {at}")
        finally:
            os.close(descriptor)

    def _read_acknowledged(self) -> LogPosition:
        data = read_file(self._folder / ACKNOWLEDGED_NAME)
        if data is None:
            return START
        epoch, next_offset = (
            int.from_bytes(data[at : at + _NUMBER_BYTES], "little") for at in range(0, 2 * _NUMBER_BYTES, _NUMBER_BYTES)
        )
        return LogPosition(epoch, next_offset)

    def _failed(self, error: OSError) -> HeadraceError:
        facts = {"folder": self._folder.name}
        if error.errno in _FULL_NUMBERS:
            return ResourceExhausted(f"the disk is full: {error.strerror}", reason="DISK_FULL", metadata=facts)
        return Unavailable(f"the disk refuses: {error.strerror}", reason="STORAGE_READ_ONLY", metadata=facts)


def _records(epoch: int, entry: LogEntry) -> Iterator[bytes]:
    keys, rows = list(entry.keys), list(entry.rows)
    first = entry.next_offset - len(rows)
    if not rows or record_bytes(keys, rows) <= RECORD_BYTES_TARGET:
        yield encode_record(epoch, first, entry.next_offset, keys, rows)
        return
    begun = byte_count = 0
    for index, (key, row) in enumerate(zip(keys, rows, strict=True)):
        if index > begun and byte_count + len(key) + len(row) > RECORD_BYTES_TARGET:
            yield encode_record(epoch, first + begun, first + index, keys[begun:index], rows[begun:index])
            begun, byte_count = index, 0
        byte_count += len(key) + len(row)
    yield encode_record(epoch, first + begun, entry.next_offset, keys[begun:], rows[begun:])


def _chunks(records: Iterator[tuple[Record, bytes]], start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
    held: list[bytes] = []
    byte_count = 0
    first = last = None
    for record, data in records:
        if LogPosition(record.epoch, record.next_offset) <= start:
            continue
        is_full = first is not None and (record.epoch != first.epoch or byte_count + record.size > chunk_bytes)
        if is_full and first is not None and last is not None:
            yield LogChunk(first.epoch, first.first_offset, last.next_offset, b"".join(held))
            held, byte_count, first = [], 0, None
        first = first or record
        last = record
        held.append(data)
        byte_count += record.size
    if first is not None and last is not None:
        yield LogChunk(first.epoch, first.first_offset, last.next_offset, b"".join(held))
