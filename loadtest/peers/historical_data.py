"""Spine and histories of the historical comparison: Parquet files from one seed, made once and kept in the cache."""

import shutil
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from loadtest.rows import SEED

START_US: Final = 1_760_000_000_000_000
SPAN_US: Final = 30 * 86_400_000_000
FEATURES: Final = 10
VIEWS: Final = 3
GROUP_ROWS: Final = 122_880  # DuckDB's own row group
TIMES: Final = pa.timestamp("us", "UTC")
VERSION: Final = 1  # of the files: another one is made anew


def spine_file(folder: Path, row_count: int, entity_count: int) -> str:
    """Entities at random times, ordered by time as Polars asks; `row` numbers them."""
    path = folder / f"spine-{VERSION}-{row_count}-{entity_count}.parquet"
    if not path.exists():
        random = np.random.default_rng(SEED)
        at = np.sort(random.integers(START_US, START_US + SPAN_US, row_count))
        entity = random.integers(0, entity_count, row_count)
        table = pa.table({"row": np.arange(row_count), "entity": entity, "at": pa.array(at, TIMES)})
        _keep(table.to_reader(GROUP_ROWS), path)
    return str(path)


def history_file(folder: Path, number: int, row_count: int, entity_count: int) -> str:
    """Events in their order, no two at one time, so that every engine must give the same row."""
    path = folder / f"history-{VERSION}-{number}-{row_count}-{entity_count}.parquet"
    if not path.exists():
        schema = pa.schema(
            [("entity", pa.int64()), ("event_time", TIMES), *((f"f{i}", pa.float32()) for i in range(FEATURES))]
        )
        _keep(pa.RecordBatchReader.from_batches(schema, _events(schema, number, row_count, entity_count)), path)
    return str(path)


def _events(schema: pa.Schema, number: int, row_count: int, entity_count: int) -> Any:  # a generator of batches
    random = np.random.default_rng([SEED, number])
    step_us = SPAN_US // row_count
    for start in range(0, row_count, GROUP_ROWS):
        count = min(GROUP_ROWS, row_count - start)
        at = START_US + (start + np.arange(count)) * step_us + random.integers(0, step_us, count)
        cells = random.random((FEATURES, count), np.float32)
        entity = pa.array(random.integers(0, entity_count, count))
        yield pa.RecordBatch.from_arrays([entity, pa.array(at, TIMES), *map(pa.array, cells)], schema=schema)


def _keep(reader: pa.RecordBatchReader, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    under_way = path.with_suffix(".partial")
    with pq.ParquetWriter(under_way, reader.schema) as writer:
        for batch in reader:
            writer.write_batch(batch, row_group_size=GROUP_ROWS)
    shutil.move(under_way, path)


def job(folder: Path, spine_rows: int, history_rows: int, entity_count: int) -> dict[str, Any]:
    """The job that every engine gets, without its output."""
    views = [
        {
            "name": f"v{number}",
            "files": [history_file(folder, number, history_rows, entity_count)],
            "keys": [["entity", "entity", "i64"]],
            "event_time": "event_time",
            "columns": [[f"f{i}", "f32"] for i in range(FEATURES)],
        }
        for number in range(VIEWS)
    ]
    spine = [spine_file(folder, spine_rows, entity_count)]
    return {"spine": spine, "views": views, "time_column": "at", "cutoff_us": START_US + 2 * SPAN_US}
