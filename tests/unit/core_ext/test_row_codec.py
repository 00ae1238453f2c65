"""Rows against their twin: every type, slice, refusal and damage."""

import math
import struct
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings

from core_ext import row_codec
from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin import row_codec as twin
from core_ext.twin.hashing import with_checksum
from headrace.types import Scalar, Shape
from tests.unit.core_ext.rows import I64_VALUES, Batch, ColumnType, array_of, batches, encode, encode_by_twin, stamp

F32 = (Scalar.F32, Shape.SINGLE, 0)
I64 = (Scalar.I64, Shape.SINGLE, 0)
STRING = (Scalar.STRING, Shape.SINGLE, 0)
I64_LIST = (Scalar.I64, Shape.VARIABLE, 0)
STRING_LIST = (Scalar.STRING, Shape.VARIABLE, 0)
F32_PAIR = (Scalar.F32, Shape.FIXED, 2)
BOOL = (Scalar.BOOL, Shape.SINGLE, 0)

EVERY_TYPE = [BOOL, F32, I64, STRING, I64_LIST, STRING_LIST, F32_PAIR]
EVERY_VALUE = [True, 1.5, -7, "héllo", [1, 2, 3], ["a", "", "ccc"], [0.5, 0.25]]
HEADER_BYTES = 64


@given(batches())
def test_rows_equal_their_twin(batch: Batch) -> None:
    rows = stamp(batch.types, batch.columns, batch.event_times_us)
    assert rows == encode_by_twin(batch.types, batch.rows, batch.event_times_us)


@given(batches())
def test_rows_decode_to_their_values(batch: Batch) -> None:
    schema = row_codec.Schema(7, batch.types)
    twin_schema = twin.schema_of(7, batch.types)
    assert (schema.offsets(), schema.fixed_bytes) == (twin_schema.offsets, twin_schema.fixed_bytes)
    for row, values in zip(stamp(batch.types, batch.columns, batch.event_times_us), batch.rows, strict=True):
        header, decoded = row_codec.decode_row(schema, row)
        assert repr(decoded) == repr(values)  # by repr, so that NaN equals itself and -0.0 differs from 0.0
        twin_header, twin_decoded = twin.decode_row(twin_schema, row)
        assert (tuple(header), repr(decoded)) == (tuple(twin_header), repr(twin_decoded))


@given(st.data())
def test_stamps_are_written_as_given(data: st.DataObject) -> None:
    times = data.draw(st.lists(I64_VALUES, min_size=1, max_size=5))
    available = data.draw(st.lists(I64_VALUES, min_size=len(times), max_size=len(times)))
    indexes = data.draw(st.lists(st.integers(0, len(times) - 1), max_size=8))
    write_time, offset = data.draw(I64_VALUES), data.draw(st.integers(-(2**63), 2**63 - 10))
    source, partition = data.draw(st.integers(0, 2**32 - 1)), data.draw(st.integers(-(2**31), 2**31 - 1))
    batch = row_codec.encode_rows(row_codec.Schema(2**32 - 1, []), [], np.array(times))
    rows = batch.stamp(np.array(indexes, np.int64), write_time, np.array(available), source, partition, offset)
    expected = [
        (0, 2**32 - 1, source, times[index], write_time, available[index], offset + i, partition)
        for i, index in enumerate(indexes)
    ]
    assert [row_codec.check_row(row) for row in rows] == expected


@given(I64_VALUES, I64_VALUES, st.integers(0, 2**32 - 1), st.integers(-(2**31), 2**31 - 1), I64_VALUES)
def test_tombstones_equal_their_twin(
    event_time: int, write_time: int, source: int, partition: int, offset: int
) -> None:
    row = row_codec.encode_tombstone(7, event_time, write_time, source, partition, offset)
    assert row == twin.encode_tombstone(7, event_time, write_time, source, partition, offset)
    header, values = row_codec.decode_row(row_codec.Schema(7, EVERY_TYPE), row)
    assert (header, values) == ((1, 7, source, event_time, write_time, write_time, offset, partition), [])


def test_float_bits_pass_unchanged() -> None:
    bits = np.array([0x7F800001, 0xFFC12345, 0x80000000, 0x7F800000, 0xFF800000, 1], np.uint32)  # NaNs, -0.0, ...
    column = ArrowColumn(len(bits), 0, None, bits, None, None)
    at = row_codec.Schema(7, [F32]).offsets()[0]
    rows = stamp([F32], [column], range(len(bits)))
    assert [struct.unpack_from("<I", row, at)[0] for row in rows] == bits.tolist()


