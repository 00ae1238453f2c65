"""Definitions and rows of the load test scenarios: users, items and their pairs, all of f32 features."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureService,
    FeatureView,
    ServiceEntry,
    Source,
    latest,
)
from loadtest.rows import EVENT_TIME_US, FEATURES_PER_VIEW, SEED, Keys, mix, values

OWNER: Final = "bench"
USER: Final = "bench.online.user"
ITEM: Final = "bench.online.item"
PAIR: Final = "bench.online.user_item"
JOIN_KEYS: Final = {USER: ("user_id",), ITEM: ("item_id",), PAIR: ("user_id", "item_id")}
PAIR_FEATURES: Final = 20
USERS_PER_ITEM: Final = 10
BATCH_ROWS: Final = 10_000  # of one write: 2.2 MB, below the 4 MB that gRPC takes by default


@dataclass(frozen=True, slots=True)
class View:
    """One view of 50 (pairs: 20) f32 features; `index` picks its values."""

    name: str
    entity: str
    index: int
    feature_count: int = FEATURES_PER_VIEW

    @property
    def reference(self) -> str:
        """Name of its first version."""
        return f"{self.name}@v1"

    @property
    def features(self) -> list[str]:
        """Feature names, unique over all views."""
        return [f"v{self.index}_f{number:02d}" for number in range(self.feature_count)]


@dataclass(frozen=True, slots=True)
class Scenario:
    """What one call asks for."""

    name: str
    service: str
    views: tuple[View, ...]
    row_count: int

    @property
    def feature_count(self) -> int:
        """Columns of one answer."""
        return sum(view.feature_count for view in self.views)

    @property
    def join_keys(self) -> tuple[str, ...]:
        """Request columns."""
        return tuple(dict.fromkeys(key for view in self.views for key in JOIN_KEYS[view.entity]))


USER_VIEWS: Final = tuple(View(f"bench.online.user_view_{index}", USER, index) for index in range(4))
WIDE_VIEWS: Final = tuple(View(f"bench.online.wide_view_{index:02d}", USER, 100 + index) for index in range(20))
ITEM_VIEWS: Final = tuple(View(f"bench.online.item_view_{index}", ITEM, 200 + index) for index in range(2))
PAIR_VIEWS: Final = (View("bench.online.user_item_view", PAIR, 300, PAIR_FEATURES),)
WRITE_VIEW: Final = View("bench.online.write_view", USER, 400)
VIEWS: Final = (*USER_VIEWS, *WIDE_VIEWS, *ITEM_VIEWS, *PAIR_VIEWS, WRITE_VIEW)

USER_SERVICE: Final = "bench.online.user_200"
SERVICES: Final = {
    USER_SERVICE: USER_VIEWS,
    "bench.online.user_1000": WIDE_VIEWS,
    "bench.online.cross_320": (*USER_VIEWS, *ITEM_VIEWS, *PAIR_VIEWS),
}
SCENARIOS: Final = {
    scenario.name: scenario
    for scenario in (
        Scenario("1x200", USER_SERVICE, USER_VIEWS, 1),
        Scenario("10x200", USER_SERVICE, USER_VIEWS, 10),
        Scenario("100x200", USER_SERVICE, USER_VIEWS, 100),
        Scenario("1x1000", "bench.online.user_1000", WIDE_VIEWS, 1),
        Scenario("cross", "bench.online.cross_320", SERVICES["bench.online.cross_320"], 1),
    )
}


def definitions() -> DefinitionSet:
    """Everything that the scenarios need, in one set."""
    return DefinitionSet(
        sources=[_source(view) for view in VIEWS],
        entities=[
            Entity(name=name, owner=OWNER, join_keys=[EntityKey(key, "i64") for key in keys])
            for name, keys in JOIN_KEYS.items()
        ],
        feature_views=[_view(view) for view in VIEWS],
        feature_services=[
            FeatureService(name=name, owner=OWNER, entries=[ServiceEntry(view.reference) for view in views])
            for name, views in SERVICES.items()
        ],
    )


def _source(view: View) -> Source:
    columns = [Column(key, "i64") for key in JOIN_KEYS[view.entity]]
    columns += [Column("event_time", "timestamp_us"), *(Column(name, "f32") for name in view.features)]
    return Source(name=f"{view.name}_rows", owner=OWNER, columns=columns)


def _view(view: View) -> FeatureView:
    features = [Feature(name, "f32", latest(name)) for name in view.features]
    return FeatureView(name=view.name, owner=OWNER, entity=view.entity, source=f"{view.name}_rows", features=features)


def item_of(users: Keys, item_count: int) -> Keys:
    """The one item of each user for which a pair row is stored."""
    words: Keys = (mix(users.astype(np.uint64)) % np.uint64(item_count)).astype(np.int64)
    return words


def item_count_of(user_count: int) -> int:
    """Items that go with so many users."""
    return max(1, user_count // USERS_PER_ITEM)


def key_columns(view: View, keys: Keys, user_count: int) -> dict[str, Keys]:
    """Join key columns of a view's rows; a pair is known by its user."""
    if view.entity == ITEM:
        return {"item_id": keys}
    if view.entity == PAIR:
        return {"user_id": keys, "item_id": item_of(keys, item_count_of(user_count))}
    return {"user_id": keys}


def row_count_of(view: View, user_count: int) -> int:
    """Rows that a view holds for so many users."""
    return item_count_of(user_count) if view.entity == ITEM else user_count


def arrow_rows(view: View, keys: Keys, user_count: int, event_time_us: int = EVENT_TIME_US, seed: int = SEED) -> bytes:
    """One Arrow IPC stream with the rows of the keys."""
    columns: dict[str, pa.Array] = {
        name: pa.array(column) for name, column in key_columns(view, keys, user_count).items()
    }
    times = np.full(len(keys), event_time_us, dtype=np.int64)
    columns["event_time"] = pa.array(times).view(pa.timestamp("us", tz="UTC"))
    table = np.asfortranarray(values(view.index, keys, view.feature_count, seed))
    columns |= {name: pa.array(table[:, at]) for at, name in enumerate(view.features)}
    batch = pa.record_batch(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return bytes(sink.getvalue())


def key_ranges(first: int, count: int, batch_rows: int = BATCH_ROWS) -> Iterator[Keys]:
    """The keys first to first + count - 1 in batches."""
    for start in range(first, first + count, batch_rows):
        yield np.arange(start, min(start + batch_rows, first + count), dtype=np.int64)
