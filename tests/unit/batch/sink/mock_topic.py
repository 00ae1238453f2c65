"""A topic on librdkafka's own mock cluster, and sinks of it into one catalogue."""

import json
import time
from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from batch.offline.catalogue import Catalogue
from batch.offline.runs import Provenance, Runs
from batch.sink.sink import Sink, Sunk
from batch.sink.streams import stream_of
from batch.sink.topic import TopicLog
from headrace.definitions import Column, Source, SourceKind

NOW_US = 1_767_225_600_000_000
LIMIT_S = 20.0
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


class MockTopic(TopicLog):
    """The mock has no ids of topics: the test gives them."""

    made = "mock-1"

    def identity(self) -> str:
        return self.made


class Mock:
    """A mock cluster of one broker with one topic of the partitions that the mock gives it."""

    def __init__(self) -> None:
        self.producer = Producer({"test.mock.num.brokers": 1, "log_level": 0})
        brokers = self.producer.list_topics(timeout=LIMIT_S).brokers.values()
        self.bootstrap = ",".join(f"{one.host}:{one.port}" for one in brokers)

    def send(self, partition: int, *values: bytes, topic: str = "orders") -> None:
        for value in values:
            self.producer.produce(topic, value, partition=partition)
        assert self.producer.flush(LIMIT_S) == 0

    def topic(self, name: str = "orders") -> MockTopic:
        return MockTopic({"bootstrap.servers": self.bootstrap}, name)

    def sink(self, catalogue: Catalogue, of: Source | None = None) -> Sink:
        runs = Runs(catalogue, Provenance("test"), lambda: NOW_US)
        stream = stream_of(of or source())
        return Sink(stream, self.topic(stream.topic), catalogue, runs, clock_us=lambda: NOW_US, clock_s=time.monotonic)


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
