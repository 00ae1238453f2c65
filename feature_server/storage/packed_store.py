"""A store whose rows of some views lie together: whoever reads and writes rows sees each under its own key."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from feature_server.domain.row_store import RowStore, StoreOpener
from feature_server.domain.storage_keys import VIEW_ID_BYTES, is_record
from feature_server.storage.packed_rows import (
    Packing,
    Places,
    decode_pack,
    encode_pack,
    rows_of,
)


class PackedStore:
    """Rows of one shard. A write of one row of a pack reads the pack and writes it anew, in the same batch."""

    def __init__(self, store: RowStore, packings: Sequence[Packing]) -> None:
        self._store = store
        self._places = Places(packings)
        self.is_read_only = store.is_read_only

    def get(self, key: bytes) -> bytes | None:
        """Value of one key."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Values in the order of the keys; a pack is read once, however many of its rows are asked for."""
        packs = self._places.packs
        wanted: list[tuple[bytes, int | None]] = []
        stored: dict[bytes, None] = {}
        for key in keys:  # the work of Places.of, without a call for every key
            member = packs.get(key[-VIEW_ID_BYTES:])
            if member is not None and is_record(key):
                member = None
            place = key if member is None else key[:-VIEW_ID_BYTES] + member[1]
            wanted.append((place, None if member is None else member[0]))
            stored[place] = None
        values = self._store.get_many(list(stored))
        if len(values) == 1 and wanted[0][1] is not None:
            held = {} if values[0] is None else decode_pack(values[0])
            return [held.get(view_id) for _, view_id in wanted if view_id is not None]
        found = dict(zip(stored, values, strict=True))
        opened: dict[bytes, dict[int, bytes]] = {}
        rows: list[bytes | None] = []
        for place, view_id in wanted:
            if view_id is None:
                rows.append(found[place])
                continue
            if place not in opened:
                data = found[place]
                opened[place] = {} if data is None else decode_pack(data)
            rows.append(opened[place].get(view_id))
        return rows

    def write(self, keys: Sequence[bytes], values: Sequence[bytes], *, sync: bool) -> None:
        """Writes all or none."""
        changed: dict[bytes, dict[int, bytes]] = {}
        stored: dict[bytes, bytes] = {}
        for key, value in zip(keys, values, strict=True):
            place, view_id = self._places.of(key)
            if view_id is None:
                stored[place] = value
            else:
                changed.setdefault(place, {})[view_id] = value
        if changed:
            for (place, rows), data in zip(changed.items(), self._store.get_many(list(changed)), strict=True):
                stored[place] = encode_pack(rows if data is None else decode_pack(data) | rows)
        self._store.write(list(stored), list(stored.values()), sync=sync)

    def scan(self, start: bytes, count: int) -> list[tuple[bytes, bytes]]:
        """Rows from a key on, under their own keys; those of one entity are never parted."""
        rows: list[tuple[bytes, bytes]] = []
        place = start
        while len(rows) < count:
            entries = self._store.scan(place, count)
            is_end = len(entries) < count
            # A pack lies behind the rows that do not lie in it, whatever their order.
            while not is_end:
                more = self._store.scan(entries[-1][0] + b"\0", 1)
                is_end = not more
                if is_end or more[0][0][:-VIEW_ID_BYTES] != entries[-1][0][:-VIEW_ID_BYTES]:
                    break
                entries += more
            found = [row for key, value in entries for row in rows_of(key, value).items() if row[0] >= start]
            rows += sorted(found)
            if is_end:
                break
            place = entries[-1][0] + b"\0"
        return rows

    def replace(self, removed: Iterable[bytes], stored: Mapping[bytes, bytes]) -> None:
        """Removes rows and writes others, all or none."""
        gone: dict[bytes, set[int]] = {}
        changed: dict[bytes, dict[int, bytes]] = {}
        keys: list[bytes] = []
        entries: dict[bytes, bytes] = {}
        for key in removed:
            place, view_id = self._places.of(key)
            if view_id is None:
                keys.append(place)
            else:
                gone.setdefault(place, set()).add(view_id)
        for key, value in stored.items():
            place, view_id = self._places.of(key)
            if view_id is None:
                entries[place] = value
            else:
                changed.setdefault(place, {})[view_id] = value
        places = list(dict.fromkeys([*gone, *changed]))
        for place, data in zip(places, self._store.get_many(places), strict=True):
            held = {} if data is None else decode_pack(data)
            rows = {view_id: row for view_id, row in held.items() if view_id not in gone.get(place, ())}
            rows |= changed.get(place, {})
            if rows:
                entries[place] = encode_pack(rows)
            else:
                keys.append(place)
        self._store.replace(keys, entries)

    def disk_bytes(self) -> int:
        """Bytes of the files."""
        return self._store.disk_bytes()

    def checkpoint(self, folder: Path) -> None:
        """A whole copy, packed as the store is."""
        self._store.checkpoint(folder)

    def anchor(self) -> None:
        """Notes how far the store durably is."""
        self._store.anchor()

    def close(self) -> None:
        """Lets go of files and memory."""
        self._store.close()


class PackedOpener:
    """Opens such a store."""

    def __init__(self, opener: StoreOpener, packings: Sequence[Packing]) -> None:
        self._opener = opener
        self._packings = packings

    def open(self) -> PackedStore:
        """For reads and writes."""
        return PackedStore(self._opener.open(), self._packings)

    def open_read_only(self) -> PackedStore:
        """For reads alone."""
        return PackedStore(self._opener.open_read_only(), self._packings)

    def probe(self) -> None:
        """Whether the disk takes writes."""
        self._opener.probe()

    def remove(self) -> None:
        """Deletes what the store was."""
        self._opener.remove()

    def install(self, folder: Path) -> None:
        """Puts a checkpoint in the place of the store; it has to be packed alike."""
        self._opener.install(folder)
