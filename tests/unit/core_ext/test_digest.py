"""Digest of result rows against its twin: every type, chunk and slice; NaN, zero and refusals."""

import struct
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given

from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.digest import RowDigest
from core_ext.twin import digest as twin
from headrace.types import Scalar, Shape, ValueType
from tests.unit.core_ext.rows import ColumnType, array_of, column_types, values_of

KNOWN_DIGEST = "8bfd3beecfb199575c715e422e48d1bb33ea4d6e027fdcb7d25c413922b959c8"
KNOWN_HASH = 5235739472265207285
F32 = (Scalar.F32, Shape.SINGLE, 0, 4)


def described(kind: ColumnType) -> tuple[int, int, int, int]:
    return (*kind, ValueType(Scalar(kind[0]), Shape(kind[1]), kind[2]).element_bytes)


@given(st.data())
def test_the_digest_equals_its_twin_for_any_chunks(data: st.DataObject) -> None:
    kinds = data.draw(st.lists(column_types(), min_size=1, max_size=5))
    row_count = data.draw(st.integers(0, 6))
    values = [data.draw(st.lists(values_of(kind), min_size=row_count, max_size=row_count)) for kind in kinds]
    statuses = np.array(data.draw(st.lists(st.integers(0, 255), min_size=row_count, max_size=row_count)), np.uint8)
    columns = [(f"view__f{i}", described(kind)) for i, kind in enumerate(kinds)]
    arrays = [array_of(kind, column) for kind, column in zip(kinds, values, strict=True)]
    digest = RowDigest(columns)
    cut = data.draw(st.integers(0, row_count))
    for part in (slice(0, cut), slice(cut, row_count)):
        count = part.stop - part.start
        chunk = [arrow_column(array.slice(part.start, count)) for array in arrays]
        digest.update(chunk, [statuses[part]] * len(kinds))
    rows = [[(int(statuses[i]), column[i]) for column in values] for i in range(row_count)]
    assert (digest.hexdigest(), digest.column_hashes()) == twin.digest(columns, rows)
    assert digest.row_count == row_count


def of_bits(*bits: int, statuses: list[int] | None = None) -> tuple[str, list[int]]:
    digest = RowDigest([("a", F32)])
    column = ArrowColumn(len(bits), 0, None, np.array(bits, np.uint32), None, None)
    digest.update([column], [np.array(statuses or [1] * len(bits), np.uint8)])
    return digest.hexdigest(), digest.column_hashes()


def test_every_nan_is_one_and_negative_zero_is_kept() -> None:
    assert of_bits(0x7FC00000) == of_bits(0xFFC12345) == of_bits(0x7F800001)
    assert of_bits(0x7F800000) != of_bits(0x7FC00000)
    assert of_bits(0x80000000) != of_bits(0)


def test_order_changes_the_digest_and_no_column_hash() -> None:
    one, other = of_bits(1, 2, 3, statuses=[1, 2, 3]), of_bits(3, 1, 2, statuses=[3, 1, 2])
    assert one[0] != other[0]
    assert one[1] == other[1]
    assert of_bits(1, 2, 3, statuses=[1, 2, 4])[1] != one[1]


def test_a_known_digest_stays() -> None:
    assert of_bits(*struct.unpack("<2I", struct.pack("<2f", 1.5, -2.0))) == (KNOWN_DIGEST, [KNOWN_HASH])


def test_more_rows_than_a_block_equal_the_twin() -> None:
    array = pa.array([f"{i}" * (i % 5) for i in range(5_000)])
    column = ("text", (Scalar.STRING, Shape.SINGLE, 0, 0))
    digest = RowDigest([column])
    digest.update([arrow_column(array)], [np.ones(5_000, np.uint8)])
    rows: list[list[tuple[int, Any]]] = [[(1, value)] for value in array.to_pylist()]
    assert (digest.hexdigest(), digest.column_hashes()) == twin.digest([column], rows)


@pytest.mark.parametrize("names", [("f", "d") * 16, ("f", "d", "b"), ("f", "text"), ("list", "d")])
def test_a_thread_that_hashes_changes_nothing(names: tuple[str, ...], seed: int) -> None:
    count = 3 * 4_096 + 5  # more than one block, also of the wide rows
    random = np.random.default_rng(seed)
    numbers, mask = random.integers(0, 50, count), random.random(count) < 0.2
    columns = {
        "f": ((Scalar.F32, Shape.SINGLE, 0, 4), pa.array(numbers, pa.int64(), mask=mask).cast(pa.float32())),
        "d": ((Scalar.F64, Shape.SINGLE, 0, 8), pa.array(numbers / 7, mask=mask)),
        "b": ((Scalar.BOOL, Shape.SINGLE, 0, 1), pa.array(numbers > 9, mask=mask)),
        "text": ((Scalar.STRING, Shape.SINGLE, 0, 0), pa.array([f"{n}" for n in numbers], mask=mask)),
        "list": ((Scalar.I64, Shape.FIXED, 2, 8), pa.array([[int(n), 1] for n in numbers], pa.list_(pa.int64(), 2))),
    }
    kinds = [(name, columns[name][0]) for name in names]
    arrays = [arrow_column(columns[name][1]) for name in names]
    statuses = [random.integers(0, 4, count).astype(np.uint8) for _ in names]
    alone, beside = RowDigest(kinds), RowDigest(kinds)
    alone.update(arrays, statuses)
    with ThreadPoolExecutor(1) as hashing:
        beside.update(arrays, statuses, hashing)
    assert (alone.hexdigest(), alone.column_hashes()) == (beside.hexdigest(), beside.column_hashes())
    listed = [columns[name][1].to_pylist() for name in names]
    rows = [
        [(int(status[i]), values[i]) for status, values in zip(statuses, listed, strict=True)] for i in range(count)
    ]
    assert (alone.hexdigest(), alone.column_hashes()) == twin.digest(kinds, rows)


def test_what_does_not_fit_is_refused() -> None:
    column = arrow_column(pa.array([1.0, 2.0], pa.float32()))
    digest = RowDigest([("a", F32)])
    with pytest.raises(ValueError, match="1 statuses for 2 rows"):
        digest.update([column], [np.ones(1, np.uint8)])
    with pytest.raises(ValueError, match="0 columns, 0 statuses for 1 columns"):
        digest.update([], [])
    with pytest.raises(ValueError, match="too short"):
        digest.update([column._replace(length=99)], [np.ones(99, np.uint8)])
    assert digest.row_count == 0
