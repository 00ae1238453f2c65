"""Rows of several views of one entity under one key of storage, and which views those are.

A pack is u8 0xD9, u8 1, u16 count, u32 CRC-32C of the directory; per row u32 view id, u32 length; the rows one after
another, whole as they are stored alone, each with a checksum of its own. Numbers are little-endian.
"""

import json
import struct
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final

from core_ext.hashing import crc32c
from feature_server.domain.storage_keys import VIEW_ID_BYTES, is_record, view_id_of
from feature_server.storage.files import read_file, write_file
from headrace.errors import DataLoss

PACK_BIT: Final = 1 << 31  # of a view id: those of the registry stay far below
LAYOUT_NAME: Final = "layout"

_MAGIC: Final = 0xD9
_VERSION: Final = 1
_HEADER: Final = struct.Struct("<BBHI")


@dataclass(frozen=True, slots=True)
class Packing:
    """Views of one entity whose rows lie together, by their ids in ascending order."""

    entity_id: int
    view_ids: tuple[int, ...]

    @property
    def pack_id(self) -> int:
        """What stands in the place of a view id in the key of a pack."""
        return PACK_BIT | self.view_ids[0]


@dataclass(frozen=True, slots=True)
class StoreLayout:
    """How the rows of a store lie; not whole while they are on their way from one layout to another."""

    packings: tuple[Packing, ...] = ()
    is_whole: bool = True


def read_layout(folder: Path) -> StoreLayout:
    """That of a store; without a file every row has a key of its own. Raises DataLoss where the file is damaged."""
    stored = read_file(folder / LAYOUT_NAME)
    if stored is None:
        return StoreLayout()
    fields = json.loads(stored)
    packings = tuple(Packing(one["entity_id"], tuple(one["view_ids"])) for one in fields["packings"])
    return StoreLayout(packings, fields["is_whole"])


def write_layout(folder: Path, layout: StoreLayout) -> None:
    """Replaces the file; it is whole after a crash at any point."""
    write_file(folder / LAYOUT_NAME, json.dumps(asdict(layout)).encode())


@lru_cache(64)
def _directory(count: int) -> struct.Struct:
    return struct.Struct(f"<{2 * count}I")


def encode_pack(rows: Mapping[int, bytes]) -> bytes:
    """Bytes of a pack of rows by view id."""
    numbers = [number for view_id, row in rows.items() for number in (view_id, len(row))]
    directory = _directory(len(rows)).pack(*numbers)
    return b"".join([_HEADER.pack(_MAGIC, _VERSION, len(rows), crc32c(directory)), directory, *rows.values()])


def decode_pack(data: bytes) -> dict[int, bytes]:
    """Rows by view id; raises DataLoss where the bytes are no pack. Rows have checksums of their own."""
    if len(data) < _HEADER.size:
        raise _damaged("it has no header")
    magic, version, count, checksum = _HEADER.unpack_from(data)
    form = _directory(count)
    end = _HEADER.size + form.size
    if magic != _MAGIC or version != _VERSION or len(data) < end or crc32c(data[_HEADER.size : end]) != checksum:
        raise _damaged("its header or directory is wrong")
    numbers = iter(form.unpack_from(data, _HEADER.size))
    rows = {}
    for view_id in numbers:
        start, end = end, end + next(numbers)
        rows[view_id] = data[start:end]
    if end != len(data):
        raise _damaged("its length is wrong")
    return rows


class Places:
    """Where the row of a storage key lies."""

    def __init__(self, packings: Iterable[Packing]) -> None:
        self.packs: Final = {
            view_id.to_bytes(VIEW_ID_BYTES, "big"): (view_id, packing.pack_id.to_bytes(VIEW_ID_BYTES, "big"))
            for packing in packings
            for view_id in packing.view_ids
        }

    def of(self, key: bytes) -> tuple[bytes, int | None]:
        """The key under which it is stored, and its view id where that is a pack."""
        found = None if is_record(key) else self.packs.get(key[-VIEW_ID_BYTES:])
        return (key, None) if found is None else (key[:-VIEW_ID_BYTES] + found[1], found[0])

    def stored(self, rows: Mapping[bytes, bytes]) -> dict[bytes, bytes]:
        """What is stored of rows by their storage keys; packs hold no other rows than these."""
        out: dict[bytes, bytes] = {}
        packs: dict[bytes, dict[int, bytes]] = {}
        for key, row in rows.items():
            place, view_id = self.of(key)
            if view_id is None:
                out[place] = row
            else:
                packs.setdefault(place, {})[view_id] = row
        return out | {place: encode_pack(held) for place, held in packs.items()}


def rows_of(key: bytes, value: bytes) -> dict[bytes, bytes]:
    """Rows by their storage keys of what is stored under a key, whatever the layout."""
    if is_record(key) or not view_id_of(key) & PACK_BIT:
        return {key: value}
    prefix = key[:-VIEW_ID_BYTES]
    return {prefix + view_id.to_bytes(VIEW_ID_BYTES, "big"): row for view_id, row in decode_pack(value).items()}


def joined(packings: Sequence[Packing], added: Sequence[Packing]) -> tuple[Packing, ...]:
    """Packings with others added; one that shares a view with an added one is replaced by it."""
    taken = {view_id for packing in added for view_id in packing.view_ids}
    return (*(packing for packing in packings if not taken & set(packing.view_ids)), *added)


def _damaged(why: str) -> DataLoss:
    return DataLoss(f"stored rows that lie together are damaged: {why}", reason="STORED_PACK_CORRUPT")
