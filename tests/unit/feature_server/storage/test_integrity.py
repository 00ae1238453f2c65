"""Folders of shards that lost files or parts of them, which RocksDB alone would open as an older state."""

from collections.abc import Callable
from pathlib import Path

import pytest

from feature_server.storage.integrity import ANCHOR_SUFFIX, noted_sequence
from feature_server.storage.rocks import RocksOpener, RocksStore
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from headrace.errors import DataLoss

ROW_COUNT = 30


def opener(path: Path) -> RocksOpener:
    return RocksOpener(path, shard_options(SharedMemory(StoreBudget()), shard_count=1))


def write(store: RocksStore, first: int) -> None:
    for number in range(first, first + ROW_COUNT):
        store.write([b"%06d" % number], [b"v" * 100], sync=True)


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    """A folder that was closed and opened twice: tables, a manifest, a log and an anchor."""
    path = tmp_path / "shard-0000"
    for life in range(3):
        store = opener(path).open()
        store.anchor()
        write(store, life * ROW_COUNT)
        store.anchor()
        store.close()
    return path


def rows_of(path: Path) -> int:
    store = opener(path).open()
    try:
        return sum(value is not None for value in store.get_many([b"%06d" % number for number in range(3 * ROW_COUNT)]))
    finally:
        store.close()


def test_whole_shard_opens_again_and_again(shard: Path) -> None:
    assert noted_sequence(shard) == 3 * ROW_COUNT
    assert [rows_of(shard) for _ in range(3)] == [3 * ROW_COUNT] * 3


def test_new_shard_opens(tmp_path: Path) -> None:
    store = opener(tmp_path / "shard-0001").open()
    assert noted_sequence(tmp_path / "shard-0001") is None
    store.close()


def remove(pattern: str) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        found = list(path.glob(pattern))
        assert found
        for file in found:
            file.unlink()

    return damage


def remove_everything(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()
    path.rmdir()


def cut_manifest(path: Path) -> None:
    manifest = path / (path / "CURRENT").read_text().strip()
    data = manifest.read_bytes()
    manifest.write_bytes(data[: len(data) // 2])


def change_anchor(path: Path) -> None:
    anchor = path.with_name(path.name + ANCHOR_SUFFIX)
    anchor.write_bytes(anchor.read_bytes()[:-1] + b"\x7f")


@pytest.mark.parametrize(
    "damage",
    [remove("CURRENT"), remove("MANIFEST-*"), remove("*.sst"), remove_everything, cut_manifest, change_anchor],
    ids=["CURRENT", "MANIFEST", "tables", "folder", "cut manifest", "anchor"],
)
def test_lost_files_are_noticed_and_nothing_is_removed(shard: Path, damage: Callable[[Path], None]) -> None:
    damage(shard)
    left = sorted(path.name for path in shard.rglob("*.sst")) if shard.exists() else []
    for _ in range(2):
        with pytest.raises(DataLoss) as caught:
            opener(shard).open()
        assert caught.value.reason in {"SHARD_FILES_LOST", "STORAGE_CORRUPT", "FILE_CORRUPT", "LOG_CORRUPT"}
    assert (sorted(path.name for path in shard.rglob("*.sst")) if shard.exists() else []) == left


def test_lost_log_is_noticed(tmp_path: Path) -> None:
    """The process ends without a close, so that its rows lie in the log alone."""
    path = tmp_path / "shard-0000"
    store = opener(path).open()
    write(store, 0)
    store.anchor()
    logs = {log: log.read_bytes() for log in path.glob("*.log")}
    files = {file: file.read_bytes() for file in path.iterdir() if file.is_file() and file not in logs}
    store.close()
    remove_everything(path)
    path.mkdir()
    for file, data in files.items():
        file.write_bytes(data)
    with pytest.raises(DataLoss, match="once held write 30 and now ends at 0"):
        opener(path).open()
    for file, data in logs.items():
        file.write_bytes(data)
    assert rows_of(path) == ROW_COUNT


def test_shard_moved_away_with_its_anchor_starts_empty(shard: Path) -> None:
    remove_everything(shard)
    shard.with_name(shard.name + ANCHOR_SUFFIX).unlink()
    assert rows_of(shard) == 0
