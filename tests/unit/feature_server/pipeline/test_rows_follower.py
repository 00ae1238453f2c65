"""The log on librdkafka's own mock cluster, out of the outbox and into copies of real shards."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition

from feature_server.domain.log_messages import Kind, LogMessage
from feature_server.domain.log_writes import LOG_EPOCH_BIT
from feature_server.domain.logged_writes import LoggedWrites, ToShard
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from feature_server.pipeline import consumer, rows_outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.log_fold import LogFold
from feature_server.pipeline.rows_follower import RowsFollower
from feature_server.pipeline.rows_outbox import RowsOutbox
from feature_server.pipeline.rows_topic import RowsTopicState
from feature_server.ring.copies import Copies
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import LogRange
from feature_server.ring.shard_copy import ShardCopy
from feature_server.storage.marks import FileMark
from headrace.errors import FailedPrecondition, HeadraceError, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from tests.unit.feature_server.parts import PRINCIPAL, VIEW, Parts, shop_batch, shop_state

LIMIT_S: Final = 20.0
SHARDS: Final = 2
ME: Final = "me"


def wait_for(holds: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not holds():
        assert time.monotonic() < end_s, "not in time"
        time.sleep(0.01)


@dataclass
class Topic:
    """What a cluster that can describe topics would say of this one."""

    known: RowsTopicState

    def find(self) -> RowsTopicState:
        return self.known

    def state(self) -> RowsTopicState:
        return self.known


class Mock:
    """A mock cluster of one broker, and the way into its log."""

    def __init__(self) -> None:
        self.broker = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self.broker.list_topics(timeout=LIMIT_S).brokers.values()
        self.cluster = Cluster(",".join(f"{one.host}:{one.port}" for one in brokers))
        self.topic = Topic(RowsTopicState(self.cluster.rows, LOG_EPOCH_BIT | 5, is_flushed=False))
        self.outbox = RowsOutbox(lambda: Producer(rows_outbox.settings(self.cluster)), self.topic.state)
        self.outbox.start()

    def client(self) -> Consumer:
        return Consumer(consumer.settings(self.cluster, "rows"))


class Server:
    """The copies of a server that owns every shard alone, and what follows the log into them."""

    def __init__(self, folder: Path, mock: Mock, *, revision: int = 1) -> None:
        self.parts = Parts(folder, shard_count=SHARDS, state=shop_state(revision), follows_log=True)
        self.held = HeldRing(ME, lambda ring: None)
        stores = [ShardCopy(shard, FileMark(folder / f"copy-{shard.number}")) for shard in self.parts.shards.shards]
        self.copies = Copies(self.held, stores)
        self.fold = LogFold(self.parts.catalogue, self.parts.shards, self.parts.log)
        self.follower = RowsFollower(
            mock.topic, mock.client, self.copies, self.fold, log=self.parts.log, clock_s=time.monotonic
        )
        self.writes = LoggedWrites(self.parts.catalogue, self.parts.shards, self.parts.clock, mock.outbox)

    def own(self, epoch: int = 1) -> None:
        """A ring in which the shards are joined and then served, from where their copies are."""
        servers = {ME: RingServer(ME, "me:1")}
        joining = RingShard((Replica(ME, Phase.JOINING, epoch),), epoch, (ME,))
        self.held.accept(Ring(epoch, 1, servers, (joining,) * SHARDS))
        for join in self.copies.adopt():
            step = next(join)
            for _ in range(2):
                try:
                    step = join.send(LogRange(0, 0))
                except StopIteration:
                    break
            assert step is not None
        assert len(self.copies.ready()) == SHARDS

    def write(self, keys: list[int], age: int) -> list[Position]:
        answer = self.writes.write(VIEW, lambda _: [shop_batch(keys, age=age)], Durability.LOG, ("", 0), PRINCIPAL)
        return list(answer.positions)

    def is_past(self, positions: list[Position]) -> bool:
        return all(self.parts.shards[one.shard].status().offset >= one.offset for one in positions)

    def states(self) -> list[tuple[int, int, int]]:
        return [(one.epoch, one.offset, one.content_hash) for one in self.parts.shards.statuses()]

    def close(self) -> None:
        self.follower.close()
        self.parts.close()


@pytest.fixture
def mock() -> Iterator[Mock]:
    made = Mock()
    yield made
    made.outbox.close()


@pytest.fixture
def start(tmp_path: Path, mock: Mock) -> Iterator[Callable[..., Server]]:
    made: list[Server] = []

    def begin(name: str, revision: int = 1) -> Server:
        server = Server(tmp_path / name, mock, revision=revision)
        made.append(server)
        server.own()
        server.follower.start()
        return server

    yield begin
    for server in made:
        server.close()


def test_what_is_written_to_one_server_is_applied_by_both_alike(start: Callable[..., Server]) -> None:
    first, second = start("first"), start("second")
    positions: list[Position] = []
    for age in range(20):
        positions = (first, second)[age % 2].write(list(range(50)), age)
    wait_for(lambda: first.is_past(positions) and second.is_past(positions))
    assert first.states() == second.states()
    assert [one.offset for one in positions] == [19, 19]
    assert {one.epoch for one in positions} == {LOG_EPOCH_BIT | 5}
    for one in positions:
        second.parts.shards[one.shard].wait_for(one.epoch, one.offset, 0.0)


def test_a_copy_goes_on_from_its_own_offset_whoever_reads(start: Callable[..., Server], mock: Mock) -> None:
    server = start("same")
    written = server.write([1, 2, 3, 4], 1)
    wait_for(lambda: server.is_past(written))
    server.close()
    positions = server.write([1, 2, 3, 4], 2)
    assert [one.offset for one in positions] == [1, 1]
    again = start("same")
    wait_for(lambda: again.is_past(positions))
    wait_for(lambda: again.follower.applied_count >= SHARDS)
    assert again.follower.applied_count == SHARDS, "what it had is not read again"


def test_a_shard_that_refuses_is_read_again_and_holds_up_no_other(start: Callable[..., Server]) -> None:
    server = start("one")
    (bad, good) = server.parts.keys_on(0, 1)[0], server.parts.keys_on(1, 1)[0]
    server.parts.faults[0].write_error = Unavailable("no", reason="DISK")
    positions = server.write([bad, good], 1)
    wait_for(lambda: server.is_past(positions[1:]) and server.follower.held_count == 1)
    assert not server.is_past(positions[:1])
    server.parts.faults[0].write_error = None
    server.parts.shards[0].resume()
    wait_for(lambda: server.is_past(positions))
    wait_for(lambda: server.follower.held_count == 0)


def test_rows_of_a_view_that_is_not_known_yet_are_applied_once_it_is(start: Callable[..., Server], mock: Mock) -> None:
    server = start("one")
    key = server.parts.keys_on(0, 1)[0]
    view_id = server.parts.catalogue.view(VIEW).view_id
    batch = shop_batch([key])
    message = LogMessage(Kind.ROWS, [view_id + 7], 2, batch)
    mock.outbox.append([ToShard(0, message), ToShard(0, LogMessage(Kind.ROWS, [view_id], 2, batch))])
    wait_for(lambda: server.follower.held_count == 1)
    assert server.parts.shards[0].status().offset == -1
    server.parts.catalogue.publish(shop_state(2))
    wait_for(lambda: server.parts.shards[0].status().offset == 1)
    assert server.fold.damaged_count == 1


def test_a_copy_that_is_emptied_under_the_reader_is_read_from_its_beginning(start: Callable[..., Server]) -> None:
    server = start("one")
    positions = server.write([1, 2, 3, 4], 1)
    wait_for(lambda: server.is_past(positions))
    before = server.states()
    server.copies._stores[0].begin()  # what a join does on the thread of the ring
    server.copies._stores[0].complete()
    (last,) = server.write(server.parts.keys_on(0, 1), 2)
    wait_for(lambda: server.is_past([last]))
    assert server.states()[1] == before[1]
    assert server.states()[0][1] == last.offset
    other = start("other")
    wait_for(lambda: other.is_past([last]))
    wait_for(lambda: other.states() == server.states())


def test_an_offset_that_the_log_does_not_hold_is_an_alarm_and_applies_nothing(
    start: Callable[..., Server], mock: Mock
) -> None:
    server = start("one")
    written = server.write([1, 2, 3, 4], 1)
    wait_for(lambda: server.is_past(written))
    for shard in server.parts.shards.shards:
        first = shard.status().offset + 1
        assert shard.follow(LOG_EPOCH_BIT | 5, first, first + 1_000, [])
    positions = server.write([1, 2, 3, 4], 2)
    wait_for(lambda: "LOG_CUT" in server.parts.stream.getvalue())
    assert all(one.offset < server.parts.shards[one.shard].status().offset for one in positions)
    assert all(server.copies.is_whole(shard) for shard in range(SHARDS)), "its rows are served on"


def test_a_topic_that_was_made_anew_is_an_alarm_and_applies_nothing(start: Callable[..., Server], mock: Mock) -> None:
    server = start("one")
    written = server.write([1, 2, 3, 4], 1)
    wait_for(lambda: server.is_past(written))
    before = server.states()
    server.close()
    mock.topic.known = RowsTopicState(mock.cluster.rows, LOG_EPOCH_BIT | 6, is_flushed=False)
    again = start("one")
    again.write([1, 2, 3, 4], 2)
    wait_for(lambda: "ROWS_TOPIC_REPLACED" in again.parts.stream.getvalue())
    assert again.states() == before


def test_without_a_broker_a_write_is_refused_in_time(mock: Mock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows_outbox, "DELIVERY_MS", 300)
    monkeypatch.setattr(rows_outbox, "WAIT_S", 2.0)
    away = Cluster("127.0.0.1:9")
    box = RowsOutbox(lambda: Producer(rows_outbox.settings(away)), mock.topic.state)
    box.start()
    message = ToShard(0, LogMessage(Kind.ROWS, [3], 1, shop_batch([1])))
    with pytest.raises(Unavailable):
        box.append([message])
    assert box.failed_count == 1
    box.close()


def test_fsync_is_promised_only_where_the_topic_keeps_it(mock: Mock) -> None:
    with pytest.raises(FailedPrecondition):
        mock.outbox.check(Durability.FSYNC)
    mock.outbox.check(Durability.MEMORY)
    mock.topic.known = RowsTopicState("rows", LOG_EPOCH_BIT, is_flushed=True)
    mock.outbox.check(Durability.FSYNC)


def test_a_topic_that_is_not_found_refuses_writes_at_once(mock: Mock) -> None:
    def unknown() -> RowsTopicState:
        raise Unavailable("not found", reason="KAFKA_UNAVAILABLE")

    box = RowsOutbox(lambda: Producer(rows_outbox.settings(mock.cluster)), unknown)
    with pytest.raises(HeadraceError):
        box.append([ToShard(0, LogMessage(Kind.ROWS, [3], 1, shop_batch([1])))])


def test_every_message_of_a_write_is_told_its_own_offset(mock: Mock) -> None:
    messages = [ToShard(number % SHARDS, LogMessage(Kind.ROWS, [3], 1, shop_batch([number]))) for number in range(6)]
    assert [(one.shard, one.offset) for one in mock.outbox.append(messages)] == [
        (0, 0), (1, 0), (0, 1), (1, 1), (0, 2), (1, 2),
    ]  # fmt: skip
    client = mock.client()
    assert client.get_watermark_offsets(TopicPartition(mock.cluster.rows, 1), timeout=LIMIT_S) == (0, 3)
    client.close()
