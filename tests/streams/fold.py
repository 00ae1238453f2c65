"""What a topic must have become, computed from its messages alone and in plain Python."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

from feature_server.pipeline.consumer import headers_of

Order = tuple[int, int, int, int]  # event time, write time, partition, place in it

SPAN_FEATURES = ("count_7d", "sum_7d", "most_7d", "last_value", "last_text")


class Logged(NamedTuple):
    """A message of a topic."""

    partition: int
    offset: int
    time_us: int
    value: bytes
    headers: dict[str, bytes]


def read_topic(bootstrap: str, topic: str, limit_s: float = 20.0) -> list[Logged]:
    """Every message of a topic."""
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": "fold", "enable.auto.commit": False})
    found: list[Logged] = []
    partitions = consumer.list_topics(topic, timeout=limit_s).topics[topic].partitions
    for number in partitions:
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=limit_s)
        consumer.assign([TopicPartition(topic, number, 0)])
        at = 0
        while at < end:
            for message in consumer.consume(10_000, 0.2):
                assert message.error() is None, message.error()
                headers = dict(headers_of(message))
                offset = message.offset() or 0
                at = offset + 1
                found.append(Logged(number, offset, message.timestamp()[1] * 1_000, message.value() or b"", headers))
    consumer.close()
    return found


def folded(
    events: Iterable[tuple[Order, dict[str, Any]]], key: str, value: str, text: str
) -> dict[int, tuple[Any, ...]]:
    """Per entity the SPAN_FEATURES over all events."""
    by_key: dict[int, list[tuple[Order, dict[str, Any]]]] = defaultdict(list)
    for order, event in events:
        by_key[event[key]].append((order, event))
    found = {}
    for entity, own in by_key.items():
        values = [event[value] for _, event in own]
        newest = max(own, key=lambda one: one[0])[1]
        found[entity] = (len(own), sum(values), max(values), newest[value], newest[text])
    return found


def served(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows of an answer, whose columns are the keys and then the SPAN_FEATURES."""
    columns = [column.to_pylist() for column in table.columns[-len(SPAN_FEATURES) :]]
    return list(zip(*columns, strict=True))
