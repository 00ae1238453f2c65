"""Lookups of events on arrival: what is known of another view then, as of the time of the event."""

import itertools
import threading
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from core_ext.keys import encode_key, shard_of_slot, slot_of_key, storage_key
from core_ext.row_codec import check_row
from feature_server.domain.lookups import Lookups
from feature_server.domain.shard_writes import Durability
from feature_server.ring.held_ring import HeldRing
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Fallback,
    Feature,
    FeatureView,
    RegistryState,
    ServiceEntry,
    Source,
    derived,
    latest,
    window,
)
from headrace.definitions.enrichment import source_of
from headrace.definitions.lookups import Lookup, lookups_of
from headrace.errors import DataLoss, FailedPrecondition, HeadraceError, InvalidArgument
from headrace.names import VersionRef
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from headrace.types import Scalar
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.control_plane.domain.plan_cases import applied
from tests.unit.feature_server.parts import NOW_US, PRINCIPAL, Parts

USER, ITEM, CATALOG, DEMAND, SPENDING = (
    f"shop.web.{name}" for name in ("user", "item", "catalog", "demand", "spending")
)
HOUR_US = 3_600_000_000
UTC = pa.timestamp("us", "UTC")
CATALOG_TYPES = {"price": "f64", "label": "string", "tags": "list<i64>", "pair": "list<f32,2>", "open": "bool"}
DEFAULTS: dict[str, Any] = {"price": 1.5, "tags": (7,), "pair": (0.5, -0.0)}


def source(name: str, columns: dict[str, str]) -> Source:
    given = {"event_time": "timestamp_us", **columns}
    return Source(name, owner="shop", columns=[Column(*one) for one in given.items()])


def definitions(fallback: Fallback = Fallback.DEFAULT) -> DefinitionSet:
    """Prices of items; what is sold of them; and what users spend, by prices and demand as of the sale."""
    catalog = FeatureView(
        CATALOG, owner="shop", entity=ITEM, source="shop.web.prices", ttl=timedelta(hours=2), fallback=fallback,
        features=[Feature(name, kind, latest(name), default=DEFAULTS.get(name))
                  for name, kind in CATALOG_TYPES.items()],
    )  # fmt: skip
    demand = FeatureView(
        DEMAND, owner="shop", entity=ITEM, source="shop.web.sales", filter="amount > 0",
        features=[
            Feature("sold", "i64", window("sum", "amount", over="1h", hop="1m")),
            Feature("amount", "i64", latest("amount"), default=3),
            Feature("twice", "i64", derived("sold * 2")),
        ],
    )  # fmt: skip
    read = [Feature(f"item_{name}", kind, latest(f"item_{name}")) for name, kind in CATALOG_TYPES.items()]
    spending = FeatureView(
        SPENDING, owner="shop", entity=USER, source="shop.web.clicks", filter="item_price is null or item_price > 0.0",
        features=[
            *read,
            Feature("sold", "i64", latest("now_sold")),
            Feature("amount", "i64", latest("now_amount")),
            Feature("twice", "i64", latest("now_twice")),
            Feature("spent", "f64", window("sum", "item_price * cast(quantity as f64)", over="1h", hop="1m")),
        ],
        lookups=[
            ServiceEntry(CATALOG, join_key_mapping={"item_id": "item"}, output_prefix="item_"),
            ServiceEntry(DEMAND, join_key_mapping={"item_id": "item"}, output_prefix="now_"),
        ],
    )  # fmt: skip
    return DefinitionSet(
        sources=[
            source("shop.web.prices", {"item_id": "string", **CATALOG_TYPES}),
            source("shop.web.sales", {"item_id": "string", "amount": "i64"}),
            source("shop.web.clicks", {"user_id": "i64", "item": "string", "quantity": "i64"}),
        ],
        entities=[
            Entity(USER, owner="shop", join_keys=[EntityKey("user_id", "i64")]),
            Entity(ITEM, owner="shop", join_keys=[EntityKey("item_id", "string")]),
        ],
        feature_views=[spending, demand, catalog],
    )


STATE = applied(definitions())