def test_nulls_hide_what_arrow_left_in_their_place() -> None:
    values = pa.Array.from_buffers(pa.float32(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(struct.pack("<2f", 9, 1))])
    texts = pa.Array.from_buffers(
        pa.string(), 2, [pa.py_buffer(b"\x02"), pa.py_buffer(struct.pack("<3i", 0, 2, 3)), pa.py_buffer(b"\xff\xffa")]
    )
    rows = stamp([F32, STRING], [arrow_column(values), arrow_column(texts)], [0, 1])
    assert rows == encode_by_twin([F32, STRING], [[None, None], [1.0, "a"]], [0, 1])


def test_null_lists_may_cover_elements() -> None:
    mask = pa.array([False, True, False])
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 3, 4], pa.int32()), pa.array([1, 2, None, 4]), mask=mask)
    texts = pa.ListArray.from_arrays(pa.array([0, 1, 2, 2], pa.int32()), pa.array(["a", None]), mask=mask)
    pairs = pa.FixedSizeListArray.from_arrays(pa.array([1, 2, None, 4, 5, 6], pa.float32()), 2, mask=mask)
    types = [I64_LIST, STRING_LIST, F32_PAIR]
    rows = stamp(types, [arrow_column(array) for array in (lists, texts, pairs)], [0, 1, 2])
    expected: list[list[Any]] = [[[1, 2], ["a"], [1.0, 2.0]], [None, None, None], [[4], [], [5.0, 6.0]]]
    assert rows == encode_by_twin(types, expected, [0, 1, 2])


def test_children_with_offsets_of_their_own() -> None:
    numbers = pa.array([9, 9, 9, 1, 2, 3]).slice(3)
    texts = pa.array(["x", "y", "a", "", "c"]).slice(2)
    flags = pa.array([True] * 11 + [False, True, True]).slice(11)
    types = [I64_LIST, STRING_LIST, (Scalar.BOOL, Shape.VARIABLE, 0)]
    arrays = [pa.ListArray.from_arrays(pa.array([0, 1, 3], pa.int32()), child) for child in (numbers, texts, flags)]
    rows = stamp(types, [arrow_column(array) for array in arrays], [0, 1])
    assert rows == encode_by_twin(types, [[[1], ["a"], [False]], [[2, 3], ["", "c"], [True, True]]], [0, 1])


def test_more_columns_than_one_word_of_the_bitmap() -> None:
    types = [F32] * 130
    row = [None if i in {0, 63, 64, 129} else float(i) for i in range(130)]
    assert encode(types, [row]) == encode_by_twin(types, [row], [0])


def test_a_batch_large_enough_to_release_the_lock() -> None:
    generator = np.random.default_rng(1)
    columns = [
        pa.array(generator.random(3000), mask=generator.random(3000) < 0.1, type=pa.float64()) for _ in range(50)
    ]
    types = [(Scalar.F64, Shape.SINGLE, 0)] * 50
    rows = stamp(types, [arrow_column(column) for column in columns], range(3000))
    for i in (0, 1, 59, 60, 61, 1234, 2999):
        expected = [column[i].as_py() for column in columns]
        assert row_codec.decode_row(row_codec.Schema(7, types), rows[i])[1] == expected


def test_the_longest_row_is_taken_and_one_byte_more_is_refused() -> None:
    room = row_codec.ROW_BYTES_MAX - 4 - row_codec.Schema(7, [STRING]).fixed_bytes
    (row,) = encode([STRING], [["x" * room]])
    assert len(row) == row_codec.ROW_BYTES_MAX
    row_codec.check_row(row, row_codec.Schema(7, [STRING]))
    with pytest.raises(ValueError, match="column 0, row 1: makes the row longer than 1048576 bytes"):
        encode([STRING], [["x"], ["x" * (room + 1)]])


# --- refusals of the encoder

GOOD_OFFSETS = struct.pack("<3i", 0, 1, 2)
TWO_I64 = ArrowColumn(2, 0, None, bytes(16), None, None)


