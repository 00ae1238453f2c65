"""Takes the rows of a snapshot into a copy, and holds them to the digest that their owner gave."""

from collections.abc import Sequence
from operator import add
from typing import Final

from core_ext.hashing import xxh3_64
from feature_server.ring.log import CopyStore, LogRows
from headrace.errors import DataLoss

HASH_MASK: Final = (1 << 64) - 1


def content_hash(keys: Sequence[bytes], rows: Sequence[bytes], before: int = 0) -> int:
    """Sum of the hashes of all rows, as shards keep it: it does not depend on their order."""
    return (before + sum(map(xxh3_64, map(add, keys, rows)))) & HASH_MASK


class SnapshotIntake:
    """One snapshot on its way into a store, which is emptied first."""

    def __init__(self, shard: int, store: CopyStore) -> None:
        self._shard = shard
        self._store = store
        self._hash = 0
        store.begin()

    def take(self, keys: Sequence[bytes], rows: Sequence[bytes]) -> None:
        """The next rows, each key once in a snapshot."""
        self._hash = content_hash(keys, rows, self._hash)
        self._store.apply(LogRows(0, 0, keys, rows))

    def finish(self, next_offset: int, expected_hash: int) -> None:
        """All rows are here, and hold the log before an offset; raises DataLoss where they are not what was sent."""
        if self._hash != expected_hash:
            self._store.begin()
            raise DataLoss(
                f"the snapshot of shard {self._shard} has digest {self._hash:016x} and was to have "
                f"{expected_hash:016x}; it is taken again",
                reason="SNAPSHOT_DAMAGED",
                metadata={"shard": str(self._shard)},
            )
        self._store.apply(LogRows(0, next_offset))
