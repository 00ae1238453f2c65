"""Moves the rows of a shard to where a layout wants them, while no server has it open."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Final

from core_ext.hashing import xxh3_64
from feature_server.domain.shard_record import HASH_MASK
from feature_server.domain.storage_keys import VIEW_ID_BYTES, is_record
from feature_server.storage.packed_rows import Packing, Places, rows_of
from feature_server.storage.rocks import RocksStore

BATCH_ROWS: Final = 2_000  # of one write: a few megabytes


def repack(store: RocksStore, packings: Sequence[Packing]) -> int:
    """Rows that were moved; run again after a crash it goes on.

    An entity's rows move in one write, so that each is in one place or the other at any moment.
    """
    places = Places(packings)
    removed: list[bytes] = []
    stored: dict[bytes, bytes] = {}
    moved = 0
    for entries in _entities(store):
        rows = {key: row for place, value in entries.items() for key, row in rows_of(place, value).items()}
        wanted = places.stored(rows)
        if wanted.keys() == entries.keys():
            continue
        removed += entries.keys() - wanted.keys()
        stored |= {place: value for place, value in wanted.items() if entries.get(place) != value}
        moved += len(rows)
        if len(stored) + len(removed) >= BATCH_ROWS:
            store.replace(removed, stored)
            removed, stored = [], {}
    if removed or stored:
        store.replace(removed, stored)
    return moved


def content_hash(store: RocksStore) -> int:
    """Of all rows, as the shard's record has it, whatever their layout."""
    total = 0
    for entries in _entities(store):
        for place, value in entries.items():
            total += sum(xxh3_64(key + row) for key, row in rows_of(place, value).items())
    return total & HASH_MASK


def _entities(store: RocksStore) -> Iterator[dict[bytes, bytes]]:
    """What is stored of each entity, by key; keys of one entity differ in their last bytes alone."""
    rows = ((key, value) for key, value in store.items() if not is_record(key))
    for _, entries in groupby(rows, key=lambda entry: entry[0][:-VIEW_ID_BYTES]):
        yield dict(entries)
