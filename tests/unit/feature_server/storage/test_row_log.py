"""Row log of a shard: what readers see, where it is cut, what frees it, and damage that is told."""

import io
import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from core_ext.row_log import encode_record, split_records
from feature_server.domain.row_log import LogEntry, LogPosition
from feature_server.storage.row_log import ACKNOWLEDGED_NAME, RECORD_BYTES_TARGET, SegmentLog
from feature_server.storage.row_log_files import SEGMENT_HEAD_BYTES
from headrace.errors import Aborted, InvalidArgument, ResourceExhausted, Unavailable
from headrace.serving.logging import EventLog

START = LogPosition(0, 0)
ROW = b"row " * 25
BYTES_MAX = 64 << 10


class Held:
    """A log with the position that its store would have, and its events."""

    def __init__(self, folder: Path, bytes_max: int = BYTES_MAX) -> None:
        self.folder = folder
        self.stream = io.StringIO()
        self.log = SegmentLog(folder, bytes_max, EventLog("test", lambda: 0.0, self.stream))
        self.epoch, self.epoch_offset, self.next_offset = 1, 0, 0

    def open(self) -> "Held":
        self.log.open(self.epoch, self.epoch_offset, self.next_offset)
        return self

    def entry(self, count: int, row: bytes = ROW) -> LogEntry:
        keys = [key_of(offset) for offset in range(self.next_offset, self.next_offset + count)]
        return LogEntry(self.next_offset + count, keys, [row] * count)

    def write(self, count: int, *, commit: bool = True, sync: bool = False, row: bytes = ROW) -> None:
        self.log.append(self.epoch, [self.entry(count, row)], sync=sync)
        if commit:
            self.log.publish()
            self.next_offset += count

    def begin_epoch(self) -> None:
        self.epoch, self.epoch_offset = self.epoch + 1, self.next_offset

    def offsets(self, start: LogPosition = START, chunk_bytes: int = 1 << 10) -> list[int]:
        return [offset for chunk in self.log.read(start, chunk_bytes) for offset in offsets_of(chunk.records)]

    def events(self) -> list[str]:
        return [json.loads(line)["event"] for line in self.stream.getvalue().splitlines()]

    def segments(self) -> list[Path]:
        return sorted(self.folder.glob("*.rows"))


def key_of(offset: int) -> bytes:
    return offset.to_bytes(8, "big") + b"\0\0\0\x09"


def offsets_of(records: bytes) -> list[int]:
    rows = split_records(records)
    return [int.from_bytes(records[at : at + 8], "big") for at in rows.key_starts.tolist()]


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Held]:
    opened = Held(tmp_path / "row-log-0000").open()
    yield opened
    opened.log.close()


def test_committed_rows_are_read_in_chunks_from_any_position(held: Held) -> None:
    for count in (1, 5, 0, 30, 2):
        held.write(count)
    assert held.offsets() == list(range(38))
    assert held.offsets(LogPosition(1, 6)) == list(range(6, 38))
    assert held.offsets(LogPosition(1, 20)) == list(range(6, 38)), "a record is given whole"
    assert held.offsets(LogPosition(1, 38)) == held.offsets(LogPosition(9, 0)) == []
    chunks = list(held.log.read(LogPosition(0, 0), 1))
    assert [(chunk.first_offset, chunk.next_offset) for chunk in chunks] == [(0, 1), (1, 6), (6, 6), (6, 36), (36, 38)]


def test_what_the_store_has_not_committed_is_read_by_nobody(held: Held) -> None:
    held.write(3)
    held.write(4, commit=False)
    assert held.offsets() == [0, 1, 2]
    held.log.publish()
    assert held.offsets() == list(range(7))


def test_reopened_log_ends_where_the_store_ends(held: Held) -> None:
    held.write(3)
    held.write(4, commit=False)
    held.open()
    assert held.offsets() == [0, 1, 2]
    held.write(2)
    assert held.open().offsets() == list(range(5))
    assert held.events() == []


def test_write_that_failed_in_the_store_can_be_repeated(held: Held) -> None:
    held.write(600)
    held.write(200, commit=False)  # begins a segment of its own
    assert len(held.segments()) > 1
    held.open()
    held.write(200)
    assert held.offsets() == list(range(800))


