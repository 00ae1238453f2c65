"""XXH3-64 and CRC-32C against their twins, the reference library and published vectors."""

import random
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
import xxhash
from hypothesis import given

from core_ext import hashing
from core_ext.twin import hashing as twin

# RFC 3720 appendix B.4, and the check value of the CRC catalogue.
CRC_VECTORS = {
    b"": 0,
    b"123456789": 0xE3069283,
    bytes(32): 0x8A9136AA,
    b"\xff" * 32: 0x62A8AB43,
    bytes(range(32)): 0x46DD794E,
    bytes(range(31, -1, -1)): 0x113FDB5C,
}
LENGTH_MAX = 1100  # past every branch of XXH3: 16, 128, 240 and one block of 1,024


@pytest.mark.parametrize("hash_of", [hashing.xxh3_64, twin.xxh3_64], ids=["core", "twin"])
def test_xxh3_equals_the_reference_at_every_length(hash_of: Callable[[bytes], int], seed: int) -> None:
    data = random.Random(seed).randbytes(LENGTH_MAX)
    wrong = [n for n in range(LENGTH_MAX + 1) if hash_of(data[:n]) != xxhash.xxh3_64_intdigest(data[:n])]
    assert wrong == []


@given(st.binary(max_size=5000))
def test_xxh3_equals_the_reference(data: bytes) -> None:
    assert hashing.xxh3_64(data) == xxhash.xxh3_64_intdigest(data)


@pytest.mark.parametrize("length", [2048, 2049, 8191, 65536, 1_000_003])
def test_xxh3_of_many_blocks(length: int, seed: int) -> None:
    data = random.Random(seed).randbytes(length)
    assert hashing.xxh3_64(data) == xxhash.xxh3_64_intdigest(data)


@pytest.mark.parametrize("checksum", [hashing.crc32c, hashing.crc32c_portable, twin.crc32c])
@pytest.mark.parametrize(("data", "expected"), CRC_VECTORS.items())
def test_crc32c_of_published_vectors(checksum: Callable[[bytes], int], data: bytes, expected: int) -> None:
    assert checksum(data) == expected


@given(st.binary(max_size=600), st.integers(0, 2**32 - 1))
def test_crc32c_equals_its_twin(data: bytes, value: int) -> None:
    expected = twin.crc32c(data, value)
    assert hashing.crc32c(data, value) == expected
    assert hashing.crc32c_portable(data, value) == expected


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_crc32c_continues(head: bytes, tail: bytes) -> None:
    assert hashing.crc32c(tail, hashing.crc32c(head)) == hashing.crc32c(head + tail)


def test_one_flipped_bit_changes_the_checksum(seed: int) -> None:
    data = bytearray(random.Random(seed).randbytes(276))
    before = hashing.crc32c(bytes(data))
    for bit in range(8 * len(data)):
        data[bit // 8] ^= 1 << bit % 8
        assert hashing.crc32c(bytes(data)) != before
        data[bit // 8] ^= 1 << bit % 8


@pytest.mark.parametrize("function", [hashing.xxh3_64, hashing.crc32c])
def test_text_is_refused(function: Callable[[Any], Any]) -> None:
    with pytest.raises(TypeError):
        function("text")


@given(st.dictionaries(st.binary(max_size=40), st.binary(max_size=600), max_size=5))
def test_content_hash_is_the_sum_over_keys_and_rows(rows: dict[bytes, bytes]) -> None:
    expected = sum(xxhash.xxh3_64_intdigest(key + row) for key, row in rows.items()) % 2**64
    assert hashing.content_hash_of(rows) == twin.content_hash_of(rows) == expected


@pytest.mark.parametrize("rows", [{b"key": None}, {None: b"row"}, {b"key": "row"}, {1: b"row"}, None])
def test_content_hash_refuses_what_is_no_bytes(rows: Any) -> None:
    with pytest.raises(TypeError):
        hashing.content_hash_of(rows)