@pytest.mark.parametrize(
    ("column_type", "column", "message"),
    [
        (I64, ArrowColumn(1, 0, None, bytes(8), None, None), "holds another number of values than there are rows"),
        (I64, ArrowColumn(-2, 0, None, bytes(8), None, None), "holds another number"),
        (I64, ArrowColumn(2, -1, None, bytes(64), None, None), "has a negative or too great offset"),
        (I64, ArrowColumn(2, 2**40, None, bytes(64), None, None), "has a negative or too great offset"),
        (I64, ArrowColumn(2, 0, None, bytes(15), None, None), "has a values buffer that is too short"),
        (I64, ArrowColumn(2, 1, None, bytes(16), None, None), "has a values buffer that is too short"),
        (I64, ArrowColumn(2, 0, None, None, None, None), "has a values buffer that is too short"),
        (I64, ArrowColumn(2, 0, b"", bytes(16), None, None), "has a validity buffer that is too short"),
        (I64, ArrowColumn(2, 7, b"\xff", bytes(72), None, None), "has a validity buffer that is too short"),
        (BOOL, ArrowColumn(2, 7, None, b"\xff", None, None), "has a values buffer that is too short"),
        (STRING, ArrowColumn(2, 0, None, b"ab", None, None), "has an offsets buffer that is too short"),
        (STRING, ArrowColumn(2, 1, None, b"ab", GOOD_OFFSETS, None), "has an offsets buffer that is too short"),
        (STRING, ArrowColumn(2, 0, None, b"a", GOOD_OFFSETS, None), "row 1: has offsets past the end"),
        (STRING, ArrowColumn(2, 0, None, None, GOOD_OFFSETS, None), "row 0: has offsets past the end"),
        (STRING, ArrowColumn(2, 0, None, b"ab", struct.pack("<3i", 0, 2, 1), None), "row 1: has offsets that run back"),
        (STRING, ArrowColumn(2, 0, None, b"ab", struct.pack("<3i", -1, 1, 2), None), "row 0: has offsets that run"),
        (STRING, ArrowColumn(2, 0, None, b"a\xff", GOOD_OFFSETS, None), "row 1: holds a string that is not UTF-8"),
        (STRING, ArrowColumn(2, 0, None, "é".encode(), GOOD_OFFSETS, None), "row 0: holds a string that is not UTF-8"),
        (I64_LIST, ArrowColumn(2, 0, None, None, GOOD_OFFSETS, None), "is a list without a child column"),
        (F32_PAIR, ArrowColumn(2, 0, None, None, None, None), "is a list without a child column"),
        (I64_LIST, ArrowColumn(2, 0, None, None, struct.pack("<3i", 0, 1, 3), TWO_I64), "row 1: has offsets past"),
        (I64_LIST, ArrowColumn(2, 0, None, None, GOOD_OFFSETS[:8], TWO_I64), "has an offsets buffer that is too"),
        (I64_LIST, ArrowColumn(2, 0, None, None, GOOD_OFFSETS, TWO_I64._replace(values=b"")), "values buffer that is"),
        (
            I64_LIST,
            ArrowColumn(2, 0, None, None, GOOD_OFFSETS, TWO_I64._replace(validity=b"\x01")),
            "row 1: holds a",
        ),
        (F32_PAIR, ArrowColumn(2, 0, None, None, None, TWO_I64._replace(length=3)), "or too few list elements"),
        (F32_PAIR, ArrowColumn(2, 1, None, None, None, TWO_I64._replace(length=4)), "or too few list elements"),
        (STRING_LIST, ArrowColumn(2, 0, None, None, GOOD_OFFSETS, TWO_I64), "has an offsets buffer that is too short"),
    ],
)
def test_a_wrong_buffer_is_refused(column_type: ColumnType, column: ArrowColumn, message: str) -> None:
    with pytest.raises(ValueError, match=f"column 1.*{message}"):
        stamp([I64, column_type], [TWO_I64, column], [0, 1])


@pytest.mark.parametrize("buffer", ["text", 7, [1, 2]])
def test_what_is_no_buffer_is_refused(buffer: object) -> None:
    with pytest.raises(TypeError, match="bytes-like"):
        stamp([I64], [ArrowColumn(1, 0, None, buffer, None, None)], [0])


def test_a_refused_batch_holds_no_buffer() -> None:
    values = bytearray(8)
    with pytest.raises(ValueError, match="too short"):
        stamp([I64, I64], [ArrowColumn(2, 0, None, values, None, None)] * 2, [0, 1])
    values.append(0)  # raises BufferError while anything still holds it


