"""Views over views: what events looked up on arrival is served, is what the offline store computes from, and is found
again in the histories of what they looked up.

Three views deep: prices of items, the demand for items at those prices, and what users spend by both. Events go through
a real server with its row log, and from there by the drain into Iceberg tables; only the clock is held.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch.drain.drain import Drain
from batch.drain.views import Views
from batch.jobs.historical import HistoricalRequest, run_historical
from batch.jobs.services import resolve_service
from batch.jobs.views import view_document, view_from_document, wanted_view
from batch.materialize.computed_rows import ROW, row_maker
from batch.notebook.tables import join_tables
from batch.offline import columns as system
from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from core_ext.keys import encode_key, shard_of_slot, slot_of_key, storage_key
from core_ext.row_codec import decode_row
from headrace.client import Client
from headrace.client.shards import ShardClient
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
    derived,
    latest,
    window,
)
from headrace.definitions.enrichment import source_of
from headrace.definitions.functions import Function
from headrace.definitions.registered import all_records
from headrace.names import VersionRef
from tests.integration.test_computed_parity import InMemory, bits_of
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.control_plane.domain.plan_cases import applied
from tests.unit.feature_server.parts import NOW_US, Parts
from tests.unit.headrace import sample_functions

USER, ITEM, CATALOG, DEMAND, SPENDING, SERVICE = (
    f"shop.web.{name}" for name in ("user", "item", "catalog", "demand", "spending", "rich")
)
USERS, ITEMS = 6, ["a", "b", "c", "d", "é"]
MINUTE_US, HOUR_US = 60_000_000, 3_600_000_000
UTC = pa.timestamp("us", "UTC")
DEFAULT_PRICE = 2.5


def source(name: str, **columns: str) -> Source:
    given = {"event_time": "timestamp_us", **columns}
    return Source(name, owner="shop", columns=[Column(*one) for one in given.items()])


def definitions() -> DefinitionSet:
    """Three views, each reading those before it, and a service over the last two."""
    catalog = FeatureView(
        CATALOG, owner="shop", entity=ITEM, source="shop.web.prices", ttl=timedelta(hours=2), fallback=Fallback.DEFAULT,
        features=[
            Feature("price", "f64", latest("price"), default=DEFAULT_PRICE),
            Feature("label", "string", latest("label")),
        ],
    )  # fmt: skip
    by_item = {"item_id": "item"}
    demand = FeatureView(
        DEMAND, owner="shop", entity=ITEM, source="shop.web.sales", ttl=timedelta(hours=6),
        lookups=[ServiceEntry(CATALOG, output_prefix="item_")],
        features=[
            Feature("revenue", "f64", window("sum", "item_price * cast(amount as f64)", over="1h", hop="1m")),
            Feature("sold", "i64", window("sum", "amount", over="2h", hop="10m")),
            Feature("dearest", "f64", window("max", "item_price", over="1d", hop="1h")),
            Feature("mean", "f64", derived("revenue / cast(sold as f64)")),
            Feature("label", "string", latest("item_label")),
        ],
    )  # fmt: skip
    spending = FeatureView(
        SPENDING, owner="shop", entity=USER, source="shop.web.clicks", ttl=timedelta(hours=5),
        filter="item_price is null or item_price < 90.0",
        lookups=[
            ServiceEntry(CATALOG, (), by_item, "item_"),
            ServiceEntry(DEMAND, (), by_item, "now_"),
        ],
        functions=[
            Function("band", "string", sample_functions.band, ["item_price"]),
            Function("paid", "i64", sample_functions.paid, ["item_price", "quantity"]),
        ],
        features=[
            Feature("spent", "f64", window("sum", "item_price * cast(quantity as f64)", over="1h", hop="1m")),
            Feature("priced", "i64", window("count", "item_price", over="2h", hop="10m")),
            Feature("clicks", "i64", window("count", over="2h", hop="10m")),
            Feature("hottest", "f64", window("max", "now_revenue", over="1d", hop="1h")),
            Feature("means", "list<f64>", window("last_n", "now_mean", over="1d", hop="1h", item_count=3)),
            Feature("sold", "i64", latest("now_sold")),
            Feature("label", "string", latest("now_label")),
            Feature("dear", "bool", derived("spent > hottest")),
            Feature("bands", "list<string>", window("top_k", "band", over="2h", hop="10m", item_count=2)),
            Feature("paid", "i64", window("sum", "paid", over="1h", hop="1m")),
        ],
    )  # fmt: skip
    entries = [
        ServiceEntry(SPENDING, output_prefix="user_"),
        ServiceEntry(DEMAND, output_prefix="item_"),
    ]
    return DefinitionSet(
        sources=[
            source("shop.web.prices", item_id="string", price="f64", label="string"),
            source("shop.web.sales", item_id="string", amount="i64"),
            source("shop.web.clicks", user_id="i64", item="string", quantity="i64"),
        ],
        entities=[
            Entity(USER, owner="shop", join_keys=[EntityKey("user_id", "i64")]),
            Entity(ITEM, owner="shop", join_keys=[EntityKey("item_id", "string")]),
        ],
        feature_views=[spending, demand, catalog],
        feature_services=[FeatureService(SERVICE, owner="shop", entries=entries)],
    )


STATE = applied(definitions())


@dataclass
class Answers:
    """Questions and what was served."""

    users: list[int] = field(default_factory=list)
    items: list[str] = field(default_factory=list)
    times_us: list[int] = field(default_factory=list)
    values: dict[str, list[Any]] = field(default_factory=dict)
    statuses: dict[str, list[int]] = field(default_factory=dict)

    def add(self, client: Client) -> None:
        """Every user and item that there may be, and some that nobody knows."""
        users, items = [*range(USERS), 999], [*ITEMS, "none", "a"]
        found = client.get_online_features(SERVICE, entities={"user_id": users, "item_id": items})
        table = found.to_arrow()
        self.users += users
        self.items += items
        self.times_us += [found.read_time_us] * len(users)
        for name in found.columns:
            self.values.setdefault(name, []).extend(bits_of(table[name]))
            self.statuses.setdefault(name, []).extend(found.statuses(name).tolist())


class Shop:
    """Random prices, sales and clicks in batches of any size: late ones, ties, nulls, and items nobody knows."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.erased_us: dict[str, int] = {}

    def prices(self, now_us: int) -> pa.RecordBatch:
        items, times = self._items(now_us, 4)
        items = ["a" if item in self.erased_us else item for item in items]  # an erased item gets no price again
        prices = [None if self.random.random() < 0.1 else float(self.random.integers(1, 100)) / 3 for _ in items]
        return self._batch(times, item_id=pa.array(items), price=pa.array(prices, pa.float64()), label=pa.array(items))

    def sales(self, now_us: int) -> pa.RecordBatch:
        items, times = self._items(now_us, 12)
        amounts = self.random.integers(-1, 9, len(items))
        return self._batch(times, item_id=pa.array(items), amount=pa.array(amounts, pa.int64()))

    def clicks(self, now_us: int) -> pa.RecordBatch:
        items, times = self._items(now_us, 30)
        given = [None if self.random.random() < 0.1 else item for item in items]
        users = self.random.integers(0, USERS, len(items))
        quantities = self.random.integers(1, 5, len(items))
        return self._batch(
            times, user_id=pa.array(users), item=pa.array(given, pa.string()), quantity=pa.array(quantities)
        )

    def _items(self, now_us: int, count_max: int) -> tuple[list[str], list[int]]:
        count = int(self.random.integers(1, count_max))
        items = [str(item) for item in self.random.choice(ITEMS, count)]
        ages = self.random.choice([0, 10, 10**6, 10**8, 10**9, 10**10], count) * self.random.random(count)
        times = [now_us - int(age) for age in ages]
        # Windows of a server would count what is older than an erasure, once something newer has come.
        return items, [max(at, self.erased_us.get(item, at - 1) + 1) for item, at in zip(items, times, strict=True)]

    def _batch(self, times: list[int], **columns: pa.Array) -> pa.RecordBatch:
        return pa.record_batch({"event_time": pa.array(times, UTC), **columns})


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", state=STATE, row_log_bytes=64 << 20, function_modules=["tests.unit.headrace"])
    yield opened
    opened.close()


