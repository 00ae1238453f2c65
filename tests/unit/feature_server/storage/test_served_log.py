"""Segments of the log of served answers: order, bounds, restarts, torn and damaged ends."""

import io
import os
import time
from pathlib import Path

import pytest

from feature_server.domain.row_log import LogPosition
from feature_server.storage.served_log import SUFFIX, ServedSegments
from headrace.errors import InvalidArgument, Unavailable
from headrace.served import FRAME_HEAD_BYTES, frames_of
from headrace.serving.logging import EventLog

START = LogPosition(0, 0)
CHUNK = 1 << 20


def opened(folder: Path, bytes_max: int = 1 << 20, segment_bytes: int = 400) -> ServedSegments:
    return ServedSegments(folder, bytes_max, EventLog("test", time.time, io.StringIO()), segment_bytes)


def read(log: ServedSegments, start: LogPosition = START, chunk_bytes: int = CHUNK) -> list[tuple[int, int, bytes]]:
    """Epoch, number of the first answer, and stream of every frame."""
    found = []
    for chunk in log.read(start, chunk_bytes):
        frames = frames_of(chunk.records)
        assert frames[0].first == chunk.first_offset
        assert frames[-1].first + frames[-1].row_count == chunk.next_offset
        found += [(chunk.epoch, frame.first, bytes(frame.stream)) for frame in frames]
    return found


def segments(folder: Path) -> list[Path]:
    return sorted(folder.glob(f"*{SUFFIX}"))


def fill(log: ServedSegments, count: int, first: int = 0) -> list[bytes]:
    streams = [f"stream {number}".encode() * 8 for number in range(first, first + count)]
    assert all(log.append(stream, 10) for stream in streams)
    return streams


@pytest.mark.parametrize("chunk_bytes", [1, 150, CHUNK])
def test_frames_come_back_in_order_over_segments_and_chunks(tmp_path: Path, chunk_bytes: int) -> None:
    log = opened(tmp_path)
    streams = fill(log, 20)
    assert len(segments(tmp_path)) > 3
    assert read(log, chunk_bytes=chunk_bytes) == [(1, 10 * at, stream) for at, stream in enumerate(streams)]
    assert [first for _, first, _ in read(log, LogPosition(1, 95), chunk_bytes)] == list(range(90, 200, 10))
    assert log.status().end == LogPosition(1, 200)


def test_acknowledged_segments_go_and_the_open_one_stays(tmp_path: Path) -> None:
    log = opened(tmp_path)
    fill(log, 20)
    log.acknowledge(LogPosition(1, 200))
    log.acknowledge(LogPosition(1, 20))
    assert len(segments(tmp_path)) == 1
    assert log.status().acknowledged == log.status().end == LogPosition(1, 200)
    assert [first for _, first, _ in read(log, LogPosition(1, 200))] == []
    with pytest.raises(InvalidArgument, match="behind the log"):
        log.acknowledge(LogPosition(1, 201))


def test_full_log_takes_nothing_until_it_is_acknowledged(tmp_path: Path) -> None:
    log = opened(tmp_path, bytes_max=1_000)
    taken = 0
    while log.append(b"x" * 50, 1):
        taken += 1
    assert taken == 1_000 // (50 + FRAME_HEAD_BYTES)
    log.acknowledge(LogPosition(1, taken))
    assert log.append(b"x" * 50, 1)
    assert log.status().stored_bytes <= log.status().bytes_max


def test_restart_begins_an_epoch_behind_what_is_left(tmp_path: Path) -> None:
    log = opened(tmp_path)
    streams = fill(log, 5)
    log.close()
    again = opened(tmp_path)
    assert again.append(b"new", 1)
    assert read(again) == [(1, 10 * at, stream) for at, stream in enumerate(streams)] + [(2, 0, b"new")]
    again.close()
    third = opened(tmp_path)
    third.acknowledge(third.status().end)
    assert [path.name[:10] for path in segments(tmp_path)] == ["0000000003"]


