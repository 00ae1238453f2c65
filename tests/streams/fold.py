"""What a topic must have become, computed from its messages alone and in plain Python."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

import pyarrow as pa
from confluent_kafka import Consumer, TopicPartition

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
                at = message.offset() + 1
                headers = dict(message.headers() or [])
                found.append(Logged(number, message.offset(), message.timestamp()[1] * 1_000, message.value(), headers))
    consumer.close()
    return found


def folded(events: Iterable[tuple[tuple[int, int, int, int], dict[str, Any]]], key: str, value: str, text: str) -> dict[Any, tuple[Any, ...]]:
    """Per entity the SPAN_FEATURES over all events, each with its order (event time, write time, partition, offset)."""
    by_key: dict[Any, list[tuple[tuple[int, int, int, int], dict[str, Any]]]] = defaultdict(list)
    for order, event in events:
        by_key[event[key]].append((order, event))
    found = {}
    for entity, own in by_key.items():
        values = [event[value] for _, event in own]
        newest = max(own, key=lambda one: one[0])[1]
        found[entity] = (len(own), sum(values), max(values), newest[value], newest[text])
    return found


def served(table: pa.Table) -> list[tuple[Any, ...]]:
    """Rows of an answer with the SPAN_FEATURES as its columns, in their order."""
    columns = [table.column(table.num_columns - len(SPAN_FEATURES) + at).to_pylist() for at in range(len(SPAN_FEATURES))]
    return list(zip(*columns, strict=True))