@pytest.fixture
def catalogue(tmp_path: Path) -> Iterator[Catalogue]:
    opened = catalogue_of(tmp_path)
    yield opened
    opened.close()


def lived(parts: Parts, catalogue: Catalogue, seed: int, rounds: int) -> Answers:
    """Some days of a shop: writes of every view, reads, an erasure of an item, and drains in turn."""
    shop, answers = Shop(seed), Answers()
    parts.serve().close()
    runs = Runs(catalogue, Provenance("test"), parts.clock)
    with ShardClient(f"127.0.0.1:{parts.port}") as shards, Client(f"127.0.0.1:{parts.port}") as client:
        drain = Drain(shards, Views(lambda: all_records(STATE)), catalogue, runs, parts.clock)
        for number in range(rounds):
            for view, make in ((CATALOG, shop.prices), (DEMAND, shop.sales), (SPENDING, shop.clicks)):
                if number and shop.random.random() < 0.25:
                    continue
                client.write_features(f"{view}@v1", make(parts.clock.now_us))
                # Lookups part the times of writes: a shard whose clock stands still would go ahead of it.
                parts.clock.now_us += int(shop.random.choice([1_000, 10**5, 10**8]))
            if number == rounds // 2:
                client.delete_entity(ITEM, {"item_id": ["d"]})
                shop.erased_us["d"] = parts.clock.now_us
                parts.clock.now_us += 1_000
            answers.add(client)
            parts.clock.now_us += int(shop.random.choice([1_000, 10**6, 10**8, 3 * 10**9]))
            if number % 5 == 4:
                drain.cycle()
        while drain.backlog().shards:
            drain.cycle()
    return answers


