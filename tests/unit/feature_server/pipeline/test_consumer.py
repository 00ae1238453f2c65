"""Batches of messages against librdkafka's own mock cluster: groups, assignments, gaps that are alarms."""

import time
from collections.abc import Callable, Mapping

import pytest
from arroyo.types import Partition, Topic
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from feature_server.pipeline import consumer, outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import Batch, BatchConsumer
from feature_server.pipeline.outbox import Outbox
from headrace.errors import DataLoss

TOPIC = "events"
LIMIT_S = 20.0


class Mock:
    """A mock cluster of one broker; topics have the partitions that the mock gives them."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self.producer.list_topics(timeout=LIMIT_S).brokers.values()
        self.bootstrap = ",".join(f"{one.host}:{one.port}" for one in brokers)

    def send(self, partition: int, *values: bytes) -> None:
        for value in values:
            self.producer.produce(TOPIC, value, partition=partition)
        assert self.producer.flush(LIMIT_S) == 0

    def client(self, group: str = "group") -> Consumer:
        return Consumer(consumer.settings(Cluster(self.bootstrap), group))


@pytest.fixture
def mock() -> Mock:
    return Mock()


class Fixed:
    """An assignment that the test holds."""

    def __init__(self, **starts: int) -> None:
        self.offsets = {Partition(Topic(TOPIC), int(name[1:])): offset for name, offset in starts.items()}

    def wanted(self) -> set[Partition]:
        return set(self.offsets)

    def starts(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        return {partition: self.offsets[partition] for partition in partitions}


def read(batches: BatchConsumer, count: int) -> list[Batch]:
    """Batches until that many messages have come."""
    found: list[Batch] = []
    end_s = time.monotonic() + LIMIT_S
    while sum(len(one.events) for one in found) < count:
        assert time.monotonic() < end_s, found
        value = batches.poll(0.1)
        if value is not None:
            assert value.next_offset == value.payload.next_offset
            found.append(value.payload)
    return found


def values(batches: list[Batch]) -> dict[int, list[bytes]]:
    found: dict[int, list[bytes]] = {}
    for batch in batches:
        found.setdefault(batch.partition, []).extend(event.value for event in batch.events)
    return found


def test_a_member_of_a_group_begins_at_the_beginning_then_where_it_committed(mock: Mock) -> None:
    mock.send(0, b"a", b"b", b"c")
    mock.send(1, b"x")
    assigned: list[Mapping[Partition, int]] = []
    first = BatchConsumer(mock.client(), time.monotonic)
    first.subscribe([Topic(TOPIC)], on_assign=assigned.append)
    assert values(read(first, 4)) == {0: [b"a", b"b", b"c"], 1: [b"x"]}
    assert set(assigned[0].values()) == {0}
    first.stage_offsets({Partition(Topic(TOPIC), 0): 2, Partition(Topic(TOPIC), 1): 1})
    first.commit_offsets()
    place, other = TopicPartition(TOPIC, 0), mock.client()
    end_s = time.monotonic() + LIMIT_S
    while other.committed([place], timeout=LIMIT_S)[0].offset != 2:  # the group is told without waiting for it
        assert first.poll(0.05) is None
        assert time.monotonic() < end_s
    other.close()
    first.close()
    second = BatchConsumer(mock.client(), time.monotonic)
    second.subscribe([Topic(TOPIC)])
    assert values(read(second, 1)) == {0: [b"c"]}
    second.close()


def test_an_assignment_decides_where_to_begin_whatever_the_group_says(mock: Mock) -> None:
    mock.send(0, b"a", b"b", b"c")
    client = mock.client()
    client.commit(offsets=[TopicPartition(TOPIC, 0, 3)], asynchronous=False)
    batches = BatchConsumer(client, time.monotonic, Fixed(p0=1))
    batches.subscribe([])
    assert values(read(batches, 2)) == {0: [b"b", b"c"]}
    assert batches.tell() == {Partition(Topic(TOPIC), 0): 3}
    batches.close()


def test_an_assignment_that_changes_is_taken_anew_from_its_starts(mock: Mock) -> None:
    mock.send(0, b"a")
    mock.send(1, b"x")
    assignment, now_s = Fixed(p0=0), 0.0
    revoked: list[object] = []
    batches = BatchConsumer(mock.client(), lambda: now_s, assignment)
    batches.subscribe([], on_revoke=revoked.extend)
    assert values(read(batches, 1)) == {0: [b"a"]}
    assignment.offsets = Fixed(p0=0, p1=0).offsets
    now_s += 60.0
    assert values(read(batches, 2)) == {0: [b"a"], 1: [b"x"]}
    assert revoked == [Partition(Topic(TOPIC), 0)]
    batches.close()


def test_a_paused_consumer_hands_out_nothing_until_it_is_resumed(mock: Mock) -> None:
    mock.send(0, b"a", b"b")
    batches = BatchConsumer(mock.client(), time.monotonic, Fixed(p0=0), batch_messages=1)
    batches.subscribe([])
    read(batches, 1)
    batches.pause([*batches.tell()])
    assert [batches.poll(0.05) for _ in range(5)] == [None] * 5
    batches.resume([*batches.tell()])
    assert values(read(batches, 1)) == {0: [b"b"]}
    batches.close()


def test_an_offset_beyond_the_log_is_an_alarm_and_no_jump(mock: Mock) -> None:
    mock.send(0, b"a")
    batches = BatchConsumer(mock.client(), time.monotonic, Fixed(p0=50))
    batches.subscribe([])
    with pytest.raises(DataLoss, match="events between are gone"):
        read(batches, 1)
    batches.close()


def test_lag_counts_what_is_not_handed_out(mock: Mock) -> None:
    mock.send(0, b"a", b"b", b"c")
    now_s = 0.0
    batches = BatchConsumer(mock.client(), lambda: now_s, Fixed(p0=0), batch_messages=1)
    batches.subscribe([])
    read(batches, 3)
    now_s += 60.0
    batches.poll(0.1)
    assert batches.lag() == {Partition(Topic(TOPIC), 0): 0}
    batches.close()


def test_parcels_are_done_in_their_order_once_all_of_each_has_arrived(mock: Mock) -> None:
    box = Outbox(Producer(outbox.settings(Cluster(mock.bootstrap))))
    done: list[int] = []
    for number in range(3):
        parcel = box.open(_noting(done, number))
        for at in range(number):
            box.send(parcel, TOPIC, at % 2, b"v", [("n", b"1")])
        box.close(parcel)
    assert box.flush(LIMIT_S, time.monotonic)
    assert done == [0, 1, 2]
    assert not box.is_full


def test_a_message_that_no_broker_takes_stops_the_outbox(mock: Mock) -> None:
    settings = {**outbox.settings(Cluster(mock.bootstrap)), "message.max.bytes": 2_000}
    box = Outbox(Producer(settings))
    parcel = box.open(lambda: None)
    with pytest.raises(Exception, match="was not taken") as refused:
        box.send(parcel, TOPIC, 0, b"x" * 10_000, [])
    assert not isinstance(refused.value, KafkaException)
    with pytest.raises(Exception, match="was not taken"):
        box.poll()


def _noting(done: list[int], number: int) -> Callable[[], None]:
    return lambda: done.append(number)
