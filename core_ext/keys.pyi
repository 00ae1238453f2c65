"""Canonical key bytes: one form for storage, hashing and equality."""

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from core_ext.row_codec import ArrowColumn

KEY_BYTES_MAX: int
KEY_PARTS_MAX: int

def encode_key(types: Sequence[int], values: Sequence[int | str | bytes]) -> bytes:
    """Entity key of one entity. Raises ValueError for a wrong type, an empty or overlong part, i64 overflow."""

def decode_key(key: bytes) -> tuple[int | str | bytes, ...]:
    """Parts of an entity key. Raises ValueError when it is malformed."""

def entity_prefix(entity_id: int, key: bytes) -> bytes: ...
def storage_key(entity_id: int, key: bytes, view_id: int) -> bytes: ...
def split_storage_key(storage_key: bytes) -> tuple[int, bytes, int]:
    """Entity id, entity key, view id. Raises ValueError when too short."""

def slot_of_key(key: bytes) -> int: ...
def shard_of_slot(slot: int, shard_count: int) -> int: ...

@final
class KeyBatch:
    """Entity keys of many rows in one buffer."""

    slots: NDArray[np.uint16]
    def __len__(self) -> int: ...
    def key(self, index: int) -> bytes: ...
    def storage_keys(self, entity_id: int, view_id: int, indexes: NDArray[np.int64]) -> list[bytes]: ...

def encode_keys(types: Sequence[int], columns: Sequence[ArrowColumn]) -> KeyBatch:
    """Entity keys from key columns in join-key order. Raises ValueError naming column and row for a null or bad key."""
