"""A shard that follows a log: its record is the place in it, in the batch of its rows, over crashes and snapshots."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import encode_tombstone
from feature_server.domain.log_writes import GROUP_ROWS_MAX, LogWrite, groups, is_log_epoch, log_epoch
from feature_server.domain.shard import Shard, ShardState
from feature_server.domain.shard_record import FIRST_EPOCH
from feature_server.ring.log import LogRows
from feature_server.ring.shard_copy import ShardCopy, check_new
from feature_server.storage.marks import FileMark
from headrace.errors import DataLoss, DeadlineExceeded, FailedPrecondition, Unavailable
from tests.unit.feature_server.logs import EPOCH
from tests.unit.feature_server.parts import Parts


def key_of(number: int) -> bytes:
    return storage_key(2, encode_key([3], [number]), 3)


def write_of(offset: int, keys: Sequence[int], records: dict[bytes, bytes] | None = None) -> LogWrite:
    """A message whose rows tell its offset by their write time."""
    rows = [encode_tombstone(1, 5, 1_000 + offset, 0, 0, offset) for _ in keys]
    return LogWrite(offset + 1, [key_of(key) for key in keys], rows, 1_000 + offset, None, records or {})


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path / "store", follows_log=True)
    yield made
    made.close()


def opened_again(parts: Parts) -> Parts:
    """The store as a killed process leaves it, opened by another one."""
    for shard in parts.shards.shards:
        assert shard._store is not None
        shard._store.close()
    return Parts(parts.folder, follows_log=True)


def test_epochs_of_logs_differ_by_topic_and_are_never_those_that_a_shard_counts() -> None:
    epochs = {log_epoch(bytes(7) + bytes([number]) + bytes(8)) for number in range(256)}
    assert len(epochs) == 256
    assert all(is_log_epoch(epoch) and epoch < 1 << 63 for epoch in epochs)
    assert not is_log_epoch(FIRST_EPOCH) and not is_log_epoch(1 << 40)


def test_rows_and_offset_of_the_log_are_one_batch(parts: Parts) -> None:
    shard = parts.shards[0]
    assert shard.follow(EPOCH, 0, 3, [write_of(0, [1, 2]), write_of(2, [1])])
    assert shard.status()[:3] == (0, EPOCH, 2)
    assert parts.faults[0].write_sizes[-1] == 3, "two rows and the record"
    assert shard.read([key_of(1), key_of(2)]) == [write_of(2, [1]).rows[0], write_of(0, [2]).rows[0]]


def test_offsets_without_writes_are_passed(parts: Parts) -> None:
    assert parts.shards[0].follow(EPOCH, 0, 7, [])
    assert parts.shards[0].follow(EPOCH, 7, 9, [write_of(7, [1])])
    assert parts.shards[0].status().offset == 8


def test_what_does_not_begin_where_the_copy_ends_changes_nothing(parts: Parts) -> None:
    shard = parts.shards[0]
    shard.follow(EPOCH, 0, 2, [write_of(1, [1])])
    before = shard.status()
    assert not shard.follow(EPOCH, 0, 2, [write_of(1, [1])])
    assert not shard.follow(EPOCH, 3, 4, [write_of(3, [2])])
    assert shard.status() == before


def test_another_log_is_refused_and_an_empty_copy_takes_any(parts: Parts) -> None:
    shard = parts.shards[0]
    shard.follow(EPOCH, 0, 1, [write_of(0, [1])])
    with pytest.raises(DataLoss) as error:
        shard.follow(EPOCH + 1, 1, 2, [write_of(1, [1])])
    assert error.value.reason == "ROWS_TOPIC_REPLACED"
    assert shard.state is ShardState.SERVING and shard.status().offset == 0
    shard.empty()
    assert (shard.status().offset, shard.status().content_hash) == (-1, 0)
    assert shard.follow(EPOCH + 1, 0, 1, [write_of(0, [1])])
    assert shard.status().epoch == EPOCH + 1


def test_a_crash_leaves_the_epoch_and_the_place_of_the_log(parts: Parts) -> None:
    parts.shards[0].follow(EPOCH, 0, 5, [write_of(4, [1])])
    again = opened_again(parts)
    assert again.shards[0].status()[:3] == (0, EPOCH, 4)
    assert again.shards[0].follow(EPOCH, 5, 6, [write_of(5, [1])])
    again.close()


def test_writes_of_one_message_are_never_parted() -> None:
    large = list(range(GROUP_ROWS_MAX - 1))
    first, second = write_of(0, large), write_of(0, [1, 2])
    parted = list(groups([first, second, write_of(1, [3])], 2))
    assert [[entry.next_offset for entry in group] for group in parted] == [[1, 1], [2]]
    assert [[entry.next_offset for entry in group] for group in groups([], 4)] == [[4]]
    assert [entry.next_offset for entry in list(groups([write_of(0, [1])], 4))[-1]] == [1, 4]


def test_a_batch_that_the_disk_refuses_leaves_the_place_before_it(parts: Parts) -> None:
    shard = parts.shards[0]
    shard.follow(EPOCH, 0, 1, [write_of(0, [1])])
    parts.faults[0].write_error = Unavailable("no", reason="DISK")
    with pytest.raises(Unavailable):
        shard.follow(EPOCH, 1, 2, [write_of(1, [2])])
    assert shard.state is ShardState.READ_ONLY
    with pytest.raises(Unavailable):
        shard.follow(EPOCH, 1, 2, [write_of(1, [2])])
    parts.faults[0].write_error = None
    shard.resume()
    assert shard.status().offset == 0 and shard.read([key_of(2)]) == [None]
    assert shard.follow(EPOCH, 1, 2, [write_of(1, [2])])


def test_a_token_names_the_log_and_holds_at_any_copy(parts: Parts) -> None:
    shard = parts.shards[0]
    with pytest.raises(DeadlineExceeded):
        shard.wait_for(EPOCH, 0, 0.0)  # nothing has come yet, whatever the log is
    shard.follow(EPOCH, 0, 1, [write_of(0, [1])])
    shard.wait_for(EPOCH, 0, 0.0)
    with pytest.raises(DeadlineExceeded):
        shard.wait_for(EPOCH, 1, 0.0)
    with pytest.raises(FailedPrecondition) as error:
        shard.wait_for(EPOCH + 1, 0, 0.0)
    assert error.value.reason == "EPOCH_MISMATCH"


def test_a_snapshot_carries_the_place_of_the_log(parts: Parts, tmp_path: Path) -> None:
    parts.shards[0].follow(EPOCH, 0, 5, [write_of(4, [1, 2], {b"\0\0\0\0mark": b"4"})])
    record = parts.shards[0].snapshot(tmp_path / "sent")
    other = Parts(tmp_path / "other", follows_log=True)
    other.shards[0].install(tmp_path / "sent", record.next_offset, record.content_hash)
    mine, theirs = parts.shards[0].status(), other.shards[0].status()
    assert (mine.epoch, mine.offset, mine.content_hash) == (theirs.epoch, theirs.offset, theirs.content_hash)
    assert other.shards[0].read([b"\0\0\0\0mark"]) == [b"4"]
    assert other.shards[0].follow(EPOCH, 5, 6, [write_of(5, [1])])
    other.close()


def copies_of(shards: Sequence[Shard], folder: Path) -> list[ShardCopy]:
    return [ShardCopy(shard, FileMark(folder / f"copy-{shard.number}")) for shard in shards]


def test_a_copy_knows_its_place_after_a_crash_and_gives_it_up_with_its_rows(parts: Parts, tmp_path: Path) -> None:
    (copy, _) = copies_of(parts.shards.shards, tmp_path)
    copy.apply(LogRows(0, 3, [write_of(2, [1])], EPOCH))
    copy.complete()
    again = opened_again(parts)
    (copy, _) = copies_of(again.shards.shards, tmp_path)
    assert (copy.next_offset, copy.is_complete) == (3, True)
    copy.drop()
    assert (copy.next_offset, copy.is_complete) == (0, False)
    again.close()


def test_a_folder_is_not_taken_from_a_log_nor_put_under_one(parts: Parts) -> None:
    parts.shards[0].follow(EPOCH, 0, 1, [write_of(0, [1])])
    check_new(list(parts.shards.shards), has_ring=True)
    for shard in parts.shards.shards:
        shard.follows_log = False
    with pytest.raises(FailedPrecondition) as error:
        check_new(list(parts.shards.shards), has_ring=True)
    assert error.value.reason == "OTHER_LOG"