def stored(catalogue: Catalogue, view: str) -> pa.Table:
    """The table of a view as its history reads it."""
    record = STATE.view(VersionRef(view, 1))
    assert record is not None
    wanted = wanted_view(InMemory(STATE), record)
    table = catalogue.load(wanted.table.identifier).scan().to_arrow()
    place = table.schema.get_field_index(system.SOURCE_ID)
    return table.set_column(place, system.SOURCE_ID, table[system.SOURCE_ID].cast(pa.uint32()))  # Iceberg has no u32


@pytest.mark.timeout(300)
def test_history_gives_what_was_served(tmp_path: Path, parts: Parts, catalogue: Catalogue, seed: int) -> None:
    answers = lived(parts, catalogue, seed, rounds=40)
    table = pa.table(
        {
            "user_id": pa.array(answers.users, pa.int64()),
            "item_id": pa.array(answers.items),
            "event_time": pa.array(answers.times_us, UTC),
        }
    )
    pq.write_table(table, tmp_path / "entities.parquet")
    request = HistoricalRequest(
        (str(tmp_path / "entities.parquet"),), str(tmp_path / "out.parquet"), cutoff_us=NOW_US * 2
    )
    run_historical(catalogue, resolve_service(InMemory(STATE), SERVICE), request)
    found = pq.read_table(tmp_path / "out.parquet")
    wrong = [
        f"{name} of row {row}: {online} online, {offline} offline"
        for name, values in answers.values.items()
        for row, (online, offline) in enumerate(
            zip(
                zip(values, answers.statuses[name], strict=True),
                zip(bits_of(found[name].combine_chunks()), found[f"{name}__status"].to_pylist(), strict=True),
                strict=True,
            )
        )
        if online != offline
    ]
    assert (len(answers.users) * len(answers.values), wrong[:5]) == (40 * 7 * 15, [])
    # The shop was rich enough to tell: values of the second level reached the third.
    assert len({bits for bits in answers.values["user_hottest"] if bits is not None}) > 10
    assert len({repr(bits) for bits in answers.values["user_means"]}) > 10
    assert {band for bands in answers.values["user_bands"] for band in bands or ()} == {"low", "middle", "high"}


def order_key(rows: pa.Table) -> list[tuple[int, ...]]:
    """The total order of rows."""
    times = [rows[name].cast(pa.int64()).to_pylist() for name in (system.EVENT_TIME, system.WRITE_TIME)]
    rest = [rows[name].to_pylist() for name in (system.SOURCE_ID, system.PARTITION, system.OFFSET)]
    return list(zip(*times, *rest, strict=True))


def known_newest(rows: pa.Table, item: str, known_us: int) -> tuple[tuple[int, ...], dict[str, Any]] | None:
    """The greatest row of an item among those written up to a time."""
    listed = rows.select([name for name in rows.column_names if not name.startswith("_")]).to_pylist()
    gone = rows[system.TOMBSTONE].to_pylist()
    seen = [
        (order, {**row, "gone": erased})
        for order, row, erased in zip(order_key(rows), listed, gone, strict=True)
        if row["item_id"] == item and order[1] <= known_us
    ]
    return max(seen, key=lambda one: one[0], default=None)


