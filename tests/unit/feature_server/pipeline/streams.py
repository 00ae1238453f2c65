"""A registry of stream views, keyed messages of their source, and a second stage over real shards."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from core_ext.arrow import arrow_column
from core_ext.keys import encode_keys, shard_of_slot
from core_ext.row_codec import decode_row
from feature_server.domain.shard_writes import Durability
from feature_server.pipeline.applying import Applying, KeyedTopic, Poison
from feature_server.pipeline.consumer import Batch, Event
from feature_server.pipeline.keyed import POSITION, WRITE_TIME, headers_of, positions_of, write_keyed
from feature_server.pipeline.meters import Meters
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureView,
    Source,
    SourceKind,
    latest,
    window,
)
from headrace.definitions.registered import RegistryState
from tests.unit.feature_server.parts import NOW_US, OWNER, PRINCIPAL, Parts, state_of

SOURCE = "shop.web.orders"
USER = "shop.web.user"
SPENT = "shop.web.spent@v1"
LAST = "shop.web.last@v1"
SHARDS = 2
TOPIC = KeyedTopic("keyed.shop.web.user", bytes(range(16)), USER, 2)
UTC = pa.timestamp("us", "UTC")
URI = "kafka:orders?format=json"


def definitions(uri: str = URI, filter_text: str = "") -> DefinitionSet:
    """Orders of users: a view of windows, and a plain one."""
    types = {"user_id": "i64", "at": "timestamp_us", "cents": "i64", "shop": "string"}
    source = Source(
        SOURCE,
        owner=OWNER,
        kind=SourceKind.STREAM,
        uri=uri,
        columns=[Column(*one) for one in types.items()],
        event_time_column="at",
    )
    entity = Entity(USER, owner=OWNER, join_keys=[EntityKey("user_id", "i64")])
    spent = FeatureView(
        SPENT.partition("@")[0],
        owner=OWNER,
        entity=USER,
        source=SOURCE,
        filter=filter_text,
        features=[
            Feature("orders", "i64", window("count", over="7d", hop="1h")),
            Feature("cents", "i64", window("sum", "cents", over="7d", hop="1h")),
            Feature("shops", "list<string>", window("last_n", "shop", over="7d", hop="1h", item_count=500)),
            Feature("shop", "string", latest("shop")),
        ],
    )
    last = FeatureView(
        LAST.partition("@")[0],
        owner=OWNER,
        entity=USER,
        source=SOURCE,
        features=[Feature("last_cents", "i64", latest("cents"))],
    )
    return DefinitionSet(sources=[source], entities=[entity], feature_views=[spent, last])


class Stage:
    """The second stage on shards of its own, opened again at will."""

    def __init__(self, folder: Path, state: RegistryState | None = None, topic: KeyedTopic = TOPIC) -> None:
        self.parts = Parts(folder, shard_count=SHARDS, state=state or state_of(definitions()))
        self.topic = topic
        self.buried: list[Poison] = []
        self.meters = Meters()
        self.applying = Applying(
            self.parts.catalogue, self.parts.shards, self.meters, self.parts.clock, self.buried.append
        )

    def close(self) -> None:
        """Closes the shards."""
        self.parts.close()

    def apply(self, partition: int, *messages: Event) -> None:
        """Applies messages of one keyed partition."""
        self.applying.apply(self.topic, Batch(self.topic.name, partition, messages))

    def values(self, user: int) -> dict[str, Any]:
        """What is served of a user."""
        view = {name: f"{SPENT}:{name}" for name in ("orders", "cents", "shops", "shop")}
        return served(self.parts, user, {**view, "last_cents": f"{LAST}:last_cents"})

    def write_direct(self, user: int, cents: int, at_us: int) -> None:
        """A write of the view of windows through WriteFeatures."""
        batch = pa.RecordBatch.from_pydict(
            {
                "user_id": pa.array([user]),
                "event_time": pa.array([at_us], UTC),
                "cents": pa.array([cents]),
                "shop": pa.array(["direct"]),
            }
        )
        self.parts.writes.write(SPENT, lambda _: [batch], Durability.LOG, ("", 0), PRINCIPAL)


def served(parts: Parts, user: int, references: dict[str, str]) -> dict[str, Any]:
    """Values of features, by the names that they are given here; None where none is present."""
    found: dict[str, Any] = {}
    for name, reference in references.items():
        view = parts.catalogue.view(reference.partition(":")[0])
        feature = reference.partition(":")[2]
        key = encode_keys([3], [arrow_column(pa.array([user]))])
        storage = key.storage_keys(view.entity.entity_id, view.view_id, np.array([0]))
        row = parts.shards[shard_of_slot(int(key.slots[0]), SHARDS)].read(storage)[0]
        if view.computed is not None:
            row = view.computed.view.image(row, NOW_US)
        values = decode_row(view.schema, row)[1] if row is not None else []
        values = values or [None] * len(view.columns)  # a tombstone has none
        found[name] = values[view.columns[feature]]
    return found


def users_of(partition: int, count: int = 3) -> list[int]:
    """Users whose events lie in a keyed partition."""
    found = (user for user in range(1_000) if partition_of(user) == partition)
    return [user for _, user in zip(range(count), found, strict=False)]


def partition_of(user: int) -> int:
    """Keyed partition of a user."""
    key = encode_keys([3], [arrow_column(pa.array([user]))])
    return shard_of_slot(int(key.slots[0]), TOPIC.partition_count)


def order(user: int, cents: int, at_us: int = NOW_US, shop: str = "a") -> dict[str, Any]:
    """One event."""
    return {"user_id": user, "at": at_us, "cents": cents, "shop": shop}


def message(
    offset: int,
    events: Sequence[dict[str, Any]],
    *,
    source_offset: int,
    source_partition: int = 0,
    write_us: int = NOW_US,
) -> Event:
    """A keyed message of events that came in one source message."""
    count = len(events)
    rows = np.arange(count, dtype=np.int64)
    batch = pa.RecordBatch.from_pydict(
        {
            "user_id": pa.array([event["user_id"] for event in events], pa.int64()),
            "at": pa.array([event["at"] for event in events], pa.int64()).cast(UTC),
            "cents": pa.array([event["cents"] for event in events], pa.int64()),
            "shop": pa.array([event["shop"] for event in events], pa.string()),
            POSITION: pa.array(positions_of(np.full(count, source_offset, np.int64), rows)),
            WRITE_TIME: pa.array(np.full(count, write_us, np.int64)),
        }
    )
    return Event(offset, write_keyed(batch), write_us, headers_of(SOURCE, 1, source_partition))