def test_log_that_is_empty_never_uses_an_epoch_again(tmp_path: Path) -> None:
    for epoch in range(1, 4):
        log = opened(tmp_path)
        assert log.status().end == LogPosition(epoch, 0)
        log.close()


def test_start_that_fails_keeps_the_epochs_that_there_were(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        opened(tmp_path).close()

    def no_space(*_: object) -> None:
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(ServedSegments, "_begin", no_space)
        with pytest.raises(Unavailable, match="cannot be used"):
            opened(tmp_path)
    log = opened(tmp_path)
    assert log.status().end == LogPosition(4, 0)
    assert [path.name[:10] for path in segments(tmp_path)] == ["0000000004"], "empty segments of before are gone"


def test_torn_end_at_every_byte_leaves_whole_frames(tmp_path: Path) -> None:
    log = opened(tmp_path / "whole", segment_bytes=1 << 20)
    streams = fill(log, 3)
    log.close()
    [path] = segments(tmp_path / "whole")
    data = path.read_bytes()
    size = len(data) // 3
    for cut in range(len(data)):
        folder = tmp_path / f"cut-{cut}"
        folder.mkdir()
        (folder / path.name).write_bytes(data[:cut])
        again = opened(folder)
        assert [stream for _, _, stream in read(again)] == streams[: cut // size]
        again.close()


def test_flipped_bit_hides_its_frame_and_no_other_segment(tmp_path: Path) -> None:
    log = opened(tmp_path)
    streams = fill(log, 20)
    log.close()
    damaged = segments(tmp_path)[1]
    data = bytearray(damaged.read_bytes())
    data[FRAME_HEAD_BYTES + 3] ^= 1
    damaged.write_bytes(data)
    again = opened(tmp_path)
    found = [stream for _, _, stream in read(again)]
    assert found == [stream for stream in streams if stream in found]
    assert streams[0] in found and streams[-1] in found and len(found) < 20


def test_disk_that_fails_drops_the_frame_and_keeps_the_log_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    [stream] = fill(log, 1)

    def half(frame: bytes) -> None:
        with segments(tmp_path)[-1].open("ab") as file:
            file.write(frame[:-1])
        raise OSError("no space")

    with monkeypatch.context() as patch:
        patch.setattr(log, "_write", half)
        assert not log.append(b"lost", 1)
    assert log.append(b"after", 1)
    assert [found for _, _, found in read(log)] == [stream, b"after"]


def test_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match="cannot be used"):
        opened(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


def test_disk_that_refuses_everything_loses_answers_and_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = opened(tmp_path)
    before = fill(log, 3)

    def half(self: ServedSegments, frame: bytes) -> None:
        assert self._file is not None
        self._file.write(frame[: len(frame) // 2])
        raise OSError("no space")

    def refuse(*_: object) -> None:
        raise OSError("read-only")

    with monkeypatch.context() as broken:
        broken.setattr(ServedSegments, "_write", half)
        broken.setattr(os, "truncate", refuse)
        broken.setattr(ServedSegments, "_begin", refuse)
        assert not log.append(b"lost", 10)
        assert not log.append(b"lost as well", 10)
    assert read(log) == [(1, 10 * at, stream) for at, stream in enumerate(before)]
    after = fill(log, 1, 3)  # the half frame is cut off first
    assert [stream for _, _, stream in read(log)] == [*before, *after]
    log.close()
    assert [stream for _, _, stream in read(opened(tmp_path))] == [*before, *after]


def test_half_frame_that_cannot_be_cut_off_ends_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = opened(tmp_path)
    before = fill(log, 2)

    def half(self: ServedSegments, frame: bytes) -> None:
        assert self._file is not None
        self._file.write(frame[: len(frame) // 2])
        raise OSError("no space")

    def refuse(*_: object) -> None:
        raise OSError("read-only")

    with monkeypatch.context() as broken:
        broken.setattr(ServedSegments, "_write", half)
        broken.setattr(os, "truncate", refuse)
        assert not log.append(b"lost", 10)
    after = fill(log, 1, 2)
    assert read(log) == [(1, 0, before[0]), (1, 10, before[1]), (2, 0, after[0])]