def test_wrong_counts_are_refused() -> None:
    schema = row_codec.Schema(7, [I64])
    with pytest.raises(ValueError, match="2 columns are given for the 1 of the schema"):
        row_codec.encode_rows(schema, [TWO_I64, TWO_I64], np.arange(2))
    batch = row_codec.encode_rows(schema, [TWO_I64], np.arange(2))
    with pytest.raises(ValueError, match="3 available times are given for 2 rows"):
        batch.stamp(np.arange(2), 0, np.arange(3), 0, 0, 0)
    with pytest.raises(ValueError, match="leave the range of i64"):
        batch.stamp(np.arange(2), 0, None, 0, 0, 2**63 - 1)
    for index in (-1, 2, 2**62):
        with pytest.raises(ValueError, match="at 1 is none of the 2 rows"):
            batch.stamp(np.array([0, index]), 0, None, 0, 0, 0)
    with pytest.raises(ValueError, match="mismatch"):
        row_codec.encode_rows(schema, [TWO_I64], np.arange(2.0))  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="encode_rows"):
        row_codec.RowBatch()


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ((0, 0, 0), "unknown type"),
        ((10, 0, 0), "unknown type"),
        ((4, 3, 0), "unknown type 4 or shape 3"),
        ((4, 1, 0), "list size 0 is wrong"),
        ((4, 1, 65_536), "list size 65536 is wrong"),
        ((4, 0, 1), "list size 1 is wrong"),
        ((4, 2, 1), "list size 1 is wrong"),
        ((6, 1, 2), "fixed-width elements"),
    ],
)
def test_an_unknown_type_is_refused(column: ColumnType, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        row_codec.Schema(7, [column])


def test_a_schema_wider_than_a_row_is_refused() -> None:
    wide = (Scalar.F64, Shape.FIXED, 65_535)
    widest = [wide, (Scalar.F64, Shape.FIXED, 65_527)]
    assert row_codec.Schema(7, widest).fixed_bytes == row_codec.ROW_BYTES_MAX - 8
    for columns in ([wide, wide], [F32] * 300_000, [wide, (Scalar.F64, Shape.FIXED, 65_528)]):
        with pytest.raises(ValueError, match="columns"):
            row_codec.Schema(7, columns)


# --- damaged rows


def both(row: bytes, types: list[Any]) -> tuple[str, str]:
    """What core and twin make of a row, as text."""
    results = []
    for module, schema in ((row_codec, row_codec.Schema(7, types)), (twin, twin.schema_of(7, types))):
        try:
            results.append(repr(tuple(map(repr, module.decode_row(schema, row)))))
        except module.CorruptRowError as error:
            results.append(f"corrupt: {error}")
    return results[0], results[1]


@given(batches().filter(lambda batch: batch.rows), st.data())
def test_any_change_is_noticed(batch: Batch, data: st.DataObject) -> None:
    row = bytearray(stamp(batch.types, batch.columns, batch.event_times_us)[0])
    row[data.draw(st.integers(0, len(row) - 1))] ^= data.draw(st.integers(1, 255))
    core, expected = both(bytes(row), batch.types)
    assert core == expected
    assert core.startswith("corrupt: ")


@given(batches().filter(lambda batch: batch.rows), st.data())
@settings(max_examples=300)
def test_damage_under_a_right_checksum_stays_in_bounds(batch: Batch, data: st.DataObject) -> None:
    row = bytearray(stamp(batch.types, batch.columns, batch.event_times_us)[0])
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(2, len(row) - 5))
        row[at] = data.draw(st.sampled_from([0, 1, 4, 127, 128, 255]) | st.integers(0, 255))
    core, expected = both(with_checksum(bytes(row[:-4])), batch.types)
    assert core == expected


@given(batches().filter(lambda batch: batch.rows), st.data())
def test_any_cut_is_noticed(batch: Batch, data: st.DataObject) -> None:
    row = stamp(batch.types, batch.columns, batch.event_times_us)[0]
    cut = data.draw(st.integers(0, len(row) - 1))
    core, expected = both(row[:cut], batch.types)
    assert core == expected
    assert core.startswith("corrupt: ")


@given(st.binary(max_size=200))
def test_noise_is_no_row(noise: bytes) -> None:
    with pytest.raises(row_codec.CorruptRowError):
        row_codec.check_row(noise)