@pytest.mark.timeout(300)
def test_what_an_event_looked_up_is_found_in_history_by_the_time_that_it_was_known(
    parts: Parts, catalogue: Catalogue, seed: int
) -> None:
    lived(parts, catalogue, seed, rounds=40)
    prices, demand, clicks = (stored(catalogue, view) for view in (CATALOG, DEMAND, SPENDING))
    events = clicks.to_pylist()
    assert len(events) > 100
    batch = pa.record_batch({"price": clicks["item_price"].combine_chunks()})
    assert sample_functions.band(batch).equals(clicks["band"].combine_chunks())
    seen = set()
    for event in events:
        item, time_us = event["item"], micros(event[system.EVENT_TIME])
        if item is None:
            assert {event[name] for name in ("item_price", "now_revenue", "now_sold", "_known_time_1")} == {None}
            seen.add("no key")
            continue
        price = known_price(prices, item, time_us, micros(event["_known_time_1"]))
        assert (event["item_price"], item, time_us) == (price[1], item, time_us)
        seen.add(price[0])
        kind, values = known_demand(demand, item, time_us, micros(event["_known_time_2"]))
        assert [bits(event[f"now_{name}"]) for name in values] == [bits(value) for value in values.values()]
        seen.add(f"demand {kind}")
    wanted = {"no key", "present", "null", "late", "missing", "expired", "erased", "demand present", "demand late"}
    assert seen >= wanted, wanted - seen


def known_price(rows: pa.Table, item: str, time_us: int, known_us: int) -> tuple[str, float | None]:
    """What decided a price that was looked up, and the price."""
    newest = known_newest(rows, item, known_us)
    if newest is None:
        return "missing", DEFAULT_PRICE
    (event_us, *_), row = newest
    if row["gone"]:
        return "erased", DEFAULT_PRICE
    if event_us > time_us:
        return "late", None
    if time_us - event_us >= 2 * HOUR_US:
        return "expired", DEFAULT_PRICE
    return ("null", DEFAULT_PRICE) if row["price"] is None else ("present", row["price"])


def known_demand(rows: pa.Table, item: str, time_us: int, known_us: int) -> tuple[str, dict[str, Any]]:
    """The same of the windows of a view that looks prices up itself, by the as-of join with a cut-off."""
    names = ["revenue", "mean", "sold", "label"]
    newest = known_newest(rows, item, known_us)
    if newest is not None and not newest[1]["gone"] and newest[0][0] > time_us:
        return "late", dict.fromkeys(names)
    record = STATE.view(VersionRef(DEMAND, 1))
    assert record is not None
    wanted = wanted_view(InMemory(STATE), record)
    mine = rows.filter(pa.compute.equal(rows["item_id"], item))
    # On arrival everything counts that is known, however late it was written.
    history = replace(wanted.history(mine), available_time=system.EVENT_TIME)
    spine = pa.table({"item_id": [item], "event_time": pa.array([time_us], UTC)})
    found = join_tables(spine, [history], time_column="event_time", cutoff_us=known_us).to_pylist()[0]
    return "present", {name: found[name] for name in names}


@pytest.mark.timeout(300)
def test_rows_that_a_batch_makes_of_history_answer_as_those_of_the_stream(
    parts: Parts, catalogue: Catalogue, seed: int
) -> None:
    lived(parts, catalogue, seed, rounds=20)
    record = STATE.view(VersionRef(SPENDING, 1))
    assert record is not None
    source_record = replace(STATE.sources["shop.web.clicks"], definition=source_of(record, STATE))
    maker = row_maker(record, STATE.entities[USER], source_record)
    made = maker.rows(stored(catalogue, SPENDING), [1 << 40] * len(parts.shards))
    layout = parts.catalogue.view(SPENDING)
    assert made.num_rows > 3
    for user, row in zip(made["user_id"].to_pylist(), made[ROW].to_pylist(), strict=True):
        key = encode_key(layout.entity.key_types, [user])
        shard = parts.shards[shard_of_slot(slot_of_key(key), len(parts.shards))]
        (online,) = shard.read([storage_key(layout.entity.entity_id, key, layout.view_id)])
        images = [maker.view.image(one, parts.clock.now_us) for one in (row, online)]
        values = [decode_row(maker.view.answered, image)[1] for image in images]
        assert repr(values[0]) == repr(values[1])


def micros(time: Any) -> int:
    return int(pa.scalar(time, UTC).cast(pa.int64()).as_py())


def bits(value: Any) -> Any:
    return struct.pack("<d", value) if isinstance(value, float) else value


def test_a_job_knows_the_lookups_without_a_registry() -> None:
    record = STATE.view(VersionRef(SPENDING, 1))
    assert record is not None
    wanted = wanted_view(InMemory(STATE), record)
    again = view_from_document(view_document(wanted))
    assert again.table == wanted.table
    computation = again.computation()
    assert computation is not None and "item_price" in computation.columns
