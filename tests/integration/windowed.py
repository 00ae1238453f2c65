"""Histories of a view with every aggregate, latest columns and derived features, for joins on several engines."""

from typing import Any, Final

import numpy as np
import pyarrow as pa

from batch.historical import FeatureColumn, HistoryInput, KeyColumn
from batch.historical.computation import computation_of
from headrace.definitions import Column, Entity, EntityKey, FeatureView, Source
from headrace.definitions.plans import compile_plan
from headrace.types import Scalar, parse_type
from tests.integration.test_computed_parity import DERIVED, LATEST, TYPES, window_features

ENTITY: Final = Entity("t.web.user", owner="t", join_keys=[EntityKey("user_id", "i64")])
COLUMNS: Final = [Column("user_id", "i64"), Column("event_time", "timestamp_us")]
SOURCE: Final = Source("t.web.orders", owner="t", columns=COLUMNS + [Column(*one) for one in TYPES.items()])
FEATURES: Final = [*window_features(), *LATEST, *DERIVED]
START_US: Final = 1_760_000_000_000_000
SPAN_US: Final = 5 * 24 * 3_600 * 1_000_000
_UTC: Final = pa.timestamp("us", "UTC")


def windowed_view(rows: Any, **changes: Any) -> HistoryInput:  # of many types
    """The view as a join takes it."""
    made = FeatureView("t.web.rich", owner="t", entity=ENTITY.name, source=SOURCE.name, features=FEATURES)
    names = [one.name for one in FEATURES]
    fields: dict[str, Any] = {
        "name": "v",
        "columns": tuple(FeatureColumn(one.name, one.type, one.default) for one in FEATURES),
        "keys": (KeyColumn("user_id", "user_id", Scalar.I64),),
        "event_time": "event_time",
        "write_time": "written",
        "partition": "part",
        "offset": "position",
        "tombstone": "gone",
        "ttl_us": SPAN_US,
        "computation": computation_of(compile_plan(made, ENTITY, SOURCE), SOURCE, names, "t.web.rich", "event_time"),
    }
    return HistoryInput(rows=rows, **(fields | changes))


def events(seed: int, count: int, users: int) -> pa.Table:
    """Random events with ties, late ones, nulls and a few erasures."""
    random = np.random.default_rng(seed)
    event_us = START_US + random.integers(0, SPAN_US // 1_000, count) * 1_000
    late_us = random.choice([0, 1, 1_000_000, 7_200_000_000], count)
    number = random.integers(0, 20, count)
    texts = np.array([f"{'é' * (n % 3)}{n % 7}" for n in range(20)], object)
    columns: dict[str, Any] = {
        "price": np.where(number == 19, np.nan, number * 0.1),
        "small": (number * 0.3).astype(np.float32),
        "quantity": number - 5,
        "level": (number - 5).astype(np.int32),
        "shop": texts[number],
        "raw": np.array([bytes([n] * (n % 4)) for n in range(20)], object)[number],
        "paid": number % 3 > 0,
        "seen": START_US + number,
        "day": (number - 5).astype(np.int32),
        "codes": [list(range(n % 4)) for n in number.tolist()],
        "pair": [[float(n), -0.5] for n in number.tolist()],
    }
    made = {name: _column(columns[name], name, random.random(count) < 0.1) for name in TYPES}
    return pa.table(
        {
            "user_id": random.integers(0, users, count),
            "event_time": pa.array(event_us, _UTC),
            **made,
            "written": pa.array(event_us + late_us, _UTC),
            "part": pa.array(random.integers(0, 2, count), pa.int32()),
            "position": np.arange(count),
            "gone": random.random(count) < 0.001,
        }
    )


def spine(seed: int, count: int, users: int) -> pa.Table:
    """Entity rows, some of users that nobody knows."""
    random = np.random.default_rng(seed + 1)
    times = START_US + random.integers(-1_000, SPAN_US, count)
    return pa.table({"user_id": random.integers(0, users + 2, count), "event_time": pa.array(times, _UTC)})


def _column(values: Any, name: str, nulls: Any) -> pa.Array:  # of many types
    kind = parse_type(TYPES[name])
    made = pa.array(values, pa.list_(pa.float64(), 2) if name == "pair" else kind.arrow)
    return made.take(pa.array(np.arange(len(made)), mask=nulls)).cast(kind.arrow)