def changed(at: int, form: str, value: int) -> bytes:
    """A whole row with one field changed and the checksum made right again."""
    row = bytearray(encode(EVERY_TYPE, [EVERY_VALUE])[0])
    struct.pack_into("<" + form, row, at, value)
    return with_checksum(bytes(row[:-4]))


OFFSETS = row_codec.Schema(7, EVERY_TYPE).offsets()
HEAP_START = row_codec.Schema(7, EVERY_TYPE).fixed_bytes
TEXT_AT, LIST_AT, TEXTS_AT = OFFSETS[3:6]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed(0, "B", 0xD6), "row magic"),
        (changed(1, "B", 2), "layout is unknown"),
        (changed(2, "H", 8), "unknown flags"),
        (changed(2, "H", 2), "null bitmap disagrees"),
        (changed(2, "H", 4), "tile map start"),
        (changed(2, "H", 1), "tombstone carries more"),
        (changed(4, "I", 68), "length field differs"),
        (changed(8, "I", 8), "schema id differs"),
        (changed(52, "I", 63), "heap start lies outside"),
        (changed(52, "I", 2**32 - 1), "heap start lies outside"),
        (changed(52, "I", HEAP_START + 8), "does not start behind the columns"),
        (changed(56, "I", 64), "tile map start"),
        (changed(60, "I", 1), "reserved field"),
        (changed(64, "B", 1), "null bitmap disagrees"),
        (changed(TEXT_AT, "I", 2**32 - 1), "outside the heap"),
        (changed(TEXT_AT + 4, "I", 0), None),
        (changed(TEXT_AT + 4, "I", 2**31), "outside the heap"),
        (changed(TEXT_AT + 4, "I", 2), "not UTF-8"),
        (changed(LIST_AT, "I", 9), "outside the heap"),
        (changed(LIST_AT + 4, "I", 23), "outside the heap"),
        (changed(LIST_AT + 4, "I", 0), "outside the heap"),
        (changed(TEXTS_AT + 4, "I", 3), "malformed"),
        (changed(HEAP_START + 32, "I", 0), "malformed"),
        (changed(HEAP_START + 32, "I", 2**32 - 1), "malformed"),
        (changed(HEAP_START + 36, "I", 2), "malformed"),
        (changed(HEAP_START + 44, "I", 5), "malformed"),
    ],
)
def test_a_wrong_field_is_named(row: bytes, message: str | None) -> None:
    core, expected = both(row, EVERY_TYPE)
    assert core == expected
    assert message is None or message in core


def test_a_row_of_another_schema_is_refused() -> None:
    (row,) = encode([I64], [[1]])
    row_codec.check_row(row)
    for schema in (row_codec.Schema(8, [I64]), row_codec.Schema(7, [I64, I64]), row_codec.Schema(7, [])):
        with pytest.raises(row_codec.CorruptRowError, match=r"schema id|behind the columns"):
            row_codec.check_row(row, schema)


def test_the_tile_map_bounds_the_heap() -> None:
    (row,) = encode([STRING], [["abcd"]])
    fixed = row_codec.Schema(7, [STRING]).fixed_bytes
    tiled = bytearray(row[:-4] + bytes(8) + bytes(4))
    struct.pack_into("<H", tiled, 2, 4)
    struct.pack_into("<I", tiled, 4, len(tiled))
    for tiles, outcome in ((fixed + 4, "abcd"), (fixed, "outside the heap"), (len(tiled), "tile map start")):
        struct.pack_into("<I", tiled, 56, tiles)
        core, expected = both(with_checksum(bytes(tiled[:-4])), [STRING])
        assert core == expected
        assert outcome in core


def test_infinities_and_signed_zero_are_kept() -> None:
    values = [math.inf, -math.inf, -0.0, math.nan, 5e-324]
    types = [(Scalar.F64, Shape.SINGLE, 0)] * len(values)
    (row,) = encode(types, [values])
    assert repr(row_codec.decode_row(row_codec.Schema(7, types), row)[1]) == repr(values)


def test_timestamps_and_dates_come_from_arrow_arrays() -> None:
    types = [(Scalar.TIMESTAMP_US, Shape.SINGLE, 0), (Scalar.DATE, Shape.SINGLE, 0)]
    assert array_of(types[0], [0]).type == pa.timestamp("us", tz="UTC")
    (row,) = encode(types, [[-(2**63), -(2**31)]])
    assert row_codec.decode_row(row_codec.Schema(7, types), row)[1] == [-(2**63), -(2**31)]
