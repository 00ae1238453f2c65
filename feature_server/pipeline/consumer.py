"""Messages many at a time for arroyo: its cost is per message, so that here one message is a batch of one partition."""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple, Protocol

from arroyo.backends.abstract import Consumer
from arroyo.types import BrokerValue, Partition, Topic
from confluent_kafka import (
    OFFSET_INVALID,
    TIMESTAMP_LOG_APPEND_TIME,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)
from confluent_kafka import Consumer as KafkaClient

from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.topics import ASK_LIMIT_S, MESSAGE_BYTES_MAX, unavailable
from headrace.errors import DataLoss, HeadraceError

NO_TIME: Final = -1
BATCH_MESSAGES: Final = 4_096  # taken from librdkafka at once; what a batch costs beside its messages is then nothing
QUEUED_KIBIBYTES: Final = 64 << 10  # that librdkafka reads ahead, of all partitions together
POLL_S: Final = 0.1  # what has arrived elsewhere is looked after as often
REFRESH_S: Final = 1.0
MEASURE_S: Final = 1.0

OnAssign = Callable[[Mapping[Partition, int]], None]
OnRevoke = Callable[[Sequence[Partition]], None]

# librdkafka goes on by itself after these.
PASSING: Final = frozenset(
    {
        KafkaError._PARTITION_EOF,
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._MAX_POLL_EXCEEDED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NOT_LEADER_FOR_PARTITION,
    }
)
LOST: Final = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})


