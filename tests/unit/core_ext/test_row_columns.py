"""Rows and keys to columns: against the twin of the row codec for every type, and every refusal."""

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext.arrow import ArrowColumn
from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import CorruptRowError, Schema, encode_tombstone
from core_ext.row_columns import decode_keys, decode_rows
from core_ext.twin import row_codec as twin
from headrace.types import Scalar, Shape, ValueType
from tests.unit.core_ext.rows import Batch, ColumnType, batches, encode, encode_by_twin


def placed(rows: list[bytes], gap: bytes = b"?") -> tuple[bytes, np.ndarray, np.ndarray]:
    """Rows one after the other, with other bytes between them."""
    data, starts, ends = b"", [], []
    for row in rows:
        data += gap
        starts.append(len(data))
        data += row
        ends.append(len(data))
    return data + gap, np.array(starts, np.int64), np.array(ends, np.int64)


def array_of(column: ArrowColumn, kind: ColumnType) -> pa.Array:
    arrow = ValueType(Scalar(kind[0]), Shape(kind[1]), kind[2]).arrow

    def buffer(part: Any) -> pa.Buffer | None:
        return None if part is None else pa.py_buffer(part)

    def flat(each: ArrowColumn, of: pa.DataType) -> pa.Array:
        parts = [each.validity, each.values] if each.offsets is None else [each.validity, each.offsets, each.values]
        return pa.Array.from_buffers(of, each.length, list(map(buffer, parts)))

    if column.child is None:
        return flat(column, arrow)
    parts = [column.validity] if column.offsets is None else [column.validity, column.offsets]
    child = flat(column.child, arrow.value_type)
    return pa.Array.from_buffers(arrow, column.length, list(map(buffer, parts)), children=[child])


def plain(array: pa.Array) -> list[Any]:
    """Values as the twin gives them: times and dates as integers."""
    kind = array.type
    if hasattr(kind, "value_type"):
        child = pa.list_(_number(kind.value_type))
        size = getattr(kind, "list_size", None)
        return array.cast(pa.list_(_number(kind.value_type), size) if size else child).to_pylist()  # type: ignore[no-any-return]
    return array.cast(_number(kind)).to_pylist()  # type: ignore[no-any-return]


def _number(kind: pa.DataType) -> pa.DataType:
    return pa.int64() if pa.types.is_timestamp(kind) else pa.int32() if pa.types.is_date32(kind) else kind


@given(batches(), st.data())
def test_columns_hold_what_the_twin_reads_row_by_row(batch: Batch, data: st.DataObject) -> None:
    rows = encode_by_twin(batch.types, batch.rows, batch.event_times_us)
    erased = data.draw(st.lists(st.integers(0, 6), max_size=2))
    for at in erased:
        rows.insert(min(at, len(rows)), encode_tombstone(7, 5, 6, 1, 2, at))
    found = decode_rows(Schema(7, batch.types), *placed(rows))
    read = [twin.decode_row(twin.schema_of(7, batch.types), row) for row in rows]
    headers, values = [header for header, _ in read], [value for _, value in read]
    assert found.event_times_us.tolist() == [header.event_time_us for header in headers]
    assert found.write_times_us.tolist() == [header.write_time_us for header in headers]
    assert found.available_times_us.tolist() == [header.available_time_us for header in headers]
    assert found.offsets.tolist() == [header.offset for header in headers]
    assert found.source_ids.tolist() == [header.source_id for header in headers]
    assert found.partitions.tolist() == [header.partition for header in headers]
    assert found.tombstones.tolist() == [bool(header.flags & 1) for header in headers]
    for index, (column, kind) in enumerate(zip(found.columns, batch.types, strict=True)):
        array = array_of(column, kind)
        array.validate(full=True)
        wanted = [row[index] if row else None for row in values]
        assert repr(plain(array)) == repr(wanted)  # by repr, as NaN differs from itself


