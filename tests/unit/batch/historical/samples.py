"""Histories, spines and a naive evaluator for the tests of the historical join."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from batch.historical import FeatureColumn, HistoryInput, JoinReport, KeyColumn, join_to_parquet
from core_ext import rules
from core_ext.twin import rules as twin
from headrace.types import Scalar, parse_type

UTC: Final = pa.timestamp("us", "UTC")
START_US: Final = 1_760_000_000_000_000
FOREVER_US: Final = 2**62
KEYS: Final = (KeyColumn("user", "user_id", Scalar.STRING), KeyColumn("shop", "shop_id", Scalar.I64))
FEATURES: Final = (
    FeatureColumn("amount", parse_type("f32"), default=-1.0),
    FeatureColumn("seen", parse_type("bool")),
    FeatureColumn("pair", parse_type("list<i64,2>"), default=[7, 8]),
    FeatureColumn("text", parse_type("string"), default="none"),
    FeatureColumn("tags", parse_type("list<string>")),
)


@dataclass(frozen=True)
class Sample:
    """One spine and one history as tables."""

    spine: pa.Table
    history: pa.Table


def sample(seed: int, spine_rows: int, history_rows: int, entities: int = 7, times: int = 30) -> Sample:
    """Random rows with many ties, duplicates, nulls and tombstones."""
    random = np.random.default_rng(seed)

    def keys(count: int, names: tuple[str, str]) -> dict[str, pa.Array]:
        users, shops = random.integers(0, entities, count), random.integers(0, 2, count)
        return {names[0]: pa.array([f"user-{one}" for one in users], pa.string()), names[1]: pa.array(shops)}

    def moments(count: int) -> pa.Array:
        return pa.array(START_US + random.integers(0, times, count), UTC)

    def some(values: list[Any], kind: pa.DataType) -> pa.Array:
        return pa.array([one if random.random() > 0.2 else None for one in values], kind)

    numbers = random.integers(0, 1_000, history_rows).tolist()
    spine = pa.table(
        {**keys(spine_rows, ("user_id", "shop_id")), "at": moments(spine_rows), "label": range(spine_rows)}
    )
    history = pa.table(
        {
            **keys(history_rows, ("user", "shop")),
            "event": moments(history_rows),
            "written": moments(history_rows),
            "available": moments(history_rows),
            "source": pa.array(random.integers(0, 2, history_rows), pa.uint32()),
            "part": pa.array(random.integers(0, 2, history_rows), pa.int32()),
            "position": pa.array(random.integers(0, 3, history_rows), pa.int64()),
            "gone": pa.array(random.random(history_rows) < 0.1, pa.bool_()),
            "amount": some([float(n) for n in numbers], pa.float32()),
            "seen": some([n % 2 == 0 for n in numbers], pa.bool_()),
            "pair": some([[n, -n] for n in numbers], FEATURES[2].type.arrow),
            "text": some(["é" * (n % 5) for n in numbers], pa.string()),
            "tags": some([[str(n)] * (n % 3) for n in numbers], FEATURES[4].type.arrow),
        }
    )
    return Sample(spine, history)


def view(rows: Any, **changes: Any) -> HistoryInput:  # what a case changes is of many types
    """The view of the sample."""
    fields: dict[str, Any] = {
        "name": "v",
        "columns": FEATURES,
        "keys": KEYS,
        "event_time": "event",
        "write_time": "written",
        "available_time": "available",
        "source_id": "source",
        "partition": "part",
        "offset": "position",
        "tombstone": "gone",
        "ttl_us": 9,
        "stale_us": 4,
        "fallback": rules.FALLBACK_DEFAULT,
    }
    return HistoryInput(rows=rows, **(fields | changes))


def seen_from(row: dict[str, Any]) -> int:
    """From when on a row counts."""
    available: int = row["available"]
    return available if row["gone"] else max(row["event"], available)


def naive(one: Sample, wanted: HistoryInput, cutoff_us: int) -> list[dict[str, Any]]:
    """The result by looking at every history row for every spine row."""
    history = one.history.set_column(2, "event", one.history["event"].cast(pa.int64()))
    for name in ("written", "available"):
        history = history.set_column(history.schema.get_field_index(name), name, history[name].cast(pa.int64()))
    rows = history.to_pylist()
    out = []
    times = one.spine["at"].cast(pa.int64()).to_pylist()
    for spine, at in zip(one.spine.to_pylist(), times, strict=True):
        seen = [
            ((row["event"], row["written"], row["source"], row["part"], row["position"], -i), row)
            for i, row in enumerate(rows)
            if (row["user"], row["shop"]) == (spine["user_id"], spine["shop_id"])
            and seen_from(row) <= at
            and row["written"] <= cutoff_us
        ]
        found = max(seen, key=lambda pair: pair[0])[1] if seen else None
        status = rules.MISSING
        if found is not None:
            status = twin.status_at(found["event"], bool(found["gone"]), at, wanted.ttl_us, wanted.stale_us)
        out.append(spine | _features(found, status, wanted))
    return out


def _features(found: dict[str, Any] | None, status: int, wanted: HistoryInput) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for column in wanted.columns:
        value = None if found is None or found["gone"] else found[column.name]
        has_default = column.default is not None
        settled, slot = twin.value_status(status, value is None, wanted.fallback, has_default, wanted.include_expired)
        held = {rules.SLOT_VALUE: value, rules.SLOT_DEFAULT: column.default, rules.SLOT_EMPTY: None}[slot]
        out |= {f"v__{column.name}": held, f"v__{column.name}__status": settled}
    return out


def written(table: pa.Table, path: Path, row_group_size: int = 1 << 20) -> str:
    """A Parquet file of a table."""
    pq.write_table(table, path, row_group_size=row_group_size)
    return str(path)


def join(spine: Any, views: list[HistoryInput], output: Path, **changes: Any) -> JoinReport:  # as above
    """The join with what every case shares."""
    options: dict[str, Any] = {"time_column": "at", "cutoff_us": FOREVER_US, "temp_folder": str(output.parent)}
    return join_to_parquet(spine, views, str(output), **(options | changes))
