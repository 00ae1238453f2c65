"""Views that compute: events are written, windows and expressions are read."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pyarrow as pa
import pytest

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import decode_row
from feature_server.domain.replays import Replays
from feature_server.domain.row_log import LogEntry, RowLog
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from headrace.definitions import Column, Feature, FeatureService, ServiceEntry, Source, derived, latest, window
from headrace.errors import HeadraceError, InvalidArgument, ResourceExhausted
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import NOW_US, OWNER, PRINCIPAL, Parts, shop_definitions, state_of

ORDERS = "shop.web.orders"
HOUR_US = 3_600_000_000
FEATURES = [
    Feature("visits", "i64", window("count", over="1h", hop="1m")),
    Feature("spent", "f64", window("sum", "price * cast(quantity as f64)", over="1h", hop="1m")),
    Feature("dearest", "f64", window("max", "price", over="1d", hop="1h")),
    Feature("shops", "list<string>", window("last_n", "shop", over="1d", hop="1h", item_count=2)),
    Feature("shop", "string", latest("shop")),
    Feature("mean", "f64", derived("spent / cast(visits as f64)")),
]


@pytest.fixture
def orders(parts: Parts) -> Parts:
    """The shop with a view of windows over orders that were paid, and a service over it."""
    shop = shop_definitions()
    columns = [Column("user_id", "i64"), Column("event_time", "timestamp_us"), Column("price", "f64")]
    columns += [Column("quantity", "i64"), Column("shop", "string"), Column("paid", "bool")]
    source = Source(name="shop.web.order_events", owner=OWNER, columns=columns)
    view = replace(shop.feature_views[0], name=ORDERS, source=source.name, features=FEATURES, filter="paid", ttl=None)
    service = FeatureService(
        name="shop.web.rich", owner=OWNER, entries=[ServiceEntry(f"{ORDERS}@v1", [one.name for one in FEATURES])]
    )
    parts.catalogue.publish(
        state_of(
            replace(
                shop,
                sources=[*shop.sources, source],
                feature_views=[*shop.feature_views, view],
                feature_services=[*shop.feature_services, service],
            )
        )
    )
    return parts


def events(*rows: tuple[int, int, float, int, str | None, bool | None]) -> pa.RecordBatch:
    """Orders: user, microseconds before now, price, quantity, shop, paid."""
    users, before, prices, quantities, shops, paid = zip(*rows, strict=True)
    times = pa.array([NOW_US - one for one in before], pa.timestamp("us", "UTC"))
    return pa.record_batch(
        {
            "user_id": pa.array(users, pa.int64()),
            "event_time": times,
            "price": pa.array(prices, pa.float64()),
            "quantity": pa.array(quantities, pa.int64()),
            "shop": pa.array(shops, pa.string()),
            "paid": pa.array(paid, pa.bool_()),
        }
    )


def write(parts: Parts, batch: pa.RecordBatch, durability: Durability = Durability.LOG) -> None:
    parts.writes.write(ORDERS, lambda target: [batch], durability, ("", 0), PRINCIPAL)


def read(parts: Parts, users: list[int], now_us: int = NOW_US) -> dict[str, tuple[list[object], list[int]]]:
    """Values and states of every column."""
    parts.clock.now_us = now_us
    request = pb.GetOnlineFeaturesRequest(
        feature_service="shop.web.rich",
        entity_columns=[pb.EntityColumn(join_key="user_id", int64_values=users)],
        options=pb.ReadOptions(include_names=True),
    )
    answer = pb.GetOnlineFeaturesResponse.FromString(
        parts.reads.get(PRINCIPAL, request.SerializeToString(), lambda: None)
    )
    return {column.name: (values_of(column), [one & 15 for one in column.statuses]) for column in answer.columns}


def values_of(column: pb.FeatureColumn) -> list[object]:
    if column.offsets:
        ends = np.frombuffer(column.offsets, "<u4")
        return [column.values[a:b] for a, b in itertools.pairwise(ends)]
    return list(np.frombuffer(column.values, {"visits": "<i8"}.get(column.name, "<f8")).tolist())


PRESENT, NULL, MISSING = 1, 2, 3


def test_windows_latest_columns_and_expressions_are_read_as_of_the_read(orders: Parts) -> None:
    write(orders, events((1, 10, 2.0, 3, "a", True), (1, 20, 5.0, 1, "b", True), (2, 5, 7.0, 1, None, True)))
    found = read(orders, [1, 2])
    assert found["visits"] == ([2, 1], [PRESENT] * 2)
    assert found["spent"] == ([11.0, 7.0], [PRESENT] * 2)
    assert found["dearest"] == ([5.0, 7.0], [PRESENT] * 2)
    assert found["mean"] == ([5.5, 7.0], [PRESENT] * 2)
    assert found["shop"] == ([b"a", b""], [PRESENT, NULL])
    assert found["shops"][0][0] == b"\x02\0\0\0\x01\0\0\0\x02\0\0\0ab"
    later = read(orders, [1, 2], NOW_US + 2 * HOUR_US)
    assert later["visits"] == ([0, 0], [PRESENT] * 2)
    assert later["spent"] == ([0.0, 0.0], [PRESENT] * 2)
    assert later["dearest"] == ([5.0, 7.0], [PRESENT] * 2)
    assert later["mean"][1] == [NULL] * 2, "a division by zero"


def test_an_entity_without_events_has_counts_of_zero_and_no_latest_value(orders: Parts) -> None:
    found = read(orders, [9])
    assert found["visits"] == ([0], [PRESENT])
    assert found["spent"] == ([0.0], [PRESENT])
    assert [found[name][1] for name in ("dearest", "shops", "mean")] == [[NULL]] * 3
    assert found["shop"][1] == [MISSING]


def test_the_filter_keeps_events_out_also_where_it_is_null(orders: Parts) -> None:
    write(orders, events((1, 10, 2.0, 1, "a", False), (1, 9, 2.0, 1, "a", None), (1, 8, 4.0, 1, "a", True)))
    assert read(orders, [1])["spent"] == ([4.0], [PRESENT])
    write(orders, events((3, 8, 4.0, 1, "a", False)))
    assert read(orders, [3])["shop"][1] == [MISSING]


@pytest.mark.parametrize("durability", list(Durability))
def test_batches_in_any_order_and_cut_give_one_answer(orders: Parts, durability: Durability) -> None:
    rows = [(user, 60_000_000 * step, 0.1 * step, 1, f"s{step}", True) for user in (1, 2) for step in range(1, 50)]
    for start in range(0, len(rows), 7):
        write(orders, events(*rows[start : start + 7]), durability)
    for row in rows:
        write(orders, events((row[0] + 10, *row[1:])), durability)
    for number in range(len(orders.shards)):
        orders.shards[number].commit_queued()
    found = read(orders, [1, 2, 11, 12])
    for name, (values, _) in found.items():
        assert len({str(value) for value in values}) == 1, name
    assert found["visits"][0] == [49] * 4


def test_a_late_event_adds_to_its_window_and_leaves_the_latest_value(orders: Parts) -> None:
    write(orders, events((1, 10, 2.0, 1, "new", True)))
    write(orders, events((1, 30 * 60_000_000, 3.0, 1, "old", True)))
    found = read(orders, [1])
    assert found["spent"] == ([5.0], [PRESENT])
    assert found["shop"][0] == [b"new"]


def test_erased_entities_start_again(orders: Parts) -> None:
    write(orders, events((1, 10, 2.0, 1, "a", True)))
    assert read(orders, [1])["visits"] == ([1], [PRESENT])
    orders.writes.erase("shop.web.user", lambda layout: [[1]], Durability.LOG, ("", 0), PRINCIPAL)
    found = read(orders, [1])
    assert found["visits"] == ([0], [PRESENT])
    assert found["shop"][1] == [MISSING]


def test_columns_are_those_of_the_source(orders: Parts) -> None:
    batch = events((1, 10, 2.0, 1, "a", True))
    with pytest.raises(InvalidArgument, match=r"column .price. of .* is missing") as caught:
        write(orders, batch.drop_columns(["price"]))
    assert caught.value.reason == "MISSING_COLUMN"
    with pytest.raises(InvalidArgument, match="is no join key and no source column") as caught:
        write(orders, batch.append_column("visits", pa.array([1], pa.int64())))
    assert caught.value.reason == "UNKNOWN_COLUMN"
    assert read(orders, [1])["visits"] == ([0], [PRESENT])


def test_events_are_not_replayed_as_rows(orders: Parts) -> None:
    replays = Replays(orders.catalogue, orders.shards, orders.clock)
    with pytest.raises(InvalidArgument, match="'_row' is missing") as caught:
        replays.write(ORDERS, lambda: [events((1, 10, 2.0, 1, "a", True))], Durability.LOG, (), PRINCIPAL)
    assert caught.value.reason == "BAD_BATCH_COLUMN"
    assert read(orders, [1])["visits"] == ([0], [PRESENT])


def batch_rows(parts: Parts, users: Sequence[int], bad: Sequence[int] = ()) -> pa.RecordBatch:
    """Rows as a batch makes them, those of `bad` cut short; each is the row of user 1."""
    view = parts.catalogue.view(ORDERS)
    stored = storage_key(view.entity.entity_id, encode_key([3], [1]), view.view_id)
    [row] = parts.shards[parts.shard_of(1)].read([stored])
    assert row is not None
    rows = [row[:-1] if user in bad else row for user in users]
    return pa.record_batch({"user_id": pa.array(users, pa.int64()), "_row": pa.array(rows, pa.binary())})


POSITIONS: dict[str, tuple[Callable[[Position], list[Position]], str]] = {
    "none": (lambda one: [], "NO_POSITION"),
    "of another epoch": (lambda one: [one._replace(epoch=one.epoch + 1)], "EPOCH_MISMATCH"),
    "behind the log": (lambda one: [one._replace(offset=one.offset + 1)], "EPOCH_MISMATCH"),
}


@pytest.mark.parametrize("case", POSITIONS)
@pytest.mark.parametrize("shard", [0, 1])
def test_batch_without_every_position_writes_to_no_shard(orders: Parts, case: str, shard: int) -> None:
    write(orders, events((1, 10, 2.0, 3, "a", True)))
    spoilt, reason = POSITIONS[case]
    users = list(range(2, 12))
    assert {orders.shard_of(user) for user in users} == {0, 1}
    batches = [batch_rows(orders, users[:5]), batch_rows(orders, users[5:])]
    before = [orders.shards[number].status() for number in (0, 1)]
    covered = [Position(number, status.epoch, status.offset) for number, status in enumerate(before)]
    covered[shard : shard + 1] = spoilt(covered[shard])
    replays = Replays(orders.catalogue, orders.shards, orders.clock)
    with pytest.raises(HeadraceError) as caught:
        replays.write(ORDERS, lambda: batches, Durability.LOG, covered, PRINCIPAL)
    assert (caught.value.reason, caught.value.metadata["shard"]) == (reason, str(shard))
    assert [orders.shards[number].status() for number in (0, 1)] == before
    assert read(orders, users)["visits"][0] == [0] * len(users)


def test_rows_are_numbered_over_the_batches_of_a_request(orders: Parts) -> None:
    write(orders, events((1, 10, 2.0, 3, "a", True)))
    status = [orders.shards[number].status() for number in (0, 1)]
    covered = [Position(number, one.epoch, one.offset) for number, one in enumerate(status)]
    batches = [batch_rows(orders, [2, 3, 4]), batch_rows(orders, [5, 6], bad=[6])]
    replays = Replays(orders.catalogue, orders.shards, orders.clock)
    with pytest.raises(InvalidArgument, match=f"^row 4 is none of {ORDERS}@v1: ") as caught:
        replays.write(ORDERS, lambda: batches, Durability.LOG, covered, PRINCIPAL)
    assert caught.value.reason == "BAD_ROW"
    assert read(orders, [2, 3, 4, 5])["visits"][0] == [0] * 4
    done = replays.write(ORDERS, lambda: batches[:1], Durability.LOG, covered, PRINCIPAL)
    assert (done.row_count, done.stale_count, list(done.deferred)) == (3, 0, [])
    assert read(orders, [2, 3, 4])["visits"][0] == [1] * 3


class KeptLog:
    """A row log that keeps what it is given."""

    def __init__(self) -> None:
        self.entries: list[LogEntry] = []

    def append(self, epoch: int, entries: Sequence[LogEntry], *, sync: bool) -> None:
        self.entries += entries

    def publish(self) -> None: ...

    def check_room(self) -> None: ...

    def close(self) -> None: ...


def test_the_log_keeps_every_event_that_passed_the_filter_in_its_place(orders: Parts) -> None:
    log = KeptLog()
    shard = orders.shards[orders.shard_of(1)]
    shard.row_log = cast(RowLog, log)
    before = shard.status().offset
    write(orders, events((1, 10, 2.0, 3, "a", True), (1, 5, 5.0, 1, "b", False), (1, 20, 7.0, 1, None, True)))
    layout = orders.catalogue.view(ORDERS).computed
    assert layout is not None
    assert layout.logged == ("paid", "price", "quantity", "shop")
    (entry,) = log.entries
    assert entry.next_offset == before + 3
    found = [decode_row(layout.events, row) for row in entry.rows]
    assert [values for _, values in found] == [[True, 2.0, 3, "a"], [True, 7.0, 1, None]]
    assert [header.offset for header, _ in found] == [before + 1, before + 2]
    assert [header.event_time_us for header, _ in found] == [NOW_US - 10, NOW_US - 20]
    assert len(set(entry.keys)) == 1


def test_an_entity_that_outgrows_its_row_refuses_its_write_alone_and_is_not_logged(orders: Parts) -> None:
    log = KeptLog()
    shard = orders.shards[orders.shard_of(1)]
    write(orders, events((1, 30, 1.0, 1, "a" * 250_000, True)))
    shard.row_log = cast(RowLog, log)
    with pytest.raises(ResourceExhausted, match="outgrown its row") as caught:
        write(orders, events((1, 20, 2.0, 1, "b" * 250_000, True)))
    assert caught.value.reason == "ROW_TOO_LARGE"
    assert [len(entry.rows) for entry in log.entries] == [0]
    found = read(orders, [1])
    assert found["spent"] == ([1.0], [PRESENT])
    assert found["shop"][0] == [b"a" * 250_000]
    write(orders, events((1, 10, 4.0, 1, "c", True)))
    assert read(orders, [1])["spent"] == ([5.0], [PRESENT])
    assert [len(entry.rows) for entry in log.entries] == [0, 1]


def test_events_beyond_any_row_are_refused(orders: Parts) -> None:
    with pytest.raises(InvalidArgument, match="too large for its row") as caught:
        write(orders, events((1, 30, 1.0, 1, "a" * 700_000, True)))
    assert caught.value.reason == "ROW_TOO_LARGE"
    assert read(orders, [1])["visits"] == ([0], [PRESENT])
