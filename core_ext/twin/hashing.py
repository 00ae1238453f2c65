"""Twin of core_ext.hashing: XXH3-64 with seed 0, CRC-32C, slots."""

import struct
from typing import Final

SLOT_COUNT: Final = 1024

_MASK: Final = 0xFFFFFFFFFFFFFFFF
_PRIME32: Final = (0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D)
_PRIME64: Final = (0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5)
_PRIME_MX1: Final = 0x165667919E3779F9
_PRIME_MX2: Final = 0x9FB21C651E98DF25
_SECRET: Final = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671f"
    "cb79e64eccc0e578825ad07dccff7221b8084674f743248ee03590e6813a264c"
    "3c2852bb91c300cb88d0658b1b532ea371644897a20df94e3819ef46a9deacd8"
    "a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931c89f7ec9d9787364"
    "eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)
_BLOCK_BYTES: Final = 1024
_STRIPE_BYTES: Final = 64


def xxh3_64(data: bytes) -> int:
    """XXH3 64-bit hash with seed 0."""
    if len(data) <= 16:
        return _hash_short(data)
    if len(data) <= 240:
        return _hash_middle(data)
    return _hash_long(data)


def content_hash_of(rows: dict[bytes, bytes]) -> int:
    """Sum, modulo 2^64, of the hashes of each key with its row behind it."""
    return sum(xxh3_64(key + row) for key, row in rows.items()) & _MASK


def _u64(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 8], "little")


def _rotate(value: int, bits: int) -> int:
    return (value << bits | value >> (64 - bits)) & _MASK


def _fold(a: int, b: int) -> int:
    product = a * b
    return (product ^ product >> 64) & _MASK


def _avalanche_64(value: int) -> int:
    value = (value ^ value >> 33) * _PRIME64[1] & _MASK
    value = (value ^ value >> 29) * _PRIME64[2] & _MASK
    return value ^ value >> 32


def _avalanche(value: int) -> int:
    value &= _MASK
    value = (value ^ value >> 37) * _PRIME_MX1 & _MASK
    return value ^ value >> 32


def _hash_short(data: bytes) -> int:
    size = len(data)
    if size > 8:
        low = _u64(data, 0) ^ _u64(_SECRET, 24) ^ _u64(_SECRET, 32)
        high = _u64(data, size - 8) ^ _u64(_SECRET, 40) ^ _u64(_SECRET, 48)
        swapped = int.from_bytes(low.to_bytes(8, "little"), "big")
        return _avalanche(size + swapped + high + _fold(low, high))
    if size >= 4:
        mixed = int.from_bytes(data[:4], "little") << 32 | int.from_bytes(data[-4:], "little")
        mixed ^= _u64(_SECRET, 8) ^ _u64(_SECRET, 16)
        mixed = (mixed ^ _rotate(mixed, 49) ^ _rotate(mixed, 24)) * _PRIME_MX2 & _MASK
        mixed = (mixed ^ (mixed >> 35) + size) * _PRIME_MX2 & _MASK
        return mixed ^ mixed >> 28
    if size == 0:
        return _avalanche_64(_u64(_SECRET, 56) ^ _u64(_SECRET, 64))
    mixed = data[0] << 16 | data[size >> 1] << 24 | size << 8 | data[-1]
    return _avalanche_64(mixed ^ _u64(_SECRET, 0) & 0xFFFFFFFF ^ _u64(_SECRET, 0) >> 32)


def _mix(data: bytes, at: int, secret_at: int) -> int:
    return _fold(_u64(data, at) ^ _u64(_SECRET, secret_at), _u64(data, at + 8) ^ _u64(_SECRET, secret_at + 8))


def _hash_middle(data: bytes) -> int:
    size = len(data)
    total = size * _PRIME64[0]
    if size <= 128:
        for i in range((size - 1) // 32 + 1):
            total += _mix(data, 16 * i, 32 * i) + _mix(data, size - 16 * (i + 1), 32 * i + 16)
        return _avalanche(total)
    total = _avalanche(total + sum(_mix(data, 16 * i, 16 * i) for i in range(8)))
    total += sum(_mix(data, 16 * i, 16 * (i - 8) + 3) for i in range(8, size // 16))
    return _avalanche(total + _mix(data, size - 16, 119))


def _add_stripe(lanes: list[int], data: bytes, at: int, secret_at: int) -> None:
    for i in range(8):
        value = _u64(data, at + 8 * i)
        key = value ^ _u64(_SECRET, secret_at + 8 * i)
        lanes[i ^ 1] = lanes[i ^ 1] + value & _MASK
        lanes[i] = lanes[i] + (key & 0xFFFFFFFF) * (key >> 32) & _MASK


def _hash_long(data: bytes) -> int:
    size = len(data)
    lanes = [_PRIME32[2], *_PRIME64[:4], _PRIME32[1], _PRIME64[4], _PRIME32[0]]
    block_count = (size - 1) // _BLOCK_BYTES
    last_secret = len(_SECRET) - _STRIPE_BYTES
    for at in range(0, (size - 1) // _STRIPE_BYTES * _STRIPE_BYTES, _STRIPE_BYTES):
        _add_stripe(lanes, data, at, at % _BLOCK_BYTES // _STRIPE_BYTES * 8)
        if (at + _STRIPE_BYTES) % _BLOCK_BYTES == 0 and at < block_count * _BLOCK_BYTES:
            for i, lane in enumerate(lanes):
                lanes[i] = (lane ^ lane >> 47 ^ _u64(_SECRET, last_secret + 8 * i)) * _PRIME32[0] & _MASK
    _add_stripe(lanes, data, size - _STRIPE_BYTES, last_secret - 7)
    total = size * _PRIME64[0]
    for i in range(0, 8, 2):
        total += _fold(lanes[i] ^ _u64(_SECRET, 11 + 8 * i), lanes[i + 1] ^ _u64(_SECRET, 19 + 8 * i))
    return _avalanche(total)


def _crc_entry(index: int) -> int:
    for _ in range(8):
        index = index >> 1 ^ (0x82F63B78 if index & 1 else 0)
    return index


_CRC_TABLE: Final = tuple(_crc_entry(index) for index in range(256))


def crc32c(data: bytes, value: int = 0) -> int:
    """CRC-32C (Castagnoli), continuing from `value`."""
    crc = value ^ 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def with_checksum(body: bytes) -> bytes:
    """Body and its CRC-32C, as rows end."""
    return body + struct.pack("<I", crc32c(body))
