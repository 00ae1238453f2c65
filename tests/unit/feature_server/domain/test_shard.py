"""One shard over a real RocksDB: order, durability, tokens, states."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_ext.hashing import xxh3_64
from core_ext.row_codec import Schema, check_row, encode_rows, encode_tombstone
from feature_server.domain.shard import Position, ShardState
from feature_server.domain.shard_writes import Durability
from headrace.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    ResourceExhausted,
    Unavailable,
)
from tests.unit.core_ext.test_rules import TABLE
from tests.unit.feature_server.parts import NOW_US, Parts

LIMIT_S = 10.0
SCHEMA = Schema(4, [])
KEY = b"\0\0\0\2\1\x80\0\0\0\0\0\0\7\0\0\0\4"


def key_of(number: int) -> bytes:
    return b"\0\0\0\2\1\x80" + number.to_bytes(7, "big") + b"\0\0\0\4"


def stamp_of(event_times_us: list[int]) -> Callable[[int, int], list[bytes]]:
    batch = encode_rows(SCHEMA, [], np.array(event_times_us, np.int64))
    indexes = np.arange(len(event_times_us), dtype=np.int64)
    return lambda time_us, offset: batch.stamp(indexes, time_us, None, 0, 0, offset)


def write(parts: Parts, numbers: list[int], event_us: int, durability: Durability = Durability.LOG) -> Position:
    keys = [key_of(number) for number in numbers]
    return parts.shards[0].append(keys, stamp_of([event_us] * len(keys)), durability)[0]


def stored_event(parts: Parts, number: int) -> int | None:
    row = parts.shards[0].read([key_of(number)])[0]
    return None if row is None else check_row(row, SCHEMA).event_time_us


def wait_until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come"
        threading.Event().wait(0.001)


def test_write_is_read_back_with_its_place_and_time(parts: Parts) -> None:
    assert write(parts, [1, 2], 5) == Position(0, 1, 1)
    row = parts.shards[0].read([key_of(2)])[0]
    assert row is not None
    header = check_row(row, SCHEMA)
    assert (header.write_time_us, header.offset, header.partition, header.source_id) == (NOW_US, 1, 0, 0)


def test_write_time_never_runs_backwards(parts: Parts) -> None:
    write(parts, [1], 5)
    parts.clock.now_us -= 1_000_000
    write(parts, [2], 5)
    row = parts.shards[0].read([key_of(2)])[0]
    assert row is not None
    assert check_row(row).write_time_us == NOW_US


@pytest.mark.parametrize("is_cached", [False, True], ids=["stored row on disk", "stored row in the table"])
@pytest.mark.parametrize("case", TABLE["order_cases"], ids=lambda case: case["name"])
def test_arriving_row_replaces_by_the_total_order(parts: Parts, case: dict[str, Any], is_cached: bool) -> None:
    stored, arriving = made(case["stored"]), made(case["arriving"])
    shard = parts.shards[0]
    shard.append([KEY], lambda time_us, offset: [stored], Durability.LOG)
    if is_cached:
        parts.table.fill([KEY], [stored], parts.table.ticket())
    _, stale_count = shard.append([KEY], lambda time_us, offset: [arriving], Durability.LOG)
    wins = case["winner"] == "arriving"
    assert shard.read([KEY]) == [arriving if wins else stored]
    assert stale_count == (0 if wins else 1)
    if is_cached:
        assert parts.table.get(KEY) == (arriving if wins else stored)


def made(header: dict[str, Any]) -> bytes:
    times = (header["event_time_us"], header["write_time_us"])
    place = (header["source_id"], header["partition"], header["offset"])
    if header["tombstone"]:
        return encode_tombstone(4, *times, *place)
    batch = encode_rows(SCHEMA, [], np.array([times[0]], np.int64))
    return batch.stamp(np.array([0], np.int64), times[1], None, *place)[0]


def test_duplicates_inside_a_write_leave_the_greatest(parts: Parts) -> None:
    keys = [key_of(1), key_of(2), key_of(1), key_of(1)]
    position, stale_count = parts.shards[0].append(keys, stamp_of([10, 5, 30, 20]), Durability.LOG)
    assert (position.offset, stale_count) == (3, 1)
    assert [stored_event(parts, 1), stored_event(parts, 2)] == [30, 5]


def test_equal_event_times_inside_a_write_leave_the_last(parts: Parts) -> None:
    parts.shards[0].append([KEY, KEY], stamp_of([10, 10]), Durability.LOG)
    row = parts.shards[0].read([KEY])[0]
    assert row is not None
    assert check_row(row).offset == 1


def test_a_key_twice_in_a_write_takes_the_stored_row_from_the_content_hash_once(parts: Parts) -> None:
    write(parts, [1, 2], 10)
    write(parts, [1, 2, 1], 20)
    keys = [key_of(number) for number in (1, 2)]
    total = sum(xxh3_64(key + (row or b"")) for key, row in zip(keys, parts.shards[0].read(keys), strict=True))
    assert parts.shards[0].status().content_hash == total % 2**64


def test_content_hash_is_the_sum_over_the_stored_rows(parts: Parts) -> None:
    write(parts, [1, 2, 3], 10)
    write(parts, [2, 3, 4], 20)
    write(parts, [3], 15)
    keys = [key_of(number) for number in (1, 2, 3, 4)]
    total = sum(xxh3_64(key + (row or b"")) for key, row in zip(keys, parts.shards[0].read(keys), strict=True))
    assert parts.shards[0].status().content_hash == total % 2**64


def test_reopened_shard_goes_on_where_it_was(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    write(first, [1, 2], 10)
    before = first.shards[0].status()
    first.close()
    second = Parts(tmp_path / "store")
    assert second.shards[0].status() == before
    assert write(second, [1], 11) == Position(0, 1, 2)
    second.close()


def test_crash_begins_an_epoch_that_knows_older_tokens_by_their_offset(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    write(first, [1, 2], 10)
    store = first.shards[0]._store
    assert store is not None
    store.close()  # as a kill does: without the record of a clean end
    second = Parts(tmp_path / "store")
    shard = second.shards[0]
    assert (shard.status().epoch, shard.status().offset) == (2, 1)
    shard.wait_for(1, 1, time.monotonic())
    with pytest.raises(FailedPrecondition) as caught:
        shard.wait_for(1, 2, time.monotonic())
    assert caught.value.reason == "EPOCH_MISMATCH"
    second.close()
    first.shards[1].close()


def test_wait_ends_when_the_offset_is_applied(parts: Parts) -> None:
    waiting = threading.Thread(target=lambda: parts.shards[0].wait_for(1, 0, time.monotonic() + LIMIT_S))
    waiting.start()
    write(parts, [1], 10)
    waiting.join(LIMIT_S)
    assert not waiting.is_alive()


def test_wait_for_an_offset_that_does_not_come_ends_at_the_deadline(parts: Parts) -> None:
    with pytest.raises(DeadlineExceeded) as caught:
        parts.shards[0].wait_for(1, 0, time.monotonic() + 0.01)
    assert caught.value.reason == "MIN_OFFSET_NOT_REACHED"


def test_waiting_reads_are_bounded(parts: Parts) -> None:
    shard = parts.shards[0]
    taken = [shard._waiters.acquire(blocking=False) for _ in range(5)]
    assert taken == [True, True, True, True, False]
    with pytest.raises(ResourceExhausted) as caught:
        shard.wait_for(1, 0, time.monotonic() + LIMIT_S)
    assert caught.value.reason == "TOO_MANY_WAITERS"


def test_fsync_write_is_synced_and_log_write_is_not(parts: Parts) -> None:
    parts.faults[0].syncs.clear()
    write(parts, [1], 10, Durability.LOG)
    write(parts, [1], 11, Durability.FSYNC)
    assert parts.faults[0].syncs == [False, True]


def test_memory_write_is_acknowledged_before_its_commit_and_committed_in_order(parts: Parts) -> None:
    position = write(parts, [1], 10, Durability.MEMORY)
    assert position.offset == 0
    assert stored_event(parts, 1) is None
    assert parts.shards[0].has_queued
    assert write(parts, [1], 5, Durability.LOG).offset == 1  # commits what stands before it
    assert stored_event(parts, 1) == 10
    assert not parts.shards[0].has_queued


def test_thread_commits_memory_writes(parts: Parts) -> None:
    parts.shards.start()
    position = write(parts, [1], 10, Durability.MEMORY)
    parts.shards[0].wait_for(position.epoch, position.offset, time.monotonic() + LIMIT_S)
    assert stored_event(parts, 1) == 10


def test_waiting_writes_are_committed_together(parts: Parts) -> None:
    for number in range(3):
        write(parts, [number], 10, Durability.MEMORY)
    parts.faults[0].write_sizes.clear()
    write(parts, [3], 10, Durability.FSYNC)
    assert parts.faults[0].write_sizes == [4 + 1]  # and the record


def test_full_disk_refuses_writes_and_goes_on_reading(parts: Parts) -> None:
    write(parts, [1], 10)
    parts.faults[0].write_error = ResourceExhausted("the disk is full", reason="DISK_FULL")
    for number in (1, 2):  # the one that meets the disk, and one that is refused before it
        with pytest.raises(ResourceExhausted) as caught:
            write(parts, [number], 20)
        assert (caught.value.reason, caught.value.retry_after_ms) == ("DISK_FULL", 1_000)
    assert parts.shards[0].state is ShardState.READ_ONLY
    assert stored_event(parts, 1) == 10
    assert write_on_other_shard(parts).offset == 0


def write_on_other_shard(parts: Parts) -> Position:
    return parts.shards[1].append([KEY], stamp_of([1]), Durability.LOG)[0]


def test_shard_resumes_when_the_disk_takes_writes_again(parts: Parts) -> None:
    write(parts, [1], 10)
    parts.table.fill([key_of(9)], [None], parts.table.ticket())
    parts.faults[0].write_error = Unavailable("the disk fails", reason="STORAGE_IO")
    with pytest.raises(Unavailable):
        write(parts, [1], 20)
    parts.faults[0].probe_error = ResourceExhausted("the disk is full", reason="DISK_FULL")
    parts.shards[0].resume()
    assert parts.shards[0].status().state is ShardState.READ_ONLY
    parts.faults[0].probe_error = parts.faults[0].write_error = None
    parts.shards[0].resume()
    assert parts.shards[0].status().state is ShardState.SERVING
    with pytest.raises(KeyError):
        parts.table.get(key_of(9))  # nothing that was known before is trusted
    assert write(parts, [1], 30).epoch == 1
    assert stored_event(parts, 1) == 30


def test_memory_writes_wait_for_the_disk_to_come_back(parts: Parts) -> None:
    write(parts, [1], 10, Durability.MEMORY)
    parts.faults[0].write_error = ResourceExhausted("the disk is full", reason="DISK_FULL")
    parts.shards[0].commit_queued()
    assert parts.shards[0].state is ShardState.READ_ONLY
    with pytest.raises(ResourceExhausted):
        write(parts, [2], 10, Durability.MEMORY)
    parts.faults[0].write_error = None
    parts.shards[0].resume()
    parts.shards[0].commit_queued()
    assert stored_event(parts, 1) == 10


def test_bug_in_the_middle_of_a_commit_fails_every_write_of_the_group_and_empties_the_table(parts: Parts) -> None:
    write(parts, [1], 10)
    parts.table.fill([key_of(1)], parts.shards[0].read([key_of(1)]), parts.table.ticket())
    parts.faults[0].write_error = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError):
        write(parts, [1], 20)
    with pytest.raises(KeyError):
        parts.table.get(key_of(1))
    parts.faults[0].write_error = None
    with pytest.raises(Unavailable):
        write(parts, [1], 25)
    parts.shards[0].resume()
    write(parts, [1], 30)
    assert stored_event(parts, 1) == 30


def test_crash_is_remembered_by_a_shard_that_starts_on_a_full_disk(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    write(first, [1, 2], 10)
    store = first.shards[0]._store
    assert store is not None
    store.close()
    first.shards[1].close()
    second = Parts(tmp_path / "store", open_error=ResourceExhausted("the disk is full", reason="DISK_FULL"))
    assert second.shards[0].status()[1:4] == (1, 1, ShardState.READ_ONLY)
    assert stored_event(second, 1) == 10
    second.faults[0].open_error = None
    second.shards[0].resume()
    assert second.shards[0].status()[1:4] == (2, 1, ShardState.SERVING)
    second.close()


def test_damaged_store_is_quarantined_and_the_other_shard_serves(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    write(first, [1], 10)
    first.close()
    current = tmp_path / "store" / "shard-0000" / "CURRENT"
    current.write_text("MANIFEST-999999\n")
    second = Parts(tmp_path / "store")
    assert [shard.state for shard in second.shards.shards] == [ShardState.QUARANTINED, ShardState.SERVING]
    with pytest.raises(DataLoss) as caught:
        second.shards[0].read([KEY])
    assert caught.value.reason == "SHARD_QUARANTINED"
    with pytest.raises(DataLoss):
        write(second, [1], 10)
    assert write_on_other_shard(second).offset == 0
    second.close()


def test_damaged_record_quarantines_the_shard(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    store = first.shards[0]._store
    assert store is not None
    store.write([b"\0\0\0\0shard\0\0\0\0"], [b"nothing"], sync=True)
    store.close()
    first.shards[1].close()
    second = Parts(tmp_path / "store")
    assert second.shards[0].state is ShardState.QUARANTINED
    assert "record" in second.shards[0].detail
    second.close()


def test_damaged_row_met_by_a_write_quarantines_the_shard(parts: Parts) -> None:
    store = parts.shards[0]._store
    assert store is not None
    store.write([key_of(1)], [b"\xd7 no row"], sync=False)
    with pytest.raises(DataLoss) as caught:
        write(parts, [1], 10)
    assert caught.value.reason == "STORED_ROW_CORRUPT"
    assert parts.shards[0].state is ShardState.QUARANTINED


def test_highest_registry_id_is_remembered(tmp_path: Path) -> None:
    first = Parts(tmp_path / "store")
    first.shards.note_highest_id(17)
    first.shards.note_highest_id(3)
    first.close()
    second = Parts(tmp_path / "store")
    assert second.shards.highest_id == 17
    second.close()


def test_rows_of_one_group_stay_below_the_bound(parts: Parts) -> None:
    for start in range(0, 5_000, 1_000):
        write(parts, list(range(start, start + 1_000)), 10, Durability.MEMORY)
    parts.faults[0].write_sizes.clear()
    parts.shards[0].commit_queued()
    assert parts.faults[0].write_sizes == [2_001, 2_001, 1_001]
