"""Moves the rows of views that are read together under one key of storage, and measures the store before and after.

Holds the lock of the store, so that no server runs on it. Rows keep their bytes: the content hash of each shard is held
to its record before anything moves and after all has.
"""

import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from core_ext.keys import shard_of_slot, slot_of_key, storage_key
from feature_server.domain.row_store import RowStore
from feature_server.domain.shard_record import RECORD_KEY, decode_record
from feature_server.storage.packed_rows import Packing, StoreLayout, joined, read_layout, write_layout
from feature_server.storage.packed_store import PackedStore
from feature_server.storage.repack import content_hash, repack
from feature_server.storage.rocks import RocksOpener, RocksStore
from feature_server.storage.rocks_options import SharedMemory, StoreBudget, shard_options
from feature_server.storage.store_folder import StoreFolder
from headrace.errors import DataLoss

ROUNDS: Final = 5
TABLE_FILES: Final = "rocksdb.total-sst-files-size"


@dataclass(frozen=True, slots=True)
class Measured:
    """A store as it is."""

    disk_bytes: int
    """Of all table files, compacted."""
    fetch_us: Mapping[str, float]
    """CPU of fetching the rows of one entity, blocks cached, by the name of the packing."""


@dataclass(frozen=True, slots=True)
class Move:
    """Views to pack, under a name for people, and keys of entities that the fetch is measured by."""

    name: str
    packing: Packing
    keys: Sequence[bytes]


def apply(folder: Path, moves: Sequence[Move]) -> dict[str, Any]:
    """Packs the views of each move; rows moved, and figures before and after. Run again after a crash it goes on."""
    with ExitStack() as stack:
        store_folder = stack.enter_context(closing(StoreFolder(folder)))
        now = read_layout(folder)
        wanted = joined(now.packings, [move.packing for move in moves])
        options = shard_options(SharedMemory(StoreBudget()), store_folder.identity.shard_count)
        shards: list[RocksStore] = []
        for number in range(store_folder.identity.shard_count):
            shards.append(RocksOpener(store_folder.shard_path(number), options).open())
            stack.callback(shards[-1].close)
        _check(shards)
        before = _measured(shards, now.packings, moves)
        store_folder.allow_packs()
        write_layout(folder, StoreLayout(wanted, is_whole=False))
        moved = sum(repack(shard, wanted) for shard in shards)
        _check(shards)
        after = _measured(shards, wanted, moves)
        for shard in shards:
            shard.anchor()
        write_layout(folder, StoreLayout(wanted))
    return {"rows_moved": moved, "before": asdict(before), "after": asdict(after)}


def trial(packing: Packing, entities: Mapping[bytes, Mapping[int, bytes]]) -> tuple[float, float]:
    """CPU of fetching the rows of one entity as they lie apart and as they would lie together, in a scratch store."""
    move = Move("trial", packing, sorted(entities))
    rows = {
        storage_key(packing.entity_id, key, view_id): row
        for key, held in entities.items()
        for view_id, row in held.items()
    }
    with tempfile.TemporaryDirectory(prefix="headrace-layout-") as scratch:
        store = RocksStore(Path(scratch) / "trial", shard_options(SharedMemory(StoreBudget()), 1))
        try:
            store.write(list(rows), list(rows.values()), sync=False)
            store.compact()
            apart_us = _fetch_us([store], move)
            repack(store, [packing])
            store.compact()
            return apart_us, _fetch_us([PackedStore(store, [packing])], move)
        finally:
            store.close()


def _check(shards: Sequence[RocksStore]) -> None:
    for number, shard in enumerate(shards):
        data = shard.get(RECORD_KEY)
        if data is not None and decode_record(data).content_hash != content_hash(shard):
            raise DataLoss(
                f"rows of shard {number} are not those of its record; rebuild the shard before its layout changes",
                reason="CONTENT_HASH",
                metadata={"shard": str(number)},
            )


def _measured(shards: Sequence[RocksStore], packings: Sequence[Packing], moves: Sequence[Move]) -> Measured:
    for shard in shards:
        shard.compact()
    stores: list[RowStore] = [PackedStore(shard, packings) if packings else shard for shard in shards]
    fetches = {move.name: _fetch_us(stores, move) for move in moves}
    return Measured(sum(shard.number(TABLE_FILES) for shard in shards), fetches)


def _fetch_us(stores: Sequence[RowStore], move: Move) -> float:
    """Of some rounds; the first one finds no block in the cache and does not count."""
    asked = [
        (
            stores[shard_of_slot(slot_of_key(key), len(stores))],
            [storage_key(move.packing.entity_id, key, view_id) for view_id in move.packing.view_ids],
        )
        for key in move.keys
    ]
    rounds = []
    for _ in range(ROUNDS):
        began_ns = time.thread_time_ns()
        for store, keys in asked:
            store.get_many(keys)
        rounds.append((time.thread_time_ns() - began_ns) / len(asked) / 1_000)
    return statistics.median(rounds[1:])