def test_new_epoch_follows_the_old_one(held: Held) -> None:
    held.write(5)
    held.begin_epoch()
    held.open()
    held.write(5)
    assert [(chunk.epoch, chunk.first_offset) for chunk in held.log.read(LogPosition(1, 5), 1 << 20)] == [(2, 5)]
    assert [(chunk.epoch, chunk.next_offset) for chunk in held.log.read(LogPosition(0, 0), 1 << 20)] == [
        (1, 5),
        (2, 10),
    ]


def test_rows_of_an_epoch_that_the_store_lost_in_a_power_cut_are_dropped(held: Held) -> None:
    held.write(5)
    held.write(5)
    held.next_offset = 5
    held.begin_epoch()
    assert held.open().offsets() == list(range(5))
    held.write(2)
    assert held.open().offsets() == list(range(7))
    assert held.events() == []


def test_rows_that_the_store_has_and_the_log_lost_are_told(held: Held) -> None:
    held.write(5)
    held.next_offset += 3  # committed while the log was off
    held.open()
    assert held.events() == ["row_log_rows_missing"]
    held.write(2)
    assert held.offsets() == [0, 1, 2, 3, 4, 8, 9]
    held.open()
    assert held.events() == ["row_log_rows_missing"]


def test_log_of_a_store_that_had_none_begins_there_in_silence(tmp_path: Path) -> None:
    held = Held(tmp_path / "log")
    held.next_offset = 40
    held.open().write(2)
    assert held.offsets() == [40, 41]
    assert held.events() == []


@pytest.mark.parametrize("lost_bytes", [1, 39, 41, 500])
def test_torn_end_is_cut_at_the_last_whole_record(held: Held, lost_bytes: int) -> None:
    held.write(3)
    held.write(7)
    path = held.segments()[-1]
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    held.next_offset = 3  # what the crash tore had not reached the store
    held.open()
    assert held.offsets() == [0, 1, 2]
    held.write(1)
    assert held.open().offsets() == [0, 1, 2, 3]


def test_changed_byte_before_committed_rows_is_damage(held: Held) -> None:
    for _ in range(3):
        held.write(3)
    path = held.segments()[-1]
    data = bytearray(path.read_bytes())
    data[SEGMENT_HEAD_BYTES + 60] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Unavailable, match="broken at byte 20") as caught:
        held.offsets()
    assert caught.value.reason == "ROW_LOG_CORRUPT"
    with pytest.raises(Unavailable, match="move the folder away"):
        held.open()


def test_missing_and_headless_segments_are_damage(held: Held) -> None:
    held.write(600)
    held.write(600)
    held.write(600)
    first, second, third = held.segments()
    kept = second.read_bytes()
    second.write_bytes(b"HRLS" + kept[4:-10][:100])
    with pytest.raises(Unavailable, match="does not begin with a whole record"):
        held.open()
    second.unlink()
    with pytest.raises(Unavailable, match="segment 2 is missing"):
        held.open()
    second.write_bytes(kept)
    assert held.open().offsets() == list(range(1800))
    assert (first.exists(), third.exists()) == (True, True)


def test_crash_at_the_beginning_of_a_segment_leaves_nothing(held: Held) -> None:
    held.write(3)
    for number, left in ((2, b""), (2, b"HRL"), (2, held.segments()[0].read_bytes()[:50])):
        (held.folder / f"{number:016}.rows").write_bytes(left)
        assert held.open().offsets() == [0, 1, 2]
        assert len(held.segments()) == 1


def test_acknowledged_segments_are_dropped_and_remembered(held: Held) -> None:
    for _ in range(10):
        held.write(60)
    assert len(held.segments()) == 10
    held.log.acknowledge(LogPosition(1, 300))
    assert len(held.segments()) == 5
    held.log.acknowledge(LogPosition(1, 200))
    assert held.log.status().acknowledged == LogPosition(1, 300)
    held.open()
    assert held.offsets() == held.offsets(LogPosition(1, 300)) == list(range(300, 600))
    held.log.acknowledge(LogPosition(1, 600))
    assert (held.offsets(), len(held.segments())) == ([], 1)
    with pytest.raises(InvalidArgument) as caught:
        held.log.acknowledge(LogPosition(1, 601))
    assert caught.value.reason == "NOT_COMMITTED"
    (held.folder / ACKNOWLEDGED_NAME).unlink()
    assert held.open().offsets() == list(range(540, 600)), "drained again, which a table takes once"


