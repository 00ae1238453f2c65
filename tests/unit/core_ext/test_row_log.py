"""Records of a row log against their twin, and every refusal of bytes that are none."""

import contextlib

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from core_ext.hashing import crc32c
from core_ext.row_log import (
    RECORD_BYTES_MAX,
    RECORD_HEAD_BYTES,
    CorruptRecordError,
    LoggedRows,
    encode_record,
    read_record,
    record_bytes,
    split_records,
)
from core_ext.twin import row_log as twin

KEYS = st.binary(min_size=12, max_size=40)
OFFSETS = st.integers(0, 2**62)
PAIRS = st.lists(st.tuples(KEYS, st.binary(max_size=60)), max_size=6)
GOLDEN = (
    "48525231450000004cca709c01000000030000000000000007000000000000000800000000000000110000000400000000000002"
    "018000000000000007000000090a0b0c0d"
)


def record_of(pairs: list[tuple[bytes, bytes]], first: int = 5, epoch: int = 1) -> bytes:
    return encode_record(epoch, first, first + len(pairs), [key for key, _ in pairs], [row for _, row in pairs])


def taken(data: bytes) -> list[tuple[int, bytes, bytes]]:
    rows = split_records(data)
    places = zip(*(column.tolist() for column in rows), strict=True)
    return [(view, data[key:row], data[row:end]) for view, key, row, end in places]


@given(st.integers(0, 2**62), OFFSETS, OFFSETS, PAIRS)
def test_a_record_is_that_of_the_twin(epoch: int, first: int, following: int, pairs: list[tuple[bytes, bytes]]) -> None:
    keys, rows = [key for key, _ in pairs], [row for _, row in pairs]
    record = encode_record(epoch, first, following, keys, rows)
    assert record == twin.encode_record(epoch, first, following, keys, rows)
    assert record_bytes(keys, rows) == len(record)
    assert read_record(record) == (0, len(record), epoch, first, following)


@given(st.lists(PAIRS, max_size=4))
def test_a_chunk_is_taken_apart_as_by_the_twin(groups: list[list[tuple[bytes, bytes]]]) -> None:
    chunk = b"".join(map(record_of, groups))
    assert taken(chunk) == twin.split_records(chunk)


@given(PAIRS, st.data())
def test_one_changed_bit_is_noticed(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    record = bytearray(record_of(pairs))
    at = data.draw(st.integers(0, len(record) - 1))
    record[at] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(CorruptRecordError):
        split_records(bytes(record))
    with contextlib.suppress(CorruptRecordError):
        assert read_record(bytes(record)) is None  # a longer size: the bytes end before it does


@given(PAIRS, st.data())
def test_a_cut_record_is_no_record(pairs: list[tuple[bytes, bytes]], data: st.DataObject) -> None:
    record = record_of(pairs)
    length = data.draw(st.integers(0, len(record) - 1))
    assert read_record(record[:length]) is None
    if length:
        with pytest.raises(CorruptRecordError, match="cut off"):
            split_records(record[:length])


def test_row_lengths_that_do_not_fit_are_refused_whatever_the_checksum() -> None:
    def forged(entry: bytes, count: int = 1) -> bytes:
        body = count.to_bytes(4, "little") + bytes(24) + entry
        size = (RECORD_HEAD_BYTES + len(entry)).to_bytes(4, "little")
        return b"HRR1" + size + crc32c(body).to_bytes(4, "little") + body

    good = (12).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(15)
    assert len(split_records(forged(good)).view_ids) == 1
    for bad in (good[:-1], good + b"x", good[:4] + b"\xff" * 4 + good[8:], b"\xff\xff" + good[2:], b"\1\0" + good[2:]):
        with pytest.raises(CorruptRecordError, match="does not fit"):
            split_records(forged(bad))
    with pytest.raises(CorruptRecordError, match="cannot hold"):
        split_records(forged(good, count=2**32 - 1))


def test_what_no_record_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="storage key of 3 bytes"):
        encode_record(1, 0, 1, [b"abc"], [b""])
    with pytest.raises(ValueError, match="2 keys are given for 1 rows"):
        encode_record(1, 0, 1, [bytes(12), bytes(12)], [b""])
    row = bytes(RECORD_BYTES_MAX // 4)
    with pytest.raises(ValueError, match=f"over {RECORD_BYTES_MAX}"):
        encode_record(1, 0, 4, [bytes(12)] * 4, [row] * 4)


def test_no_bytes_hold_no_rows() -> None:
    assert [len(column) for column in split_records(b"")] == [0] * len(LoggedRows._fields)
    assert read_record(b"") is None
    assert read_record(b"abc", 7) is None


def test_stored_bytes_stay_readable() -> None:
    key = bytes(3) + b"\2\1\x80" + bytes(6) + b"\7" + bytes(3) + b"\x09"
    stored = bytes.fromhex(GOLDEN)
    assert read_record(stored) == (0, len(stored), 3, 7, 8)
    assert taken(stored) == [(9, key, b"\x0a\x0b\x0c\x0d")]


def test_places_are_of_the_types_that_the_decoder_takes() -> None:
    rows = split_records(record_of([(bytes(12), b"abcd")]))
    assert [column.dtype for column in rows] == [np.uint32, np.int64, np.int64, np.int64]
