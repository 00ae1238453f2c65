"""Damage to the files of a stopped server, and what a shard's folder holds when its engine opens it alone."""

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core_ext.row_codec import check_row
from feature_server.domain.shard_record import RECORD_KEY, decode_record
from feature_server.storage.integrity import ANCHOR_SUFFIX
from feature_server.storage.rocks import RocksOpener
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from headrace.errors import DataLoss
from tests.cluster.checker import HASH_MODULUS, hash_of_row


def shard_folders(data: Path) -> list[Path]:
    """Folders of the shards in the order of their numbers."""
    return sorted(path.parent for path in data.rglob("CURRENT") if not path.is_symlink())


def logs(shard: Path) -> list[Path]:
    """Write-ahead logs with content, oldest first."""
    return sorted(path for path in shard.glob("*.log") if path.stat().st_size)


def tables(shard: Path) -> list[Path]:
    """SST files, oldest first."""
    return sorted(shard.glob("*.sst"))


def manifest(shard: Path) -> Path:
    """The manifest that CURRENT names."""
    return shard / (shard / "CURRENT").read_text().strip()


def flip_bit(path: Path, at: int, source: random.Random) -> None:
    """Changes one bit of the byte at a position."""
    data = bytearray(path.read_bytes())
    data[at] ^= 1 << source.randrange(8)
    path.write_bytes(data)


def swap(first: Path, second: Path) -> None:
    """Exchanges the contents of two files."""
    one, other = first.read_bytes(), second.read_bytes()
    first.write_bytes(other)
    second.write_bytes(one)


@dataclass(frozen=True, slots=True)
class Content:
    """What a shard's folder held: the offset after its last row, and its rows by key."""

    next_offset: int
    rows: dict[bytes, bytes]


class ShardOpening:
    """Opens copies of one shard's folder with the server's own storage, without a server."""

    def __init__(self, shard: Path, scratch: Path, keys: Sequence[bytes]) -> None:
        self._shard = shard
        self._scratch = scratch
        self._keys = keys
        self._options = shard_options(SharedMemory(StoreBudget()), shard_count=1)

    def copy(self) -> Path:
        """A new copy, which replaces the last one."""
        shutil.rmtree(self._scratch, ignore_errors=True)
        shutil.copytree(self._shard, self._scratch)
        shutil.copy(_anchor(self._shard), _anchor(self._scratch))
        return self._scratch

    def content(self) -> Content | None:
        """What the copy holds, None where the storage said that bytes are lost.

        Whatever is returned is consistent: every row passes its check and the record's content hash is theirs.
        """
        try:
            store = RocksOpener(self._scratch, self._options).open()
        except DataLoss:
            return None
        try:
            data = store.get(RECORD_KEY)
            values = store.get_many(self._keys)
        except DataLoss:
            return None
        finally:
            store.close()
        rows = {key: row for key, row in zip(self._keys, values, strict=True) if row is not None}
        for row in rows.values():
            check_row(row)
        if data is None:
            assert not rows, "rows without a record are part of a batch"
            return Content(0, rows)
        record = decode_record(data)
        total = sum(hash_of_row(key, row) for key, row in rows.items()) % HASH_MODULUS
        assert total == record.content_hash, "the rows found are not those that the record counts"
        return Content(record.next_offset, rows)


def _anchor(shard: Path) -> Path:
    return shard.with_name(shard.name + ANCHOR_SUFFIX)
