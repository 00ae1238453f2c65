"""Segment files of the log of served answers: bounded, whole frames, gone when they are acknowledged."""

import os
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Final

from feature_server.domain.row_log import LogChunk, LogPosition, RowLogStatus
from headrace.errors import InvalidArgument, Unavailable
from headrace.served import encode_frame, whole_frames
from headrace.serving.logging import EventLog

SUFFIX: Final = ".served"
SEGMENT_BYTES: Final = 8 << 20


@dataclass(slots=True)
class _Segment:
    """One file. Answers of it are numbered [first, next) in its epoch."""

    path: Path
    epoch: int
    first: int
    next: int
    byte_count: int

    @property
    def end(self) -> LogPosition:
        return LogPosition(self.epoch, self.next)


class ServedSegments:
    """Every start begins an epoch, so that what a power cut took from the last one is never confused with what follows.

    Written without sync: a killed process loses nothing of it. Any thread may call.
    """

    def __init__(self, folder: Path, bytes_max: int, log: EventLog, segment_bytes: int = SEGMENT_BYTES) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._segment_bytes = min(segment_bytes, max(bytes_max // 4, 1))
        self._log = log
        self._lock = threading.Lock()
        self._acknowledged = LogPosition(0, 0)
        self._file: FileIO | None = None
        self._is_torn = False  # half a frame may lie behind the last one, and the disk refused to cut it off
        try:
            folder.mkdir(parents=True, exist_ok=True)
            found = [_opened(path) for path in sorted(folder.glob(f"*{SUFFIX}"))]
            self._segments = [segment for segment in found if segment.byte_count]
            epoch = max((segment.epoch for segment in found), default=0) + 1
            self._begin(epoch, 0)
            # Only now: the names of empty segments are all that may say which epochs there were.
            for segment in found:
                if not segment.byte_count:
                    segment.path.unlink()
        except OSError as error:
            raise Unavailable(
                f"the log of served answers in {folder} cannot be used: {error.strerror}; look at its rights and space",
                reason="SERVED_LOG_UNUSABLE",
                metadata={"folder": str(folder)},
            ) from error

    def append(self, stream: bytes, row_count: int) -> bool:
        """Writes a frame; False where the log is full, or the disk refuses it."""
        with self._lock:
            if self._is_torn:
                self._cut()
            if self._is_torn:
                return False
            segment = self._segments[-1]
            frame = encode_frame(segment.next, row_count, stream)
            if self._stored_bytes() + len(frame) > self._bytes_max:
                return False
            try:
                if segment.byte_count and segment.byte_count + len(frame) > self._segment_bytes:
                    self._begin(segment.epoch, segment.next)
                    segment = self._segments[-1]
                self._write(frame)
            except OSError as error:
                self._log.error("served_log_not_written", detail=str(error))
                self._cut()
                return False
            segment.next += row_count
            segment.byte_count += len(frame)
            return True

    def read(self, start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
        """Whole frames from a position on, up to now."""
        with self._lock:
            wanted = [(one.path, one.epoch, one.byte_count) for one in self._segments if one.end > start]
        for path, epoch, byte_count in wanted:
            try:
                with path.open("rb") as file:
                    data = file.read(byte_count)
            except FileNotFoundError:  # acknowledged meanwhile
                continue
            yield from _chunks(data, epoch, start, chunk_bytes)

    def acknowledge(self, position: LogPosition) -> None:
        """Drops segments whose answers all lie before a position; the one that is written to stays."""
        with self._lock:
            end = self._segments[-1].end
            if position > end:
                raise InvalidArgument(
                    f"position {position.epoch}:{position.next_offset} lies behind the log, which ends at "
                    f"{end.epoch}:{end.next_offset}",
                    reason="POSITION_BEHIND_LOG",
                    field="position",
                )
            self._acknowledged = max(self._acknowledged, position)
            done = [one for one in self._segments[:-1] if one.end <= position]
            self._segments = [one for one in self._segments if one not in done]
        for segment in done:
            segment.path.unlink(missing_ok=True)

    def status(self) -> RowLogStatus:
        """State now."""
        with self._lock:
            return RowLogStatus(self._stored_bytes(), self._bytes_max, self._acknowledged, self._segments[-1].end)

    def close(self) -> None:
        """Brings what is written to stable storage and lets go of the file."""
        with self._lock:
            self._close_file()

    def _stored_bytes(self) -> int:
        return sum(segment.byte_count for segment in self._segments)

    def _begin(self, epoch: int, first: int) -> None:
        path = self._folder / f"{epoch:010}-{first:016}{SUFFIX}"
        file = FileIO(path, "a")
        try:
            self._close_file()
        except OSError:
            file.close()
            raise
        self._file = file
        self._segments.append(_Segment(path, epoch, first, first, 0))

    def _write(self, frame: bytes) -> None:
        assert self._file is not None, "a closed log takes nothing"
        if self._file.write(frame) != len(frame):
            raise OSError("the disk took a part of a frame")

    def _close_file(self) -> None:
        if self._file is not None:
            os.fsync(self._file.fileno())
            self._file.close()
            self._file = None

    def _cut(self) -> None:
        # Half a frame would hide those behind it: where it cannot be cut off, they go to another file; where there is
        # none either, the next append tries again.
        segment = self._segments[-1]
        try:
            os.truncate(segment.path, segment.byte_count)
        except OSError as error:
            self._log.error("served_log_not_cut", detail=str(error))
        else:
            self._is_torn = False
            return
        try:
            self._begin(segment.epoch + 1, 0)
        except OSError as error:
            self._log.error("served_log_not_begun", detail=str(error))
            self._is_torn = True
        else:
            self._is_torn = False


def _opened(path: Path) -> _Segment:
    """A segment of before, up to its last whole frame."""
    epoch, first = map(int, path.stem.split("-"))
    segment = _Segment(path, epoch, first, first, 0)
    for frame in whole_frames(path.read_bytes()):
        segment.next, segment.byte_count = frame.first + frame.row_count, frame.end
    return segment


def _chunks(data: bytes, epoch: int, start: LogPosition, chunk_bytes: int) -> Iterator[LogChunk]:
    begin = at = 0
    first = following = 0
    for frame in whole_frames(data):
        if LogPosition(epoch, frame.first + frame.row_count) <= start:
            begin = at = frame.end
            continue
        if at > begin and frame.end - begin > chunk_bytes:
            yield LogChunk(epoch, first, following, data[begin:at])
            begin = at
        if at == begin:
            first = frame.first
        following, at = frame.first + frame.row_count, frame.end
    if at > begin:
        yield LogChunk(epoch, first, following, data[begin:at])
