"""Joins of files whose columns are picked out of their pages equal joins of the same rows in memory."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.historical import FeatureColumn, HistoryInput, JoinReport, KeyColumn, join_to_parquet
from batch.historical.chunks import ChunkMap
from headrace.errors import InvalidArgument
from headrace.types import Scalar, parse_type
from tests.unit.batch.historical.samples import FOREVER_US, START_US, UTC

KEYS = (KeyColumn("user", "user", Scalar.I64),)
TYPES = {"a": "f32", "b": "f64", "c": "i64", "d": "i32", "e": "timestamp_us", "f": "date", "g": "bool", "h": "string"}
PICKED = {"user", "event", "a", "b", "c", "d", "e", "f"}
GROUP_ROWS = 700


def history(seed: int) -> pa.Table:
    """Rows with columns of every fixed width, and nulls in one row group only."""
    random = np.random.default_rng(seed)
    count = 3 * GROUP_ROWS
    numbers = random.integers(0, 1_000, count)
    mask = (np.arange(count) < GROUP_ROWS) & (random.random(count) < 0.3)
    columns = {
        name: pa.array(numbers, mask=mask).cast(parse_type(kind).arrow)
        for name, kind in TYPES.items()
        if kind not in {"date", "timestamp_us"}
    }
    columns["e"] = pa.array(numbers, UTC, mask=mask)
    columns["f"] = pa.array(numbers.astype(np.int32), pa.date32(), mask=mask)
    times = pa.array(START_US + random.integers(0, 5_000, count), UTC)
    return pa.table({"user": random.integers(-20, 20, count), "event": times, **columns})


def spine(seed: int) -> pa.Table:
    """Twice as many entities as the history has."""
    random = np.random.default_rng(seed)
    return pa.table(
        {"user": random.integers(-40, 40, 900), "at": pa.array(START_US + random.integers(0, 6_000, 900), UTC)}
    )


def joined(rows: Any, output: Path, seed: int) -> JoinReport:  # files or a table
    """The join of the sample."""
    columns = tuple(FeatureColumn(name, parse_type(kind)) for name, kind in TYPES.items())
    view = HistoryInput(name="v", columns=columns, keys=KEYS, event_time="event", rows=rows)
    return join_to_parquet(spine(seed), [view], str(output), time_column="at", cutoff_us=FOREVER_US)


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
@pytest.mark.parametrize(
    "options", [{}, {"use_dictionary": False}, {"data_page_size": 64}, {"data_page_version": "2.0"}]
)
def test_files_of_any_writer_give_the_rows_in_memory(
    tmp_path: Path, seed: int, compression: str, options: dict[str, Any]
) -> None:
    rows = history(seed)
    path = str(tmp_path / "history.parquet")
    pq.write_table(rows, path, compression=compression, row_group_size=GROUP_ROWS, **options)
    expected = joined(rows, tmp_path / "memory.parquet", seed).digest
    assert joined([path], tmp_path / "file.parquet", seed).digest == expected


@pytest.mark.parametrize("compression", ["none", "snappy", "zstd"])
def test_which_columns_are_picked(tmp_path: Path, seed: int, compression: str) -> None:
    path = str(tmp_path / "history.parquet")
    pq.write_table(history(seed), path, row_group_size=GROUP_ROWS, compression=compression)
    opened = pq.ParquetFile(path)
    chunks = ChunkMap(opened.metadata, opened.schema_arrow)
    assert {name for name in opened.schema_arrow.names if chunks.find(1, name) is not None} == PICKED


def test_a_time_in_another_unit_is_left_to_arrow(tmp_path: Path) -> None:
    path = str(tmp_path / "history.parquet")
    pq.write_table(pa.table({"event": pa.array([START_US], UTC)}), path, coerce_timestamps="ms")
    opened = pq.ParquetFile(path)
    chunks = ChunkMap(opened.metadata, opened.schema_arrow)
    assert chunks.find(0, "event") is None


def test_a_null_key_or_time_is_refused_as_ever(tmp_path: Path, seed: int) -> None:
    rows = history(seed)
    for name, reason in (("user", "NULL_KEY"), ("event", "NULL_TIME")):
        column = rows[name].combine_chunks()
        broken = pa.concat_arrays([column[:-1], pa.nulls(1, column.type)])
        path = str(tmp_path / f"{name}.parquet")
        pq.write_table(rows.set_column(rows.schema.get_field_index(name), name, broken), path)
        with pytest.raises(InvalidArgument) as refusal:
            joined([path], tmp_path / "out.parquet", seed)
        assert refusal.value.reason == reason
