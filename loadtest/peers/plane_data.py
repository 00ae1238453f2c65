"""What the native data plane is measured with besides the scenarios: wide reads that default, narrow ones, windows."""

import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.client import Client
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Fallback,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    latest,
    window,
)
from loadtest.dataset import OWNER, USER, key_ranges
from loadtest.rows import EVENT_TIME_US, FEATURES_PER_VIEW, SEED, Keys, values

FULL_VIEWS: Final = tuple(f"bench.plane.full_{number}" for number in range(4))
NARROW: Final = "bench.plane.narrow"
WINDOWED: Final = "bench.plane.windowed"
SERVICES: Final = {"bench.plane.full_200": FULL_VIEWS, "bench.plane.narrow_10": (NARROW,)}
SERVICES_WINDOWED: Final = "bench.plane.windowed_200"
NARROW_FEATURES: Final = 10
NARROW_INDEX: Final = 500  # of its values
FULL_INDEX: Final = 600
WINDOW_COLUMNS: Final = 10  # five aggregates over four windows of ten columns are 200 values
WINDOWS: Final = (("1h", "5m"), ("6h", "15m"), ("1d", "1h"), ("7d", "6h"))
AGGREGATES: Final = {"count": "i64", "sum": "f64", "avg": "f64", "min": "f32", "max": "f32"}
WINDOWED_USERS: Final = 200
WINDOWED_EVENTS: Final = 60  # of a user, within six days: every one is in the longest window
EVENTS_OVER_S: Final = 6 * 24 * 3600
TTL: Final = timedelta(days=30)
FRESH_AGE_S: Final = 60
DEFAULT: Final = 0.5  # of every other feature
WRITE_S: Final = 60.0

_SECOND_US: Final = 1_000_000


def definitions() -> DefinitionSet:
    """The views and services; the entity is that of the scenarios."""
    full = [_view(name, FEATURES_PER_VIEW, TTL) for name in FULL_VIEWS]
    windows = FeatureView(
        name=WINDOWED, owner=OWNER, entity=USER, source=f"{WINDOWED}_rows",
        features=[
            Feature(f"{aggregate}_{at}_{over}", kind, window(aggregate, column, over=over, hop=hop))
            for at, column in enumerate(_columns(WINDOWED, WINDOW_COLUMNS))
            for aggregate, kind in AGGREGATES.items()
            for over, hop in WINDOWS
        ],
    )  # fmt: skip
    services = {**SERVICES, SERVICES_WINDOWED: (WINDOWED,)}
    return DefinitionSet(
        sources=[
            *(_source(name, FEATURES_PER_VIEW) for name in FULL_VIEWS),
            _source(NARROW, NARROW_FEATURES),
            _source(WINDOWED, WINDOW_COLUMNS),
        ],
        entities=[Entity(name=USER, owner=OWNER, join_keys=[EntityKey("user_id", "i64")])],
        feature_views=[*full, _view(NARROW, NARROW_FEATURES, None), windows],
        feature_services=[
            FeatureService(name=name, owner=OWNER, entries=[ServiceEntry(f"{view}@v1") for view in views])
            for name, views in services.items()
        ],
    )


def load(client: Client, user_count: int) -> int:
    """Writes all rows and events; returns how many the server accepted."""
    now_us = time.time_ns() // 1_000
    count = 0
    for name, table in tables(user_count, now_us):
        count += client.write_features(f"{name}@v1", table, timeout_s=WRITE_S).row_count
    return count


def tables(user_count: int, now_us: int) -> Iterator[tuple[str, pa.Table]]:
    """Every batch with the view it is for."""
    for keys in key_ranges(0, user_count):
        yield NARROW, _table(NARROW, keys, np.full(len(keys), EVENT_TIME_US), narrow_values(keys))
        for number, name in enumerate(FULL_VIEWS):
            there = keys[~is_missing(number, keys)]
            fresh = now_us - FRESH_AGE_S * _SECOND_US
            times = np.where(is_expired(number, there), EVENT_TIME_US, fresh)
            yield name, _table(name, there, times, values(FULL_INDEX + number, there))
    yield WINDOWED, events(now_us)


def is_missing(view: int, keys: Keys) -> NDArray[np.bool_]:
    """One view of four has no row of every second user; every other user's is expired: a quarter of all values."""
    found: NDArray[np.bool_] = (keys % 4 == view) & (keys % 8 < 4)
    return found


def is_expired(view: int, keys: Keys) -> NDArray[np.bool_]:
    """Whether the row of the view is older than its time to live."""
    found: NDArray[np.bool_] = (keys % 4 == view) & (keys % 8 >= 4)
    return found


def narrow_values(keys: Keys) -> NDArray[np.float32]:
    """Ten f32 of each key."""
    return values(NARROW_INDEX, keys, NARROW_FEATURES)


def events(now_us: int) -> pa.Table:
    """Events of the windowed users in the order of their times."""
    random = np.random.default_rng(SEED)
    count = WINDOWED_USERS * WINDOWED_EVENTS
    users = np.repeat(np.arange(WINDOWED_USERS, dtype=np.int64), WINDOWED_EVENTS)
    times = np.sort(now_us - random.integers(FRESH_AGE_S, EVENTS_OVER_S, count) * _SECOND_US)
    columns = random.normal(10, 30, (count, WINDOW_COLUMNS)).astype(np.float32)
    return _table(WINDOWED, random.permutation(users), times, columns)


def _view(name: str, count: int, ttl: timedelta | None) -> FeatureView:
    features = [
        Feature(column, "f32", latest(column), default=None if at % 2 else DEFAULT)
        for at, column in enumerate(_columns(name, count))
    ]
    return FeatureView(
        name=name, owner=OWNER, entity=USER, source=f"{name}_rows", features=features, ttl=ttl,
        fallback=Fallback.DEFAULT,
    )  # fmt: skip


def _source(name: str, count: int) -> Source:
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us")]
    columns += [Column(one, "f32") for one in _columns(name, count)]
    return Source(name=f"{name}_rows", owner=OWNER, columns=columns)


def _columns(view: str, count: int) -> Sequence[str]:
    """Names of a view's source columns, unique over all views."""
    return [f"{view.rpartition('.')[2]}_{at:02d}" for at in range(count)]


def _table(view: str, keys: Keys, times_us: NDArray[np.int64], table: NDArray[np.float32]) -> pa.Table:
    columns = {"user_id": pa.array(keys), "event_time": pa.array(times_us).view(pa.timestamp("us", tz="UTC"))}
    by_column = np.asfortranarray(table)
    columns |= {name: pa.array(by_column[:, at]) for at, name in enumerate(_columns(view, table.shape[1]))}
    return pa.table(columns)
