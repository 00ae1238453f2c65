"""What a shard does for a move: it holds still, leaves a snapshot, takes one, and is emptied."""

import threading
from pathlib import Path

import pytest

from core_ext.keys import encode_key, storage_key
from feature_server.domain.shard import ShardState
from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import read_ipc
from feature_server.ring.shard_copy import ShardCopy, check_new
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, SnapshotIntake, digest_after
from feature_server.storage.marks import FileMark
from feature_server.storage.snapshot_folders import ARRIVED_PREFIX, SENT_PREFIX, ArrivingFolder, SentFolders
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, Unavailable
from tests.unit.feature_server.parts import PRINCIPAL, VIEW, HeldStore, Parts, ipc, shop_batch
from tests.unit.feature_server.served import until

LIMIT_S = 10.0


def write(parts: Parts, keys: list[int], durability: Durability = Durability.LOG) -> None:
    parts.writes.write(VIEW, lambda target: read_ipc(ipc(shop_batch(keys))), durability, ("", 0), PRINCIPAL)


def snapshot(parts: Parts, number: int, chunk_bytes: int = 1_000) -> tuple[list[SnapshotChunk], SnapshotEnd]:
    folders = SentFolders(parts.folder)
    folder = folders.new(number)
    record = parts.shards[number].snapshot(folder)
    chunks = list(folders.chunks(folder, chunk_bytes))
    folders.remove(folder)
    digest = 0
    for chunk in chunks:
        digest = digest_after(digest, chunk)
    return chunks, SnapshotEnd(record.epoch, record.next_offset, record.content_hash, digest)


def copy_of(parts: Parts, number: int) -> ShardCopy:
    return ShardCopy(parts.shards[number], FileMark(parts.folder / f"copy-{number}"))


def is_whole(*copies: ShardCopy) -> list[bool]:
    return [copy.is_complete for copy in copies]


def take(parts: Parts, number: int, chunks: list[SnapshotChunk], end: SnapshotEnd) -> ShardCopy:
    copy = copy_of(parts, number)
    intake = SnapshotIntake(number, ArrivingFolder(parts.folder, number, begin=copy.begin, install=copy.install))
    for chunk in chunks:
        intake.take(chunk)
    intake.finish(end)
    return copy


@pytest.fixture
def other(tmp_path: Path) -> "Parts":
    return Parts(tmp_path / "other", store_id="other")


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.LOG])
def test_a_snapshot_makes_another_server_hold_the_same_rows(parts: Parts, other: Parts, durability: Durability) -> None:
    keys = parts.keys_on(1, 200)
    write(parts, keys, durability)
    chunks, end = snapshot(parts, 1)
    take(other, 1, chunks, end)
    mine, theirs = parts.shards[1].status(), other.shards[1].status()
    assert (mine.offset, mine.content_hash) == (theirs.offset, theirs.content_hash)
    assert theirs.epoch > mine.epoch, "tokens of one are not those of the other"
    assert theirs.state is ShardState.SERVING
    write(other, keys[:3])
    assert other.shards[1].status().offset == mine.offset + 3
    other.close()


def test_an_installed_shard_opens_again(parts: Parts, other: Parts, tmp_path: Path) -> None:
    write(parts, parts.keys_on(0, 50))
    copy = take(other, 0, *snapshot(parts, 0))
    copy.complete()
    held = other.shards[0].status()
    other.close()
    again = Parts(tmp_path / "other", store_id="other")
    status = again.shards[0].status()
    assert (status.offset, status.content_hash, status.state) == (held.offset, held.content_hash, ShardState.SERVING)
    assert copy_of(again, 0).is_complete
    again.close()


def test_a_snapshot_of_other_rows_is_quarantined(parts: Parts, other: Parts) -> None:
    write(parts, parts.keys_on(0, 5))
    chunks, end = snapshot(parts, 0)
    with pytest.raises(DataLoss):
        take(other, 0, chunks, end._replace(content_hash=end.content_hash ^ 1))
    assert other.shards[0].status().state is ShardState.QUARANTINED
    copy = take(other, 0, chunks, end)
    assert other.shards[0].status().state is ShardState.SERVING
    copy.complete()
    assert copy.is_complete
    other.close()


def test_what_arrived_in_part_is_removed(parts: Parts, other: Parts) -> None:
    write(parts, parts.keys_on(0, 50))
    chunks, end = snapshot(parts, 0, 100)
    with pytest.raises(DataLoss):
        take(other, 0, chunks[:-1], end)
    assert not list(other.folder.glob(f"{ARRIVED_PREFIX}*"))
    assert other.shards[0].status().offset == -1
    other.close()


