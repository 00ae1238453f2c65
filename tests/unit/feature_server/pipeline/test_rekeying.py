"""First stage against a mock cluster: where events go, what is set aside, and in what order positions rise."""

import json
import time
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from feature_server.domain.layouts import view_layouts
from feature_server.domain.log_messages import Kind, Logged, Origin, read_message
from feature_server.pipeline import outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import NO_TIME, Batch, Event, headers_of
from feature_server.pipeline.decoders import decoder_of
from feature_server.pipeline.keyed import POSITION, ROW_BITS, read_keyed
from feature_server.pipeline.outbox import Outbox
from feature_server.pipeline.rekeying import Rekeying
from feature_server.pipeline.sources import feeds_of
from tests.unit.feature_server.parts import NOW_US, ipc, state_of
from tests.unit.feature_server.pipeline.streams import SOURCE, USER, definitions, partition_of
from tests.unit.feature_server.pipeline.test_consumer import LIMIT_S, Mock

PARTITIONS = 2  # the mock gives topics four; the first two are used


class First:
    """A first stage whose messages can be read."""

    def __init__(self, mock: Mock, form: str, ring_shards: int = 0) -> None:
        self.cluster = Cluster(mock.bootstrap, partition_count=PARTITIONS, ring_shards=ring_shards)
        self.box = Outbox(Producer(outbox.settings(self.cluster)))
        state = state_of(definitions(f"kafka:orders?format={form}"))
        feed = feeds_of(state, view_layouts(state))[0][SOURCE]
        self.rekeying = Rekeying(feed, decoder_of(feed, None), self.cluster, self.box, lambda: NOW_US)
        self._mock = mock

    def send(self, *events: Event, partition: int = 3) -> tuple[int, int, int]:
        parcel = self.box.open(lambda: None)
        counts = self.rekeying.send(Batch("orders", partition, events), parcel)
        self.box.close(parcel)
        assert self.box.flush(LIMIT_S, time.monotonic)
        return counts

    def read(self, topic: str, partitions: int = PARTITIONS) -> list[tuple[int, Event]]:
        """Messages of a topic, partition by partition."""
        consumer = Consumer(
            {"bootstrap.servers": self._mock.bootstrap, "group.id": "test", "enable.auto.commit": False}
        )
        found = []
        for number in range(partitions):
            place = TopicPartition(topic, number, 0)
            _, end = consumer.get_watermark_offsets(place, timeout=LIMIT_S)
            consumer.assign([place])
            own: list[tuple[int, Event]] = []
            while len(own) < end:
                message = consumer.poll(LIMIT_S)
                assert message is not None and message.error() is None
                event = Event(message.offset() or 0, message.value() or b"", NO_TIME, headers_of(message))
                own.append((number, event))
            found += own
        consumer.close()
        return found


@pytest.fixture
def mock() -> Mock:
    return Mock()


def order(user: Any, cents: int, at: Any = NOW_US) -> bytes:
    return json.dumps({"user_id": user, "at": at, "cents": cents, "shop": "s"}).encode()


def test_events_of_a_ring_go_to_the_log_of_their_shard_with_the_views_that_take_them(mock: Mock) -> None:
    first = First(mock, "json", ring_shards=PARTITIONS)
    events = [Event(100 + at, order(at % 7, at), NOW_US - at, ()) for at in range(50)]
    assert first.send(*events) == (50, 0, NOW_US)
    state = state_of(definitions("kafka:orders?format=json"))
    views = sorted(view.view_id for view in view_layouts(state).values())
    seen: list[int] = []
    for number, event in first.read(first.cluster.rows):
        message = read_message(Logged(event.offset, NO_TIME, event.value, event.headers))
        assert (message.kind, message.views, message.revision) == (Kind.EVENTS, views, state.revision)
        assert message.origin == Origin(SOURCE, 1, 3)
        users = message.batch.column("user_id").to_pylist()
        assert {partition_of(user) for user in users} == {number}
        positions = message.batch.column(POSITION).to_pylist()
        assert positions == sorted(positions)
        seen += [position >> ROW_BITS for position in positions]
    assert sorted(seen) == [100 + at for at in range(50)]


