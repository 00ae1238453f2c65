"""A topic on librdkafka's own mock cluster, and sinks of it into one catalogue."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from confluent_kafka import Consumer, KafkaError, Message, Producer, TopicPartition

from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.sink.sink import Sink, Sunk
from batch.sink.streams import stream_of
from batch.sink.topic import TopicLog
from headrace.definitions import Column, Source, SourceKind

NOW_US = 1_767_225_600_000_000
LIMIT_S = 20.0
BEYOND = 1_000_000  # an offset that no test reaches
TYPES = {
    "user_id": "i64",
    "at": "timestamp_us",
    "cents": "i32",
    "score": "f32",
    "shop": "string",
    "raw": "bytes",
    "day": "date",
    "is_new": "bool",
    "tags": "list<string>",
    "place": "list<f64,2>",
}


def source(form: str = "json", types: dict[str, str] | None = None, topic: str = "orders") -> Source:
    """Orders of users."""
    columns = [Column(name, kind) for name, kind in (types or TYPES).items()]
    return Source(
        "shop.web.orders",
        owner="shop",
        kind=SourceKind.STREAM,
        uri=f"kafka:{topic}?format={form}",
        columns=columns,
        event_time_column="at",
    )


class ErrorsLast:
    """A consumer that gives errors after all messages that have arrived."""

    def __init__(self, consumer: Consumer) -> None:
        self.errors: list[Message] = []
        self._consumer = consumer

    def poll(self, wait_s: float) -> Message | None:
        message = self._consumer.poll(wait_s)
        while message is not None and message.error() is not None:
            self.errors.append(message)
            message = self._consumer.poll(wait_s)
        return self.errors.pop(0) if message is None and self.errors else message

    def consume(self, count: int, wait_s: float) -> list[Message]:
        found = self._consumer.consume(count, wait_s)
        self.errors += [one for one in found if one.error() is not None]
        return [one for one in found if one.error() is None]

    def __getattr__(self, name: str) -> Any:  # Any: the rest of a consumer
        return getattr(self._consumer, name)


class MockTopic(TopicLog):
    """The mock has no ids of topics and no retention: the test gives them."""

    made = "mock-1"

    def __init__(self, settings: Mapping[str, str], topic: str) -> None:
        super().__init__(settings, topic)
        self.errors_last = ErrorsLast(self._consumer)
        self._consumer = self.errors_last  # type: ignore[assignment]
        self.lows: dict[int, int] = {}

    def identity(self) -> str:
        return self.made

    def bounds(self, partition: int) -> tuple[int, int]:
        low, high = super().bounds(partition)
        return self.lows.get(partition, low), high

    def lose(self, partition: int) -> None:
        """The next fetch asks for what the broker does not hold, as it does when retention was there before it."""
        self._consumer.seek(TopicPartition(self._topic, partition, BEYOND))

    def fail(self) -> None:
        """The client gives up, after the messages that have arrived."""
        self.errors_last.errors.append(
            Message(self._topic, error=KafkaError(KafkaError._FATAL, "given up", fatal=True))
        )


class Mock:
    """A mock cluster of one broker with one topic of the partitions that the mock gives it."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self.producer.list_topics(timeout=LIMIT_S).brokers.values()
        self.bootstrap = ",".join(f"{one.host}:{one.port}" for one in brokers)

    def send(self, partition: int, *values: bytes, topic: str = "orders", time_ms: int = 0) -> None:
        """By the clock of the producer, where no time is given."""
        for value in values:
            self.producer.produce(topic, value, partition=partition, timestamp=time_ms)
        assert self.producer.flush(LIMIT_S) == 0

    def topic(self, name: str = "orders") -> MockTopic:
        return MockTopic({"bootstrap.servers": self.bootstrap}, name)

    def sink(
        self, catalogue: Catalogue, of: Source | None = None, clock_s: Callable[[], float] = time.monotonic
    ) -> Sink:
        runs = Runs(catalogue, Provenance("test"), lambda: NOW_US)
        stream = stream_of(of or source())
        return Sink(stream, self.topic(stream.topic), catalogue, runs, clock_us=lambda: NOW_US, clock_s=clock_s)


def order(number: int, **more: Any) -> bytes:  # Any: JSON values
    """One order as JSON."""
    return json.dumps({"user_id": number, "at": NOW_US - number, "cents": 10 * number, **more}).encode()


def sink_all(sink: Sink, cycle_messages: int = 200_000) -> list[Sunk]:
    """Cycles until nothing is left."""
    done = [sink.cycle(cycle_messages=cycle_messages)]
    while not done[-1].is_all:
        done.append(sink.cycle(cycle_messages=cycle_messages))
    return done


def places(rows: Sequence[dict[str, Any]]) -> list[tuple[int, int, int]]:
    """Where events stood, in order."""
    return sorted((row["_log_partition"], row["_offset"], row["_row"]) for row in rows)