class Shop:
    """A server, and writes into its views."""

    def __init__(self, parts: Parts, state: RegistryState = STATE) -> None:
        self.parts = parts
        self._record = state.view(VersionRef(SPENDING))
        assert self._record is not None
        self.lookups: dict[str, Lookup] = {
            one.entry.view.name: one for one in lookups_of(source_of(self._record, state))
        }

    def price(self, item: str, event_us: int, price: float | None, durability: Durability = Durability.LOG) -> None:
        given: dict[str, Any] = {"price": price, "label": item, "tags": [1, 2], "pair": [1.0, 2.0], "open": True}
        types = {column.name: column.type.arrow for column in definitions().sources[0].columns}
        batch = pa.record_batch(
            {
                "item_id": pa.array([item]),
                "event_time": pa.array([event_us], UTC),
                **{name: pa.array([value], types[name]) for name, value in given.items()},
            }
        )
        self.parts.writes.write(CATALOG, lambda target: [batch], durability, ("", 0), PRINCIPAL)

    def sale(self, item: str, event_us: int, amount: int) -> None:
        batch = pa.record_batch(
            {"item_id": [item], "event_time": pa.array([event_us], UTC), "amount": pa.array([amount], pa.int64())}
        )
        self.parts.writes.write(DEMAND, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)

    def click(self, rows: Sequence[tuple[int, str | None, int, int]]) -> None:
        """User, item, event time, quantity."""
        users, items, times, quantities = zip(*rows, strict=True)
        batch = pa.record_batch(
            {
                "user_id": pa.array(users, pa.int64()),
                "item": pa.array(items, pa.string()),
                "event_time": pa.array(times, UTC),
                "quantity": pa.array(quantities, pa.int64()),
            }
        )
        self.send(batch)

    def send(self, batch: pa.RecordBatch) -> None:
        """Clicks as they are."""
        self.parts.writes.write(SPENDING, lambda target: [batch], Durability.LOG, ("", 0), PRINCIPAL)

    def looked(self, view: str, *events: tuple[str | None, int]) -> dict[str, list[Any]]:
        """Columns that events of these items and times get of a view."""
        items, times = zip(*events, strict=True)
        lookups = Lookups(self.parts.catalogue, self.parts.shards)
        found = lookups.columns(self.lookups[view], {"item": pa.array(items, pa.string())}, np.array(times), 0)
        return {name: column.to_pylist() for name, column in found.items() if not name.startswith("_")}

    def erase(self, item: str) -> None:
        self.parts.writes.erase(ITEM, lambda layout: [[item]], Durability.LOG, ("", 0), PRINCIPAL)


@pytest.fixture
def shop(parts: Parts) -> Shop:
    parts.catalogue.publish(STATE)
    return Shop(parts)


def test_an_event_gets_the_row_as_of_its_time(shop: Shop) -> None:
    shop.price("a", NOW_US - 10, 9.0)
    assert shop.looked(CATALOG, ("a", NOW_US), ("a", NOW_US - 10)) == {
        "item_price": [9.0, 9.0],
        "item_label": ["a", "a"],
        "item_tags": [[1, 2], [1, 2]],
        "item_pair": [[1.0, 2.0], [1.0, 2.0]],
        "item_open": [True, True],
    }


def test_what_is_not_there_is_the_default_by_the_rules_of_the_view(shop: Shop) -> None:
    shop.price("null", NOW_US - 10, None)
    shop.price("old", NOW_US - 2 * HOUR_US, 9.0)
    shop.price("erased", NOW_US - 10, 9.0)
    shop.parts.clock.now_us += 1
    shop.erase("erased")
    events = [(item, NOW_US) for item in ("null", "old", "erased", "none")]
    assert shop.looked(CATALOG, *events, ("old", NOW_US - 1)) == {
        "item_price": [1.5, 1.5, 1.5, 1.5, 9.0],
        "item_label": ["null", None, None, None, "old"],
        "item_tags": [[1, 2], [7], [7], [7], [1, 2]],
        "item_pair": [[1.0, 2.0], [0.5, -0.0], [0.5, -0.0], [0.5, -0.0], [1.0, 2.0]],
        "item_open": [True, None, None, None, True],
    }