def test_events_go_to_the_partition_of_their_key_in_the_order_of_positions(mock: Mock) -> None:
    first = First(mock, "json")
    events = [Event(100 + at, order(at % 7, at), NOW_US - at, ()) for at in range(50)]
    assert first.send(*events) == (50, 0, NOW_US)
    seen: list[tuple[int, int, int]] = []
    for number, message in first.read(first.cluster.keyed(USER)):
        keyed = read_keyed(message)
        assert (keyed.source, keyed.partition) == (SOURCE, 3)
        rows = keyed.batch.to_pylist()
        assert {partition_of(row["user_id"]) for row in rows} == {number}
        assert np.all(np.diff(keyed.positions) > 0)
        seen += zip((keyed.positions >> ROW_BITS).tolist(), [row["cents"] for row in rows], keyed.write_us, strict=True)
    assert sorted(seen) == [(100 + at, at, NOW_US - at) for at in range(50)]


def test_what_is_no_event_is_set_aside_with_its_place_and_bytes(mock: Mock) -> None:
    first = First(mock, "json")
    bad = {
        10: (b"{", "MALFORMED_JSON"),
        11: (order("x", 1), "WRONG_TYPE"),
        12: (order(None, 1), "BAD_ENTITY_KEY"),
        13: (order(1, 1, None), "EVENT_TIME_REQUIRED"),
        14: (order(1, 1, NOW_US + 3_600_000_000), "EVENT_TIME_OUT_OF_RANGE"),
        15: (order(1, 1, -(2**62)), "EVENT_TIME_OUT_OF_RANGE"),
    }
    events = [Event(offset, value, NO_TIME, ()) for offset, (value, _) in bad.items()]
    assert first.send(Event(9, order(1, 5), NO_TIME, ()), *events) == (5, 6, NOW_US)
    letters = [message for _, message in first.read(first.cluster.dead_letters(SOURCE), 1)]
    found = {int(dict(one.headers)["offset"]): (one.value, dict(one.headers)["reason"].decode()) for one in letters}
    assert found == bad
    assert {dict(one.headers)["topic"] for one in letters} == {b"orders"}
    assert sum(len(read_keyed(message).positions) for _, message in first.read(first.cluster.keyed(USER))) == 1


def test_of_a_batch_only_the_wrong_rows_are_set_aside(mock: Mock) -> None:
    first = First(mock, "arrow")
    utc = pa.timestamp("us", "UTC")
    batch = pa.RecordBatch.from_pydict(
        {
            "user_id": pa.array([1, None, 2, None], pa.int64()),
            "at": pa.array([NOW_US, NOW_US, None, NOW_US], pa.int64()).cast(utc),
            "cents": pa.array([1, 2, 3, 4], pa.int64()),
            "shop": pa.array(["a", "b", "c", "d"]),
        }
    )
    assert first.send(Event(5, ipc(batch), NO_TIME, ())) == (4, 2, NOW_US)
    letters = [message for _, message in first.read(first.cluster.dead_letters(SOURCE), 1)]
    by_reason = {dict(one.headers)["reason"].decode(): one for one in letters}
    assert sorted(by_reason) == ["BAD_ENTITY_KEY", "EVENT_TIME_REQUIRED"]
    rows = pa.ipc.open_stream(by_reason["BAD_ENTITY_KEY"].value).read_all().to_pylist()
    assert [row["cents"] for row in rows] == [2, 4]
    assert b"rows [1, 3]" in dict(by_reason["BAD_ENTITY_KEY"].headers)["detail"]


def test_large_batches_are_cut_for_the_shard(mock: Mock) -> None:
    first = First(mock, "arrow")
    count = 3_000
    batch = pa.RecordBatch.from_pydict(
        {
            "user_id": pa.array(np.full(count, 1)),
            "at": pa.array(np.full(count, NOW_US)).cast(pa.timestamp("us", "UTC")),
            "cents": pa.array(np.arange(count)),
            "shop": pa.array(["a"] * count),
        }
    )
    first.send(Event(5, ipc(batch), NO_TIME, ()))
    parts = [read_keyed(message) for _, message in first.read(first.cluster.keyed(USER))]
    assert [len(part.positions) for part in parts] == [1_024, 1_024, 952]
    assert np.array_equal(np.concatenate([part.positions for part in parts]), (5 << ROW_BITS) + np.arange(count))