def test_full_log_refuses_and_warns_before_it_is_full(held: Held) -> None:
    while not held.events():
        held.log.check_room()
        held.write(20)
    assert held.events() == ["row_log_filling"]
    while held.log.status().stored_bytes < BYTES_MAX:
        held.log.check_room()
        held.write(20)
    with pytest.raises(ResourceExhausted, match="raise --row-log-bytes") as caught:
        held.log.check_room()
    assert (caught.value.reason, caught.value.retry_after_ms) == ("ROW_LOG_FULL", 5_000)
    assert BYTES_MAX <= held.log.status().stored_bytes < BYTES_MAX + 4_096
    held.write(20)  # what was admitted before still comes in
    held.log.acknowledge(LogPosition(1, held.next_offset // 2))
    held.log.check_room()
    assert held.events() == ["row_log_filling"]


def test_log_of_one_huge_record_has_room_once_that_is_drained(tmp_path: Path) -> None:
    held = Held(tmp_path / "log", 1 << 10).open()
    held.write(100)
    with pytest.raises(ResourceExhausted):
        held.log.check_room()
    held.log.acknowledge(LogPosition(1, 100))
    held.log.check_room()
    held.write(1)
    assert held.offsets() == [100]


def test_large_write_becomes_several_records(tmp_path: Path) -> None:
    held = Held(tmp_path / "log", 1 << 30).open()
    held.write(20, row=bytes(1 << 20))
    assert held.offsets() == list(range(20))
    chunks = list(held.log.read(LogPosition(1, 16), 1))
    assert (chunks[0].first_offset, chunks[-1].next_offset) == (14, 20)
    assert all(len(chunk.records) < RECORD_BYTES_TARGET + (1 << 20) for chunk in chunks)


def test_synced_write_is_on_disk_before_it_returns(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr("feature_server.storage.row_log.os.fdatasync", synced.append)
    held.write(1)
    assert synced == []
    held.write(1, sync=True)
    assert len(synced) == 1


def test_closed_log_is_unavailable(held: Held) -> None:
    held.write(1)
    held.log.close()
    for call in (held.offsets, lambda: held.log.acknowledge(LogPosition(1, 1))):
        with pytest.raises(Unavailable) as caught:
            call()
        assert caught.value.reason == "ROW_LOG_CLOSED"


def test_disk_that_refuses_is_told_apart_by_its_number(held: Held, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> None:
        def pwrite(*_: object) -> int:
            raise OSError(number, "no")

        monkeypatch.setattr("feature_server.storage.row_log.os.pwrite", pwrite)

    held.write(3)
    for number, kind in ((28, ResourceExhausted), (5, Unavailable)):
        refuse(number)
        with pytest.raises(kind):
            held.write(2)
        monkeypatch.undo()
        assert held.open().offsets() == [0, 1, 2]


def test_readers_beside_writer_and_acknowledgements_see_every_row_once(tmp_path: Path, seed: int) -> None:
    held = Held(tmp_path / "log").open()
    done = threading.Event()
    failures: list[BaseException] = []
    drained: list[int] = []

    def drain() -> None:
        position = LogPosition(0, 0)
        try:
            while True:
                is_last = done.is_set()
                for chunk in held.log.read(position, 2_000):
                    drained.extend(offset for offset in offsets_of(chunk.records) if offset >= position.next_offset)
                    position = LogPosition(chunk.epoch, chunk.next_offset)
                held.log.acknowledge(position)
                if is_last:
                    return
        except BaseException as error:  # noqa: BLE001 - told by the test's own thread
            failures.append(error)

    def look() -> None:
        try:
            while not done.is_set():
                try:
                    found = held.offsets()
                except Aborted:
                    continue
                assert found == sorted(set(found))
        except BaseException as error:  # noqa: BLE001 - as above
            failures.append(error)

    threads = [threading.Thread(target=drain), threading.Thread(target=look)]
    for thread in threads:
        thread.start()
    source = random.Random(seed)
    for _ in range(400):
        held.write(source.randint(0, 40))
    done.set()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert drained == list(range(held.next_offset))


def test_record_of_another_kind_in_the_folder_is_no_segment(held: Held) -> None:
    held.write(1)
    (held.folder / "notes.rows").write_bytes(encode_record(1, 0, 1, [key_of(0)], [ROW]))
    assert held.open().offsets() == [0]
