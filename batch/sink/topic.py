"""A topic as the sink reads it: from offsets that it is told, never from those of a group."""

import time
from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import (
    TIMESTAMP_NOT_AVAILABLE,
    Consumer,
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka import Message as KafkaMessage
from confluent_kafka.admin import AdminClient

from batch.sink.decoding import NO_TIME, TIMES_US, Message
from headrace.errors import DataLoss, HeadraceError, NotFound, Unavailable

ASK_LIMIT_S: Final = 15.0
MESSAGE_BYTES_MAX: Final = 32 << 20
QUEUED_KIBIBYTES: Final = 64 << 10
READ_MESSAGES: Final = 4_096  # taken from librdkafka at once
QUIET_S: Final = 0.2  # without a message: what has arrived is read
FIRST_S: Final = 5.0  # for the first message of a topic that is known to hold some
_LOST: Final = frozenset({KafkaError.OFFSET_OUT_OF_RANGE, KafkaError._AUTO_OFFSET_RESET, KafkaError._LOG_TRUNCATION})


class TopicLog:
    """One consumer of every partition. `settings` say where the cluster is and how to be let in."""

    def __init__(self, settings: Mapping[str, str], topic: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._topic = topic
        self._clock = clock
        self._settings = settings
        self._consumer = Consumer(
            {
                **settings,
                "group.id": f"headrace.sink.{topic}",  # required, and never committed to
                "enable.auto.commit": False,
                "enable.auto.offset.store": False,
                "auto.offset.reset": "error",
                "fetch.message.max.bytes": MESSAGE_BYTES_MAX,
                "receive.message.max.bytes": 4 * MESSAGE_BYTES_MAX,
                "queued.max.messages.kbytes": QUEUED_KIBIBYTES,
                "log_level": 0,
            }
        )
        self._next: dict[int, int] = {}
        self.stopped: set[int] = set()  # partitions that lost messages, of which nothing comes until `begin`

    def partition_count(self) -> int:
        """Raises NotFound where there is no such topic."""
        try:
            found = self._consumer.list_topics(self._topic, timeout=ASK_LIMIT_S).topics[self._topic]
        except KafkaException as error:
            raise _unavailable(self._topic, error) from error
        if found.error is not None or not found.partitions:
            raise NotFound(
                f"there is no topic {self._topic!r} yet", reason="UNKNOWN_TOPIC", metadata={"topic": self._topic}
            )
        return len(found.partitions)

    def identity(self) -> str:
        """What tells this topic from one of the same name that was made later."""
        client = AdminClient({**self._settings, "log_level": 0})  # the answer never comes to one that is let go
        try:
            described = client.describe_topics(TopicCollection([self._topic]), request_timeout=ASK_LIMIT_S)
            return str(described[self._topic].result().topic_id)
        except KafkaException as error:
            raise _unavailable(self._topic, error) from error

    def bounds(self, partition: int) -> tuple[int, int]:
        """The first offset that is kept, and the one behind the last."""
        try:
            low, high = self._consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=ASK_LIMIT_S
            )
        except KafkaException as error:
            raise _unavailable(self._topic, error) from error
        return int(low), int(high)

    def begin(self, starts: Mapping[int, int]) -> None:
        """Reads on from these offsets."""
        self._consumer.assign([TopicPartition(self._topic, number, offset) for number, offset in starts.items()])
        self._next = dict(starts)
        self.stopped = set()

    def lag(self) -> int:
        """Messages that wait, as the client had heard a moment ago."""
        waiting = 0
        for number, offset in self._next.items():
            _, high = self._consumer.get_watermark_offsets(TopicPartition(self._topic, number), cached=True)
            waiting += max(0, high - offset)
        return waiting

    def read(self, byte_count: int, message_count: int, first_s: float = QUIET_S) -> list[Message]:
        """What has arrived, up to about so much. Raises DataLoss where messages between two reads are gone.

        What was read before an error is lost to the caller, who has to `begin` anew.
        """
        found: list[Message] = []
        held = 0
        wait_s = first_s
        while held < byte_count and len(found) < message_count:
            first = self._consumer.poll(wait_s)
            if first is None:
                break
            wait_s = QUIET_S
            more = min(READ_MESSAGES, message_count - len(found)) - 1  # of what has arrived: `consume` waits for all
            for message in [first, *(self._consumer.consume(more, 0) if more else ())]:
                error = message.error()
                if error is not None:
                    self._judge(error, message)
                    continue
                one = _message(message)
                found.append(one)
                held += len(one.value)
                self._next[one.partition] = one.offset + 1
        return found

    def close(self) -> None:
        """Lets go of the cluster."""
        self._consumer.close()

    def _judge(self, error: KafkaError, message: KafkaMessage) -> None:
        if error.code() in _LOST:
            partition = message.partition() or 0
            self.stopped.add(partition)
            raise lost(self._topic, partition, self._next.get(partition, 0))
        if error.fatal():
            raise _unavailable(self._topic, KafkaException(error))


def lost(topic: str, partition: int, offset: int) -> DataLoss:
    """Never passed over in silence."""
    return DataLoss(
        f"partition {partition} of {topic!r} no longer holds offset {offset}, where the table of its events ends: the "
        "events between are gone; bring them from where they came from, then move the table's position by hand",
        reason="EVENTS_LOST",
        metadata={"topic": topic, "partition": str(partition), "offset": str(offset)},
    )


def _message(message: KafkaMessage) -> Message:
    kind, time_ms = message.timestamp()
    # A producer gives it in whatever unit it likes.
    is_time = kind != TIMESTAMP_NOT_AVAILABLE and TIMES_US[0] <= time_ms * 1_000 < TIMES_US[1]
    write_us = time_ms * 1_000 if is_time else NO_TIME
    return Message(message.partition() or 0, message.offset() or 0, write_us, message.value() or b"")


def _unavailable(topic: str, error: KafkaException) -> HeadraceError:
    return Unavailable(
        f"topic {topic!r} cannot be read: {error.args[0]}", reason="KAFKA_UNAVAILABLE", metadata={"topic": topic}
    )
