"""Files of encoded columns: three readers find what was written, whatever its types, nulls and slices."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import duckdb
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from batch.historical.encoded import SAMPLE_BYTES
from batch.historical.encoded_file import EncodedFile
from batch.historical.group_encoder import GroupEncoder

UTC: Final = pa.timestamp("us", "UTC")
NUMBERS: Final = [pa.float32(), pa.float64(), pa.int64(), pa.uint8(), UTC, pa.timestamp("ns"), pa.timestamp("ms")]
OTHERS: Final = [
    pa.int32(),
    pa.bool_(),
    pa.string(),
    pa.list_(pa.int64()),
    pa.list_(pa.float32(), 3),
    pa.struct([pa.field("a", pa.int64()), pa.field("b", pa.string())]),
    pa.dictionary(pa.int32(), pa.string()),
]


def file_of(groups: Sequence[pa.Table], dictionaries: Sequence[str] = ()) -> bytes:
    """A file with some row groups."""
    sink = io.BytesIO()
    stream = pa.PythonFile(sink, "w")
    schema = groups[0].schema
    encoder, file = GroupEncoder(schema, dictionaries), EncodedFile(stream, schema)
    for started in [encoder.start(group) for group in groups]:
        file.write(started.result(), started.row_count)
    file.close()
    encoder.close()
    return sink.getvalue()


def column_of(kind: pa.DataType, count: int, null_share: float, different: int, seed: int) -> pa.Array:
    """Values of a type, some of them null."""
    random = np.random.default_rng(seed)
    numbers = random.integers(0, different, count)
    mask = random.random(count) < null_share
    if pa.types.is_string(kind) or pa.types.is_dictionary(kind):
        return pa.array([f"text {n}" for n in numbers], pa.string(), mask=mask).cast(kind)
    if pa.types.is_struct(kind):
        return pa.array([None if m else {"a": int(n), "b": f"{n}"} for n, m in zip(numbers, mask, strict=True)], kind)
    if pa.types.is_fixed_size_list(kind):
        return pa.array([None if m else [float(n)] * 3 for n, m in zip(numbers, mask, strict=True)], kind)
    if pa.types.is_list(kind):
        return pa.array([None if m else [int(n)] * (n % 3) for n, m in zip(numbers, mask, strict=True)], kind)
    return pa.array(numbers, mask=mask).cast(kind, safe=False)


@st.composite
def tables(draw: st.DrawFn) -> pa.Table:
    """Columns of any types; the values of some share their memory, or lie behind an offset."""
    count, offset = draw(st.integers(1, 200)), draw(st.integers(0, 9))
    arrays, fields = [], []
    for at, kind in enumerate(draw(st.lists(st.sampled_from(NUMBERS + OTHERS), min_size=1, max_size=8))):
        share, different = draw(st.sampled_from([0.0, 0.3, 1.0])), draw(st.sampled_from([1, 3, 200]))
        array = column_of(kind, count + offset, share, different, draw(st.integers(0, 99)))[offset:]
        arrays.append(array)
        fields.append(pa.field(f"c{at}", kind, nullable=bool(array.null_count) or draw(st.booleans())))
    return pa.Table.from_arrays(arrays, schema=pa.schema(fields, {"origin": "test"}))


@given(tables(), st.integers(1, 3))
def test_every_table_is_read_back(table: pa.Table, group_count: int) -> None:
    size = -(-table.num_rows // group_count)
    groups = [table.slice(at, size) for at in range(0, table.num_rows, size)]
    data = file_of(groups, ["c0"])
    read, usual = pq.read_table(io.BytesIO(data)), pq.read_table(io.BytesIO(by_arrow(table)))
    assert read.to_pylist() == usual.to_pylist()
    assert read.schema.equals(usual.schema, check_metadata=True)
    found = pq.ParquetFile(io.BytesIO(data)).metadata
    assert (found.num_rows, found.num_row_groups) == (table.num_rows, len(groups))


@pytest.mark.parametrize("null_share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("different", [1, 3, 2**40])
def test_other_engines_read_what_arrow_reads(tmp_path: Path, null_share: float, different: int, seed: int) -> None:
    kinds = {"f": pa.float32(), "d": pa.float64(), "i": pa.int64(), "t": UTC}
    columns = {name: column_of(kind, 3_000, null_share, different, seed) for name, kind in kinds.items()}
    table = pa.table(columns | {"s": pa.array(np.arange(3_000) // 7 % 5, pa.uint8())})
    path = tmp_path / "out.parquet"
    path.write_bytes(file_of([table.slice(0, 1_000), table.slice(1_000)]))
    rows = table.drop_columns(["t"]).to_pylist()
    found = duckdb.read_parquet(str(path)).select("f, d, i, s, epoch_us(t) AS t").to_arrow_table()
    assert found.drop_columns(["t"]).to_pylist() == rows
    assert pl.read_parquet(path, columns=["f", "d", "i", "s"]).to_dicts() == rows
    times = table["t"].cast(pa.int64()).to_pylist()
    assert found["t"].to_pylist() == times
    assert pl.read_parquet(path)["t"].cast(pl.Int64).to_list() == times


SPECIAL: Final = [[0.0, -0.0], [float("nan"), 1.5, -2.5], [float("nan")], [float("inf"), float("-inf")], [None], [3.0]]


@pytest.mark.parametrize("values", SPECIAL, ids=str)
@pytest.mark.parametrize("kind", [pa.float32(), pa.float64()], ids=str)
def test_ranges_of_floats_are_those_of_arrow(values: list[float | None], kind: pa.DataType) -> None:
    assert statistics(file_of([of_one(pa.array(values, kind))])) == statistics(by_arrow(of_one(pa.array(values, kind))))


@pytest.mark.parametrize("kind", [pa.int64(), pa.uint8(), UTC], ids=str)
def test_ranges_of_integers_are_those_of_arrow(kind: pa.DataType) -> None:
    table = of_one(pa.array([7, None, 255, 3]).cast(kind))
    assert statistics(file_of([table])) == statistics(by_arrow(table))


def of_one(array: pa.Array) -> pa.Table:
    return pa.table({"x": array})


def by_arrow(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def statistics(data: bytes) -> tuple[Any, ...]:
    found = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0).column(0).statistics
    return found.null_count, found.has_min_max, repr(found.min), repr(found.max)


def test_only_what_shrinks_is_compressed() -> None:
    count = SAMPLE_BYTES
    noise = np.frombuffer(np.random.default_rng(5).bytes(8 * count), np.int64)
    table = pa.table({"noise": noise, "same": np.zeros(count, np.int64)})
    data = file_of([table])
    group = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    assert [group.column(at).compression for at in range(2)] == ["UNCOMPRESSED", "SNAPPY"]
    assert group.column(1).total_compressed_size < count
    assert group.total_byte_size > 16 * count
    assert pq.read_table(io.BytesIO(data)).equals(table)


def test_columns_that_share_their_memory_are_encoded_once_and_written_twice() -> None:
    statuses = pa.array(np.arange(90) % 4, pa.uint8())
    schema = pa.schema([pa.field(name, pa.uint8(), nullable=False) for name in ("a", "b", "c")])
    table = pa.Table.from_arrays([statuses, statuses, pa.array(np.arange(90) % 4, pa.uint8())], schema=schema)
    encoder = GroupEncoder(schema, [])
    a, b, c = encoder.start(table).result()
    encoder.close()
    assert a.pieces is b.pieces
    assert a.pieces is not c.pieces
    read = pq.ParquetFile(io.BytesIO(file_of([table])))
    assert read.read().equals(table)
    starts = [read.metadata.row_group(0).column(at).dictionary_page_offset for at in range(3)]
    assert len(set(starts)) == 3


def test_a_null_where_there_may_be_none_is_refused() -> None:
    schema = pa.schema([pa.field("x", pa.int64(), nullable=False)])
    encoder = GroupEncoder(schema, [])
    started = encoder.start(pa.Table.from_arrays([pa.array([1, None])], schema=schema))
    with pytest.raises(pa.ArrowInvalid, match="holds a null"):
        started.result()
    encoder.close()


def test_a_file_without_rows_is_whole() -> None:
    table = pa.table({"x": pa.array([], UTC), "y": pa.array([], pa.list_(pa.string()))})
    sink = io.BytesIO()
    EncodedFile(pa.PythonFile(sink, "w"), table.schema).close()
    assert pq.read_table(io.BytesIO(sink.getvalue())).equals(table)