def test_what_a_killed_process_left_is_removed_at_the_start(tmp_path: Path) -> None:
    for name in (f"{SENT_PREFIX}0001-x", f"{ARRIVED_PREFIX}0001"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_bytes(b"left")
    SentFolders(tmp_path)
    assert not list(tmp_path.iterdir())


def test_no_snapshot_is_left_without_what_was_acknowledged_in_memory(parts: Parts) -> None:
    first, second = parts.keys_on(0, 2)
    write(parts, [first])
    write(parts, [second], Durability.MEMORY)
    parts.faults[0].write_error = Unavailable("the disk refuses", reason="STORAGE_IO")
    with pytest.raises(Unavailable):
        parts.shards[0].snapshot(SentFolders(parts.folder).new(0))
    assert not list(parts.folder.glob(f"{SENT_PREFIX}*"))
    parts.faults[0].write_error = None
    parts.shards[0].resume()
    assert snapshot(parts, 0)[1].next_offset == 2


def test_a_frozen_shard_takes_no_writes_and_is_read(parts: Parts) -> None:
    keys = parts.keys_on(0, 2)
    write(parts, keys[:1])
    parts.shards[0].freeze()
    with pytest.raises(Unavailable) as error:
        write(parts, keys)
    assert error.value.reason == "SHARD_MOVING"
    assert parts.shards[0].status().offset == 0
    parts.shards[0].thaw()
    write(parts, keys[1:])
    assert parts.shards[0].status().offset == 1


def test_an_emptied_shard_forgets_its_rows_and_goes_on_in_the_next_epoch(parts: Parts) -> None:
    keys = parts.keys_on(0, 20)
    write(parts, keys)
    before = parts.shards[0].status()
    parts.shards[0].empty()
    after = parts.shards[0].status()
    assert (after.epoch, after.offset, after.content_hash) == (before.epoch + 1, before.offset, 0)
    with pytest.raises(FailedPrecondition):
        parts.shards[0].wait_for(before.epoch, before.offset + 1, 0.0)
    write(parts, keys[:1])
    assert parts.shards[0].status().offset == before.offset + 1


def test_a_write_that_waits_while_its_shard_is_emptied_is_told_and_holds_up_no_later_one(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second, third = parts.keys_on(0, 3)
    write(parts, [first])
    errors: list[str] = []

    def write_late() -> None:
        try:
            write(parts, [second])
        except HeadraceError as error:
            errors.append(error.reason)

    waiting = threading.Thread(target=write_late, daemon=True)
    close = HeldStore.close

    def close_late(store: HeldStore) -> None:
        monkeypatch.undo()
        waiting.start()
        until(lambda: parts.shards[0].has_queued)
        close(store)

    monkeypatch.setattr(HeldStore, "close", close_late)
    parts.shards[0].empty()
    waiting.join(LIMIT_S)
    assert not waiting.is_alive()
    assert errors == ["SHARD_MOVING"]
    later = threading.Thread(target=write, args=(parts, [third]), daemon=True)
    later.start()
    later.join(LIMIT_S)
    assert not later.is_alive()
    assert [key for key, _ in parts.shards[0].scan(b"\0\0\0\1", 10)] == stored_keys(parts, third)


def stored_keys(parts: Parts, number: int) -> list[bytes]:
    """Storage keys of an entity that the shop's view has."""
    view = parts.catalogue.view(VIEW)
    return [storage_key(view.entity.entity_id, encode_key([3], [number]), view.view_id)]


def test_an_empty_shard_stays_in_its_epoch(parts: Parts) -> None:
    before = parts.shards[0].status()
    parts.shards[0].empty()
    assert parts.shards[0].status() == before


def test_a_shard_that_is_logged_for_the_offline_store_is_not_taken_away(tmp_path: Path) -> None:
    parts = Parts(tmp_path / "logged", row_log_bytes=1 << 20)
    write(parts, parts.keys_on(0, 2))
    with pytest.raises(FailedPrecondition) as error:
        parts.shards[0].empty()
    assert error.value.reason == "SHARD_LOGGED"
    assert parts.shards[0].status().offset == 1
    parts.close()


def test_a_copy_is_whole_while_its_mark_is_set_and_nothing_is_damaged(parts: Parts) -> None:
    copy = copy_of(parts, 0)
    assert is_whole(copy, copy_of(parts, 0)) == [False, False]
    copy.complete()
    assert is_whole(copy, copy_of(parts, 0)) == [True, True]
    parts.shards[0].quarantine(DataLoss("rotten", reason="STORED_ROW_CORRUPT"))
    assert is_whole(copy, copy_of(parts, 0)) == [False, False]
    copy.begin()
    assert is_whole(copy, copy_of(parts, 0)) == [False, False]
    assert parts.shards[0].status().state is ShardState.SERVING


def test_a_store_from_outside_a_ring_is_not_taken_into_one(parts: Parts) -> None:
    check_new(list(parts.shards.shards), has_ring=False)
    write(parts, [1])
    check_new(list(parts.shards.shards), has_ring=True)
    with pytest.raises(FailedPrecondition):
        check_new(list(parts.shards.shards), has_ring=False)
