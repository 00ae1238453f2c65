"""Histories and spines of a given size as Parquet files, from one seed."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical import FeatureColumn, HistoryInput, KeyColumn
from headrace.types import Scalar, parse_type

FEATURE_COUNT: Final = 10
ENTITY_COUNT: Final = 1_000_000
SPINE_SHARE: Final = 20  # history rows per spine row
GROUP_ROWS: Final = 1 << 19
FILE_BYTES: Final = 256 << 20
START_US: Final = 1_760_000_000_000_000
SPAN_US: Final = 30 * 24 * 3_600 * 1_000_000
_UTC: Final = pa.timestamp("us", "UTC")


@dataclass(frozen=True, slots=True)
class Data:
    """Files of one size."""

    spine: list[str]
    history: list[str]
    history_bytes: int
    history_rows: int
    spine_rows: int


def write_data(folder: Path, size_bytes: int, seed: int) -> Data:
    """History files of about `size_bytes`, and a spine of a row per SPINE_SHARE of theirs."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(seed)
    history: list[str] = []
    byte_count = row_count = 0
    while byte_count < size_bytes:
        path = folder / f"history-{len(history):05d}.parquet"
        row_count += _write(path, random, min(FILE_BYTES, size_bytes - byte_count), FEATURE_COUNT)
        byte_count += path.stat().st_size
        history.append(str(path))
    spine_rows = max(1, row_count // SPINE_SHARE)
    with pq.ParquetWriter(folder / "spine.parquet", _rows(random, 1, 0).schema, compression="none") as writer:
        for start in range(0, spine_rows, GROUP_ROWS):
            writer.write_table(_rows(random, min(GROUP_ROWS, spine_rows - start), 0))
    return Data([str(folder / "spine.parquet")], history, byte_count, row_count, spine_rows)


def view_of(files: list[str]) -> HistoryInput:
    """The view over the files."""
    columns = tuple(FeatureColumn(f"f{number}", parse_type("f32")) for number in range(FEATURE_COUNT))
    keys = (KeyColumn("user_id", "user_id", Scalar.I64),)
    return HistoryInput("v", columns, keys, "event_time", files, write_time="write_time")


def _write(path: Path, random: np.random.Generator, size_bytes: int, feature_count: int) -> int:
    rows = 0
    with pq.ParquetWriter(path, _rows(random, 1, feature_count).schema, compression="none") as writer:
        while rows == 0 or path.stat().st_size < size_bytes:
            writer.write_table(_rows(random, GROUP_ROWS, feature_count))
            rows += GROUP_ROWS
    return rows


def _rows(random: np.random.Generator, count: int, feature_count: int) -> pa.Table:
    event_us = START_US + random.integers(0, SPAN_US, count)
    columns = {"user_id": random.integers(0, ENTITY_COUNT, count), "event_time": pa.array(event_us, _UTC)}
    if feature_count:
        columns["write_time"] = pa.array(event_us + random.integers(0, 60_000_000, count), _UTC)
    for number in range(feature_count):
        columns[f"f{number}"] = random.random(count, np.float32)
    return pa.table(columns)
