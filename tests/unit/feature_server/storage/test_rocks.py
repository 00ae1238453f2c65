"""RocksDB as a row store: bytes, batches, and its errors as ours."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from feature_server.storage.rocks import PROBE_NAME, RocksOpener, RocksStore, translated
from feature_server.storage.rocks_options import (
    DESCRIPTORS_MAX,
    DESCRIPTORS_MIN,
    SharedMemory,
    StoreBudget,
    descriptors_per_shard,
    shard_options,
)
from headrace.errors import DataLoss, HeadraceError, InternalError, ResourceExhausted, Unavailable

LIMIT_S = 10.0


@pytest.fixture
def opener(tmp_path: Path) -> RocksOpener:
    return RocksOpener(tmp_path / "shard", shard_options(SharedMemory(StoreBudget(4 << 20, 4 << 20)), 1))


@pytest.fixture
def store(opener: RocksOpener) -> Iterator[RocksStore]:
    opened = opener.open()
    yield opened
    opened.close()


def test_values_come_in_the_order_of_the_keys(store: RocksStore) -> None:
    store.write([b"b", b"a"], [b"2", b"1"], sync=False)
    assert store.get_many([b"b", b"none", b"a", b"b"]) == [b"2", None, b"1", b"2"]
    assert store.get_many([]) == []
    assert store.get(b"none") is None


def test_synced_and_plain_writes_survive_a_reopening(opener: RocksOpener) -> None:
    for sync in (False, True):
        opened = opener.open()
        opened.write([b"key"], [str(sync).encode()], sync=sync)
        opened.close()
        opened = opener.open()
        assert opened.get(b"key") == str(sync).encode()
        opened.close()


def test_closed_store_is_unavailable_and_closes_twice(opener: RocksOpener) -> None:
    opened = opener.open()
    opened.close()
    opened.close()
    calls: list[Callable[[], object]] = [
        lambda: opened.get(b"key"),
        lambda: opened.write([b"k"], [b"v"], sync=False),
    ]
    for call in calls:
        with pytest.raises(Unavailable):
            call()
    assert opened.number("rocksdb.estimate-num-keys") == 0


def test_close_waits_for_reads_that_run(opener: RocksOpener) -> None:
    opened = opener.open()
    keys = [number.to_bytes(4, "big") for number in range(2_000)]
    opened.write(keys, keys, sync=False)
    unexpected: list[BaseException] = []

    def read() -> None:
        try:
            while True:
                assert opened.get_many(keys) == keys
        except Unavailable:
            return
        except BaseException as error:  # noqa: BLE001 - shown by the test
            unexpected.append(error)

    readers = [threading.Thread(target=read) for _ in range(2)]
    for reader in readers:
        reader.start()
    opened.close()
    for reader in readers:
        reader.join(LIMIT_S)
    assert unexpected == []


def test_read_only_store_reads_and_refuses_writes(opener: RocksOpener) -> None:
    opened = opener.open()
    opened.write([b"key"], [b"value"], sync=False)
    opened.close()
    opened = opener.open_read_only()
    assert opened.get(b"key") == b"value"
    with pytest.raises(Unavailable):
        opened.write([b"key"], [b"other"], sync=False)
    opened.close()


def test_probe_leaves_nothing_behind(opener: RocksOpener, store: RocksStore, tmp_path: Path) -> None:
    opener.probe()
    assert not (tmp_path / "shard" / PROBE_NAME).exists()


def test_table_file_with_a_flipped_bit_is_data_loss(opener: RocksOpener, tmp_path: Path) -> None:
    keys = [number.to_bytes(4, "big") for number in range(1_000)]
    opened = opener.open()
    opened.write(keys, [key * 30 for key in keys], sync=False)
    opened.flush()
    opened.close()
    (table,) = (tmp_path / "shard").glob("*.sst")
    data = bytearray(table.read_bytes())
    data[100] ^= 1
    table.write_bytes(data)
    with pytest.raises(DataLoss):
        read_all(opener, keys)


def read_all(opener: RocksOpener, keys: list[bytes]) -> None:
    opened = opener.open()
    try:
        opened.get_many(keys)
    finally:
        opened.close()


@pytest.mark.parametrize(
    ("message", "kind", "reason"),
    [
        ("IO error: No space left on device: While appending to file", ResourceExhausted, "DISK_FULL"),
        ("IO error: Disk quota exceeded", ResourceExhausted, "DISK_FULL"),
        ("IO error: Input/output error: While fsync", Unavailable, "STORAGE_IO"),
        ("IO error: Read-only file system: While open a file", Unavailable, "STORAGE_READ_ONLY"),
        ("IO error: Too many open files", Unavailable, "STORAGE_READ_ONLY"),
        ("IO error: No such file or directory: While open a file for random read", DataLoss, "STORAGE_CORRUPT"),
        ("Corruption: block checksum mismatch: stored = 1", DataLoss, "STORAGE_CORRUPT"),
        ("Already borrowed", InternalError, "STORAGE"),
    ],
)
def test_messages_of_rocksdb_become_errors_of_ours(
    message: str, kind: type[HeadraceError], reason: str, tmp_path: Path
) -> None:
    error = translated(Exception(message), tmp_path)
    assert (type(error), error.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("total", "shards", "share"), [(1_024, 8, 96), (100, 8, DESCRIPTORS_MIN), (10**6, 8, DESCRIPTORS_MAX)]
)
def test_descriptors_are_shared_within_bounds(total: int, shards: int, share: int) -> None:
    assert descriptors_per_shard(total, shards) == share
