"""Schemas, columns and values of every type for the tests of the row cores."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pyarrow as pa

from core_ext import row_codec
from core_ext.arrow import ArrowColumn, arrow_column
from core_ext.twin import row_codec as twin
from headrace.types import Scalar, Shape, ValueType

ColumnType = tuple[int, int, int]

I64_VALUES = st.integers(-(2**63), 2**63 - 1)
ELEMENTS: dict[Scalar, st.SearchStrategy[Any]] = {
    Scalar.BOOL: st.booleans(),
    Scalar.I32: st.integers(-(2**31), 2**31 - 1),
    Scalar.I64: I64_VALUES,
    Scalar.F32: st.floats(width=32),
    Scalar.F64: st.floats(),
    Scalar.STRING: st.text(max_size=12),
    Scalar.BYTES: st.binary(max_size=12),
    Scalar.TIMESTAMP_US: I64_VALUES,
    Scalar.DATE: st.integers(-(2**31), 2**31 - 1),
}
FIXED_WIDTH = [scalar for scalar in Scalar if scalar not in {Scalar.STRING, Scalar.BYTES}]


def column_types() -> st.SearchStrategy[ColumnType]:
    """Any type of the type table."""
    scalar = st.sampled_from(list(Scalar))
    return st.one_of(
        st.tuples(scalar, st.just(Shape.SINGLE), st.just(0)),
        st.tuples(st.sampled_from(FIXED_WIDTH), st.just(Shape.FIXED), st.integers(1, 5)),
        st.tuples(scalar, st.just(Shape.VARIABLE), st.just(0)),
    )


def values_of(column: ColumnType) -> st.SearchStrategy[Any]:
    """Values of a type, null among them."""
    scalar, shape, list_size = column
    element = ELEMENTS[Scalar(scalar)]
    if shape == Shape.FIXED:
        return st.none() | st.lists(element, min_size=list_size, max_size=list_size)
    return st.none() | (st.lists(element, max_size=5) if shape == Shape.VARIABLE else element)


@dataclass(frozen=True)
class Batch:
    """Values of some rows, and the same values as Arrow columns."""

    types: list[ColumnType]
    rows: list[list[Any]]
    columns: list[ArrowColumn]
    event_times_us: list[int]


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Up to six rows whose Arrow arrays are slices of longer ones."""
    types = draw(st.lists(column_types(), max_size=10))
    row_count = draw(st.integers(0, 6))
    columns, values = [], []
    for column in types:
        before, after = draw(st.integers(0, 9)), draw(st.integers(0, 2))
        total = before + row_count + after
        stored = draw(st.lists(values_of(column), min_size=total, max_size=total))
        columns.append(arrow_column(array_of(column, stored).slice(before, row_count)))
        values.append(stored[before : before + row_count])
    rows = [list(row) for row in zip(*values, strict=True)] if types else [[] for _ in range(row_count)]
    times = draw(st.lists(I64_VALUES, min_size=row_count, max_size=row_count))
    return Batch(types, rows, columns, times)


def array_of(column: ColumnType, values: Sequence[Any]) -> pa.Array:
    """Arrow array of a column type."""
    scalar, shape, list_size = column
    return pa.array(values, ValueType(Scalar(scalar), Shape(shape), list_size).arrow)


def encode(
    types: Sequence[ColumnType], rows: Sequence[Sequence[Any]], event_times_us: Sequence[int] | None = None
) -> list[bytes]:
    """Rows by the core, of schema 7, stamped with write time 1,000 and offsets from 50."""
    columns = [arrow_column(array_of(column, [row[i] for row in rows])) for i, column in enumerate(types)]
    return stamp(types, columns, event_times_us or range(len(rows)))


def stamp(types: Sequence[ColumnType], columns: Sequence[ArrowColumn], event_times_us: Sequence[int]) -> list[bytes]:
    """Rows by the core from columns."""
    batch = row_codec.encode_rows(
        row_codec.Schema(7, types), columns, np.array(event_times_us, dtype=np.int64).reshape(-1)
    )
    return batch.stamp(np.arange(len(batch)), 1000, None, 0, 3, 50)


def encode_by_twin(types: Sequence[ColumnType], rows: Sequence[Sequence[Any]], times: Sequence[int]) -> list[bytes]:
    """Rows by the twin, with the stamps of `stamp`."""
    schema = twin.schema_of(7, types)
    return [
        twin.encode_row(schema, row, twin.RowHeader(0, 7, 0, time, 1000, 1000, 50 + i, 3))
        for i, (row, time) in enumerate(zip(rows, times, strict=True))
    ]
