"""Twin of core_ext.keys: canonical key bytes."""

import struct
from collections.abc import Sequence
from typing import Final

from core_ext.twin.hashing import SLOT_COUNT, xxh3_64

KEY_BYTES_MAX: Final = 1024
KEY_BYTES_MIN: Final = 4
KEY_PARTS_MAX: Final = 8

_I64, _STRING, _BYTES = 3, 6, 7  # element types of headrace.types
_TAGS: Final = {_I64: 1, _STRING: 2, _BYTES: 3}


def encode_key(types: Sequence[int], values: Sequence[int | str | bytes]) -> bytes:
    """Entity key of one entity. Raises ValueError."""
    if not 1 <= len(types) <= KEY_PARTS_MAX or len(values) != len(types):
        raise ValueError(f"{len(values)} values for {len(types)} parts")
    key = b"".join(_encode_part(scalar, value) for scalar, value in zip(types, values, strict=True))
    if len(key) > KEY_BYTES_MAX:
        raise ValueError(f"the key is longer than {KEY_BYTES_MAX} bytes")
    return key


def _encode_part(scalar: int, value: int | str | bytes) -> bytes:
    if scalar == _I64 and type(value) is int and -(2**63) <= value < 2**63:
        return struct.pack(">BQ", _TAGS[scalar], value + 2**63)
    if scalar == _STRING and isinstance(value, str):
        value = value.encode()
    elif scalar != _BYTES or not isinstance(value, bytes):
        raise ValueError(f"type {scalar} cannot hold {value!r}")
    if not 1 <= len(value) <= KEY_BYTES_MAX:
        raise ValueError(f"a part of {len(value)} bytes is empty or too long")
    return struct.pack(">BH", _TAGS[scalar], len(value)) + value


def decode_key(key: bytes) -> tuple[int | str | bytes, ...]:
    """Parts of an entity key. Raises ValueError."""
    parts: list[int | str | bytes] = []
    rest = key
    if not KEY_BYTES_MIN <= len(key) <= KEY_BYTES_MAX:
        raise ValueError("the key is too short or too long")
    while rest:
        part, rest = _decode_part(rest)
        parts.append(part)
    if len(parts) > KEY_PARTS_MAX:
        raise ValueError("the key has too many parts")
    return tuple(parts)


def _decode_part(rest: bytes) -> tuple[int | str | bytes, bytes]:
    if rest[0] == _TAGS[_I64] and len(rest) >= 9:
        return int.from_bytes(rest[1:9], "big") - 2**63, rest[9:]
    size = int.from_bytes(rest[1:3], "big")
    if rest[0] not in (_TAGS[_STRING], _TAGS[_BYTES]) or size == 0 or len(rest) < 3 + size:
        raise ValueError("the key is malformed")
    data = rest[3 : 3 + size]
    return (data.decode() if rest[0] == _TAGS[_STRING] else data), rest[3 + size :]


def entity_prefix(entity_id: int, key: bytes) -> bytes:
    """Entity id and key."""
    return entity_id.to_bytes(4, "big") + key


def storage_key(entity_id: int, key: bytes, view_id: int) -> bytes:
    """Entity id, key, view id."""
    return entity_prefix(entity_id, key) + view_id.to_bytes(4, "big")


def split_storage_key(storage_key: bytes) -> tuple[int, bytes, int]:
    """Entity id, entity key, view id. Raises ValueError when too short."""
    if len(storage_key) < 4 + KEY_BYTES_MIN + 4:
        raise ValueError("the storage key is too short")
    return int.from_bytes(storage_key[:4], "big"), storage_key[4:-4], int.from_bytes(storage_key[-4:], "big")


def slot_of_key(key: bytes) -> int:
    """Slot of an entity key."""
    return xxh3_64(key) % SLOT_COUNT


def shard_of_slot(slot: int, shard_count: int) -> int:
    """Shard that owns a slot."""
    if shard_count not in {2**power for power in range(11)} or slot not in range(SLOT_COUNT):
        raise ValueError(f"slot {slot} or shard count {shard_count} is out of range")
    return slot * shard_count // SLOT_COUNT