class Event(NamedTuple):
    """One message. `write_us` is when the broker took it, NO_TIME where the topic keeps the sender's clock."""

    offset: int
    value: bytes
    write_us: int
    headers: Sequence[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages of one partition in the order of their offsets."""

    topic: str
    partition: int
    events: Sequence[Event]

    @property
    def next_offset(self) -> int:
        """Offset behind the last one."""
        return self.events[-1].offset + 1


def settings(cluster: Cluster, group: str) -> dict[str, str | int | float | bool]:
    """Settings of a client that never moves by itself: where it starts and what it commits is decided here."""
    return {
        **cluster.client,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "error",
        "partition.assignment.strategy": "range",
        "session.timeout.ms": 10_000,
        "heartbeat.interval.ms": 1_000,
        "fetch.wait.max.ms": 50,
        "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
        "receive.message.max.bytes": 4 * MESSAGE_BYTES_MAX,
        "queued.max.messages.kbytes": QUEUED_KIBIBYTES,
    }


class Assignment(Protocol):
    """Which partitions a consumer reads that asks no group, and from where."""

    def wanted(self) -> set[Partition]:
        """What to read now; asked every second, and where it differs from what is read, all are assigned anew."""

    def starts(self, partitions: set[Partition]) -> Mapping[Partition, int]:
        """Where to begin; what is left out is not read, and `wanted` leaves it out as well."""


class BatchConsumer(Consumer[Batch]):
    """Reads topics as a member of a group, or the partitions of an assignment."""

    def __init__(
        self,
        client: KafkaClient,
        clock_s: Callable[[], float],
        assignment: Assignment | None = None,
        batch_messages: int = BATCH_MESSAGES,
    ) -> None:
        self._client = client
        self._clock_s = clock_s
        self._assignment = assignment
        self._batch_messages = batch_messages
        self._offsets: dict[Partition, int] = {}
        self._staged: dict[Partition, int] = {}
        self._paused: set[Partition] = set()
        self._waiting: deque[BrokerValue[Batch]] = deque()
        self._error: HeadraceError | None = None
        self._refresh_s = 0.0
        self._measure_s = 0.0
        self._lags: Mapping[Partition, int] = {}
        self._on_assign: OnAssign = lambda _: None
        self._on_revoke: OnRevoke = lambda _: None
        self._is_closed = False

    def subscribe(
        self, topics: Sequence[Topic], on_assign: OnAssign | None = None, on_revoke: OnRevoke | None = None
    ) -> None:
        """Begins to read."""
        self._on_assign = on_assign or self._on_assign
        self._on_revoke = on_revoke or self._on_revoke
        if self._assignment is None:
            names = [topic.name for topic in topics]
            self._client.subscribe(names, on_assign=self._assigned, on_revoke=self._revoked, on_lost=self._revoked)

    def unsubscribe(self) -> None:
        """Ends reading."""
        self._client.unsubscribe()

    def poll(self, timeout: float | None = None) -> BrokerValue[Batch] | None:
        """The next batch of one partition. Raises DataLoss where events between two reads are gone."""
        self._refresh()
        self._measure()
        if self._waiting and not self._paused:
            return self._next()
        first = self._client.poll(-1 if timeout is None else min(timeout, POLL_S))
        if self._error is not None:
            raise self._error
        if first is None:
            return None
        # What has arrived already: waiting for more would cost freshness.
        more = self._client.consume(self._batch_messages - 1, 0) if self._batch_messages > 1 else ()
        self._gather([first, *more])
        if self._waiting and not self._paused:
            return self._next()
        return None

    def tell(self) -> Mapping[Partition, int]:
        """Offsets behind what was handed out."""
        return self._offsets

    def seek(self, offsets: Mapping[Partition, int]) -> None:
        """Reads on from other offsets."""
        for partition, offset in offsets.items():
            self._client.seek(_place(partition, offset))
        self._waiting = deque(one for one in self._waiting if one.partition not in offsets)
        self._offsets.update(offsets)

    def pause(self, partitions: Sequence[Partition]) -> None:
        """Reads no more of these until resumed."""
        self._client.pause([_place(partition) for partition in partitions])
        self._paused.update(partitions)

    def resume(self, partitions: Sequence[Partition]) -> None:
        """Reads on."""
        self._client.resume([_place(partition) for partition in partitions])
        self._paused.difference_update(partitions)

    def paused(self) -> Sequence[Partition]:
        """What is paused now."""
        return [*self._paused]

    def stage_offsets(self, offsets: Mapping[Partition, int]) -> None:
        """Keeps offsets for the next commit."""
        self._staged.update(offsets)

    def commit_offsets(self) -> Mapping[Partition, int] | None:
        """Tells the group how far it is, without waiting for it: while its broker is away, other partitions go on.

        A commit that fails is made up by the next one, and what is read again for want of it changes nothing.
        """
        held = {partition: offset for partition, offset in self._staged.items() if partition in self._offsets}
        if held:
            places = [_place(partition, offset) for partition, offset in held.items()]
            try:
                self._client.commit(offsets=places, asynchronous=True)
            except KafkaException:
                return None
        self._staged.clear()
        return held

    def close(self, timeout: float | None = None) -> None:
        """Leaves the group."""
        self._client.close()
        self._is_closed = True

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._is_closed

    @property
    def member_id(self) -> str:
        """Name in the group."""
        return self._client.memberid() or ""

    def lag(self) -> Mapping[Partition, int]:
        """Messages between what was handed out and the end of each partition, as the client had heard a moment ago."""
        return self._lags

    def _measure(self) -> None:
        # By the thread that polls: the client holds up others while it does.
        now_s = self._clock_s()
        if now_s < self._measure_s:
            return
        self._measure_s = now_s + MEASURE_S
        found = {}
        for partition, offset in self._offsets.items():
            _, end = self._client.get_watermark_offsets(_place(partition), cached=True)
            found[partition] = max(0, end - offset) if end >= 0 else 0
        self._lags = found

    def _refresh(self) -> None:
        now_s = self._clock_s()
        if self._assignment is None or now_s < self._refresh_s:
            return
        self._refresh_s = now_s + REFRESH_S
        if self._assignment.wanted() == self._offsets.keys():
            return
        if self._offsets:
            gone = [*self._offsets]
            self._on_revoke(gone)
            self._drop(gone)
        self._take(self._assignment.starts(self._assignment.wanted()))

    def _assigned(self, client: KafkaClient, partitions: list[TopicPartition]) -> None:
        # Inside a callback of librdkafka: an error is kept, and raised by the poll that runs it.
        try:
            committed = client.committed(partitions, timeout=ASK_LIMIT_S)
            self._take({_partition(one): self._start(one) for one in committed})
        except KafkaException as error:
            self._error = unavailable("offsets could not be read", error)
        except HeadraceError as error:
            self._error = error

    def _start(self, place: TopicPartition) -> int:
        low, _ = self._client.get_watermark_offsets(place, timeout=ASK_LIMIT_S)
        if place.offset == OFFSET_INVALID:
            return low
        if place.offset < low:
            raise lost(place.topic, place.partition, place.offset, low)
        return place.offset

    def _take(self, starts: Mapping[Partition, int]) -> None:
        self._client.assign([_place(partition, offset) for partition, offset in starts.items()])
        self._offsets.update(starts)
        self._paused.clear()
        if starts:
            self._on_assign(starts)

    def _revoked(self, _: KafkaClient, partitions: list[TopicPartition]) -> None:
        gone = [_partition(one) for one in partitions]
        self._on_revoke(gone)
        self._drop(gone)

    def _drop(self, partitions: Sequence[Partition]) -> None:
        gone = set(partitions)
        self._waiting = deque(one for one in self._waiting if one.partition not in gone)
        self._paused -= gone
        for partition in gone:
            self._offsets.pop(partition, None)
            self._staged.pop(partition, None)

    def _gather(self, messages: Sequence[Message]) -> None:
        by_partition: dict[tuple[str, int], list[Event]] = {}
        for message in messages:
            error = message.error()
            if error is not None:
                self._judge(error, message)
                continue
            event = _event(message)
            place = message.topic() or "", message.partition() or 0
            by_partition.setdefault(place, []).append(event)
        now = datetime.now(UTC)
        for (topic, number), events in by_partition.items():
            partition = Partition(Topic(topic), number)
            if partition in self._offsets:
                self._waiting.append(BrokerValue(Batch(topic, number, events), partition, events[-1].offset, now))

    def _judge(self, error: KafkaError, message: Message) -> None:
        if error.code() in LOST:
            raise lost(message.topic() or "", message.partition() or 0, message.offset() or 0, -1)
        if error.code() not in PASSING and not error.retriable():
            raise unavailable("Kafka refuses", KafkaException(error))

    def _next(self) -> BrokerValue[Batch]:
        value = self._waiting.popleft()
        self._offsets[value.partition] = value.next_offset
        return value


def _event(message: Message) -> Event:
    kind, time_ms = message.timestamp()
    write_us = time_ms * 1_000 if kind == TIMESTAMP_LOG_APPEND_TIME else NO_TIME
    return Event(message.offset() or 0, message.value() or b"", write_us, headers_of(message))


def headers_of(message: Message) -> Sequence[tuple[str, bytes]]:
    """Headers of a message that have a value."""
    given = message.headers()
    if not given:
        return ()
    pairs = given.items() if isinstance(given, dict) else given
    return [(name, value) for name, value in pairs if isinstance(value, bytes)]


def lost(topic: str, partition: int, offset: int, low: int) -> DataLoss:
    """The alarm where a log no longer holds what comes next: it is never passed over in silence."""
    where = f"begins at {low}" if low >= 0 else "no longer holds that offset"
    return DataLoss(
        f"partition {partition} of {topic!r} {where}, and reading stopped at {offset}: the events between are gone, "
        "or the topic was made anew; bring the values back from the offline store, then move the position by hand",
        reason="EVENTS_LOST",
        metadata={"topic": topic, "partition": str(partition), "offset": str(offset)},
    )


def _partition(place: TopicPartition) -> Partition:
    return Partition(Topic(place.topic), place.partition)


def _place(partition: Partition, offset: int = OFFSET_INVALID) -> TopicPartition:
    return TopicPartition(partition.topic.name, partition.index, offset)