@pytest.mark.parametrize(("fallback", "prices"), [(Fallback.NONE, [None, None]), (Fallback.EXPIRED_VALUE, [9.0, 1.5])])
def test_the_fallback_of_the_view_decides(parts: Parts, fallback: Fallback, prices: list[float | None]) -> None:
    state = applied(definitions(fallback))
    parts.catalogue.publish(state)
    shop = Shop(parts, state)
    shop.price("old", NOW_US - 2 * HOUR_US, 9.0)
    assert shop.looked(CATALOG, ("old", NOW_US), ("none", NOW_US))["item_price"] == prices


def test_an_event_from_before_the_newest_row_gets_nulls_and_no_default(shop: Shop) -> None:
    shop.price("a", NOW_US - 20, 8.0)
    shop.price("a", NOW_US - 10, 9.0)
    shop.sale("a", NOW_US - 10, 5)
    events = [("a", NOW_US - 11), ("a", NOW_US - 30)]
    assert {value for values in shop.looked(CATALOG, *events).values() for value in values} == {None}
    assert shop.looked(DEMAND, *events) == {"now_sold": [None] * 2, "now_amount": [None] * 2, "now_twice": [None] * 2}


def test_an_event_without_a_key_gets_nulls(shop: Shop) -> None:
    shop.price("a", NOW_US - 10, 9.0)
    assert shop.looked(CATALOG, (None, NOW_US), ("a", NOW_US), (None, NOW_US))["item_price"] == [None, 9.0, None]
    assert shop.looked(DEMAND, (None, NOW_US))["now_sold"] == [None]