@given(batches(), st.data())
def test_one_changed_byte_of_a_row_is_noticed(batch: Batch, data: st.DataObject) -> None:
    rows = encode_by_twin(batch.types, batch.rows, batch.event_times_us) or [encode_tombstone(7, 5, 6, 1, 2, 3)]
    at = data.draw(st.integers(0, len(rows) - 1))
    changed = bytearray(rows[at])
    changed[data.draw(st.integers(0, len(changed) - 1))] ^= data.draw(st.integers(1, 255))
    rows[at] = bytes(changed)
    with pytest.raises(CorruptRowError, match=f"row {at}: "):
        decode_rows(Schema(7, batch.types), *placed(rows))


def test_places_outside_the_bytes_are_refused() -> None:
    row = encode_tombstone(7, 5, 6, 1, 2, 3)
    for start, end in ((-1, len(row)), (0, len(row) + 1), (len(row), 0), (2**40, 2**40 + 1)):
        with pytest.raises(CorruptRowError, match="lies outside"):
            decode_rows(Schema(7, []), row, np.array([start]), np.array([end]))
        with pytest.raises(ValueError, match="lies outside"):
            decode_keys([3], row, np.array([start]), np.array([end]))
    with pytest.raises(ValueError, match="1 starts are given for 2 ends"):
        decode_rows(Schema(7, []), row, np.array([0]), np.array([0, 1]))


def test_row_of_another_schema_is_refused() -> None:
    rows = encode([(Scalar.I64, Shape.SINGLE, 0)], [[1]])
    with pytest.raises(CorruptRowError, match="schema id differs"):
        decode_rows(Schema(8, [(Scalar.I64, Shape.SINGLE, 0)]), *placed(rows))


@pytest.mark.parametrize("shape", [Shape.SINGLE, Shape.VARIABLE])
def test_string_that_is_no_utf8_is_refused_and_bytes_are_not(shape: Shape) -> None:
    value: Any = b"\xff" if shape is Shape.SINGLE else [b"a", b"\xff"]
    rows = encode([(Scalar.BYTES, shape, 0)], [[None], [value]])
    assert plain(array_of(decode_rows(Schema(7, [(Scalar.BYTES, shape, 0)]), *placed(rows)).columns[0], (7, shape, 0)))
    with pytest.raises(CorruptRowError, match="row 1, column 0: a string is not UTF-8"):
        decode_rows(Schema(7, [(Scalar.STRING, shape, 0)]), *placed(rows))


KEY_PARTS: dict[int, st.SearchStrategy[Any]] = {
    int(Scalar.I64): st.integers(-(2**63), 2**63 - 1),
    int(Scalar.STRING): st.text(min_size=1, max_size=20),
    int(Scalar.BYTES): st.binary(min_size=1, max_size=20),
}


@given(st.lists(st.sampled_from(sorted(KEY_PARTS)), min_size=1, max_size=8), st.data())
def test_keys_come_back_part_by_part(types: list[int], data: st.DataObject) -> None:
    keys = data.draw(st.lists(st.tuples(*(KEY_PARTS[kind] for kind in types)), max_size=5))
    stored = [storage_key(2, encode_key(types, key), 9) for key in keys]
    columns = decode_keys(types, *placed(stored))
    arrays = [array_of(column, (kind, Shape.SINGLE, 0)) for column, kind in zip(columns, types, strict=True)]
    for array in arrays:
        array.validate(full=True)
    assert list(zip(*(array.to_pylist() for array in arrays), strict=True)) == keys


def test_key_of_other_types_is_refused() -> None:
    key = storage_key(2, encode_key([3, 6], [1, "a"]), 9)
    part: dict[int, int | str | bytes] = {3: 1, 6: "a", 7: b"a"}
    for types in ([3], [6, 3], [3, 7], [3, 6, 3]):
        good = storage_key(2, encode_key(types, [part[kind] for kind in types]), 9)
        with pytest.raises(ValueError, match="row 1: its key is not one of these types"):
            decode_keys(types, *placed([good, key]))
    with pytest.raises(ValueError, match="1 to 8 parts"):
        decode_keys([], *placed([key]))
