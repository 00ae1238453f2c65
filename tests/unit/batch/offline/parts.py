"""An offline store on a temporary folder, and rows for it."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa

from batch.offline.catalogue import Catalogue, OfflineConfig
from batch.offline.columns import ViewColumns
from batch.offline.positions import LogRange
from batch.offline.roots import Roots
from headrace.names import VersionRef
from headrace.types import Scalar, parse_type

DAY_US = 86_400_000_000
NOW_US = 1_760_000_000_000_000
FEATURES = {"age": "i32", "name": "string", "codes": "list<i64>", "pair": "list<f64,2>", "seen": "timestamp_us"}
VIEW = ViewColumns(
    VersionRef("shop.web.profile", 1),
    [("user_id", Scalar.I64), ("site", Scalar.STRING)],
    [(name, parse_type(text)) for name, text in FEATURES.items()],
)


def catalogue_of(folder: Path, warehouse: str = "") -> Catalogue:
    """A catalogue in a folder."""
    place = warehouse or str(folder / "warehouse")
    return Catalogue(OfflineConfig(f"sqlite:///{folder / 'catalogue.db'}", place, Roots([place])))


def rows_of(offsets: Sequence[int], *, partition: int = 0, day: int = 0, write_us: int = NOW_US) -> pa.Table:
    """A row per offset, its event time that many microseconds into a day."""
    count = len(offsets)
    values = {
        "user_id": list(offsets),
        "site": ["a"] * count,
        "age": [None if offset % 3 == 0 else offset for offset in offsets],
        "name": [f"user {offset}" for offset in offsets],
        "codes": [list(range(offset % 4)) for offset in offsets],
        "pair": [None if offset % 5 == 0 else [offset + 0.5, -0.0] for offset in offsets],
        "seen": [NOW_US] * count,
        "_event_time": [NOW_US + day * DAY_US + offset for offset in offsets],
        "_write_time": [write_us] * count,
        "_available_time": [write_us] * count,
        "_source_id": [0] * count,
        "_log_partition": [partition] * count,
        "_offset": list(offsets),
        "_tombstone": [False] * count,
    }
    return pa.table(values, VIEW.arrow)


def range_of(first: int, end: int, *, partition: int = 0, epoch: int = 1) -> LogRange:
    """A range of the log of these tests."""
    return LogRange("log", partition, epoch, first, end)


def offsets_of(reader: pa.RecordBatchReader) -> list[int]:
    """Offsets of what a read gave, sorted."""
    return sorted(reader.read_all()["_offset"].to_pylist())