def test_windows_are_those_of_the_time_of_the_event(shop: Shop) -> None:
    shop.sale("a", NOW_US - HOUR_US - 120_000_000, 2)
    shop.sale("a", NOW_US - HOUR_US // 2, 5)
    found = shop.looked(DEMAND, ("a", NOW_US), ("a", NOW_US + HOUR_US), ("none", NOW_US), ("a", NOW_US - HOUR_US // 2))
    assert found == {"now_sold": [5, 0, 0, 7], "now_amount": [5, 5, None, 5], "now_twice": [10, 0, 0, 14]}


def test_what_was_acknowledged_in_memory_is_known(shop: Shop) -> None:
    shop.price("a", NOW_US - 10, 9.0, Durability.MEMORY)
    assert shop.looked(CATALOG, ("a", NOW_US))["item_price"] == [9.0]


def test_written_events_carry_what_they_looked_up(shop: Shop) -> None:
    shop.price("a", NOW_US - 10, 9.0)
    shop.price("free", NOW_US - 10, 0.0)
    shop.sale("a", NOW_US - 10, 4)
    shop.click([(1, "a", NOW_US - 5, 2), (1, "free", NOW_US - 4, 100), (1, "none", NOW_US - 3, 1)])
    features = [f"{SPENDING}@v1:{name}" for name in ("item_price", "spent", "sold", "twice")]
    found = read(shop.parts, features, 1)
    assert found == {"item_price": 1.5, "spent": 9.0 * 2 + 1.5, "sold": 0, "twice": 0}


def read(parts: Parts, features: list[str], user: int) -> dict[str, Any]:
    request = pb.GetOnlineFeaturesRequest(
        features=features,
        entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=[user])],
        options=pb.ReadOptions(include_names=True),
    )
    answer = pb.GetOnlineFeaturesResponse.FromString(
        parts.reads.get(PRINCIPAL, request.SerializeToString(), lambda: None)
    )
    kinds = {"item_price": "<f8", "spent": "<f8"}
    names = [name.rpartition(":")[2] for name in features]
    return {
        name: np.frombuffer(column.values, kinds.get(name, "<i8"))[0]
        for name, column in zip(names, answer.columns, strict=True)
    }


def test_events_bring_the_columns_of_their_source_alone(shop: Shop) -> None:
    times = pa.array([NOW_US], UTC)
    columns = {"user_id": pa.array([1]), "event_time": times, "item": pa.array(["a"]), "quantity": pa.array([1])}
    for change, reason in (({"item_price": pa.array([1.0])}, "UNKNOWN_COLUMN"), ({"item": None}, "MISSING_COLUMN")):
        given = {name: column for name, column in (columns | change).items() if column is not None}
        with pytest.raises(InvalidArgument) as caught:
            shop.send(pa.record_batch(given))
        assert (caught.value.reason, caught.value.field) == (reason, next(iter(change)))


def test_a_key_that_no_entity_has_is_refused_with_its_row(shop: Shop) -> None:
    with pytest.raises(InvalidArgument) as caught:
        shop.click([(1, "a", NOW_US, 1), (1, "", NOW_US, 1)])
    assert (caught.value.reason, caught.value.field) == ("BAD_ENTITY_KEY", "item")


def test_a_shard_that_cannot_tell_refuses_the_write(shop: Shop) -> None:
    shop.price("a", NOW_US - 10, 9.0)
    for shard in shop.parts.shards.shards:
        shard.quarantine(DataLoss("broken", reason="STORED_ROW_CORRUPT"))
    with pytest.raises(HeadraceError) as caught:
        shop.looked(CATALOG, ("a", NOW_US))
    assert caught.value.reason == "SHARD_QUARANTINED"


def test_a_lookup_of_rows_that_lie_on_other_servers_is_refused(shop: Shop) -> None:
    item = "a"
    shop.price(item, NOW_US - 10, 9.0)
    mine = shard_of_slot(slot_of_key(encode_key([Scalar.STRING], [item])), 2)
    servers = {name: RingServer(name, f"{name}:1") for name in ("me", "a")}

    def ring(epoch: int, *owners: str) -> Ring:
        shards = (RingShard((Replica(owner, Phase.SERVING, epoch),), epoch, ()) for owner in owners)
        return Ring(epoch, 1, servers, tuple(shards))

    held = HeldRing("me", lambda ring: None, ring(1, *("me" if shard == mine else "a" for shard in range(2))))
    lookups = Lookups(shop.parts.catalogue, shop.parts.shards, held.check_write)
    columns = {"item": pa.array([item])}
    found = lookups.columns(shop.lookups[CATALOG], columns, np.array([NOW_US]), 0)
    assert 9.0 in [column.to_pylist()[0] for column in found.values()]
    held.accept(ring(2, *("a" if shard == mine else "me" for shard in range(2))))
    with pytest.raises(FailedPrecondition) as caught:
        lookups.columns(shop.lookups[CATALOG], columns, np.array([NOW_US]), 0)
    assert caught.value.reason == "LOOKUP_ELSEWHERE"
    assert caught.value.metadata == {"feature_view": f"{CATALOG}@v1"}


def test_the_known_time_parts_earlier_writes_from_later_ones(shop: Shop) -> None:
    """Under writers that never rest, a read holds exactly the rows whose write time is at most the time it gives."""
    shards = shop.parts.shards
    layout = shop.parts.catalogue.view(CATALOG)
    name = encode_key(layout.entity.key_types, ["a"])
    shard = shards[shard_of_slot(slot_of_key(name), len(shards))]
    stored = storage_key(layout.entity.entity_id, name, layout.view_id)
    stop = threading.Event()

    def write() -> None:
        at = 0
        while not stop.is_set():
            shop.parts.clock.now_us += at % 2
            shop.price("a", NOW_US + at, 1.0, Durability.LOG if at % 3 else Durability.MEMORY)
            at += 1

    writers = [threading.Thread(target=write) for _ in range(3)]
    for writer in writers:
        writer.start()
    try:
        seen = [shard.read_known([stored]) for _ in range(300)]
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    times = [known_us for _, known_us in seen]
    assert times == sorted(set(times))
    for (rows, known_us), (later, _) in itertools.pairwise(seen):
        if rows[0] is not None:
            assert check_row(rows[0]).write_time_us <= known_us
        if later[0] is not None and later[0] != rows[0]:
            assert check_row(later[0]).write_time_us > known_us
