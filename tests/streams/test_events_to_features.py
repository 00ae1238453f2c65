"""Events of a topic are served as features: Arrow batches and single JSON messages, one source feeding two entities."""

import json
import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from headrace.errors import NotFound
from loadtest.events.encoding import arrow_message, json_messages
from loadtest.events.generator import Generator
from loadtest.events.shapes import Shape, definitions, view_name
from tests.streams.fold import SPAN_FEATURES, Order, folded, read_topic, served
from tests.streams.platform import Platform, apply, make_topic, produce
from tools.kafka import Brokers

EVENTS = 3_000
EVENTS_PER_MESSAGE = 100
SOURCE_PARTITIONS = 3
HOUR_US = 3_600_000_000
ROWS_MAX = 1_000  # of one message, so that rows order after messages


def recent(shape: Shape, seed: int) -> Generator:
    """Events of the last hours, so that every window of a day holds them, of few enough keys to repeat."""
    start_us = time.time_ns() // 1_000 - HOUR_US
    return Generator(shape, seed, start_us=start_us, key_counts={"user_id": 300, "item_id": 50})


@pytest.mark.parametrize("form", ["arrow", "json"])
def test_features_are_the_fold_of_the_log(
    form: str, seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = f"clicks-{form}"
    make_topic(brokers.bootstrap, topic, SOURCE_PARTITIONS)
    apply(registry, definitions(Shape.CLICKS, topic, form))
    platform = start_platform()
    messages: list[tuple[int, bytes]] = []
    for place, part in enumerate(recent(Shape.CLICKS, seed).batches(EVENTS, EVENTS_PER_MESSAGE)):
        values = [arrow_message(part)] if form == "arrow" else json_messages(part)
        messages += [(place % SOURCE_PARTITIONS, value) for value in values]
    produce(brokers.bootstrap, topic, messages)
    for key in ("user_id", "item_id"):
        expected = expected_of(platform, topic, form, key)
        assert sum(one[0] for one in expected.values()) == EVENTS
        wait_served(platform, key, expected)


def expected_of(platform: Platform, topic: str, form: str, key: str) -> dict[int, tuple[Any, ...]]:
    """The fold of what a topic holds, by key."""
    events: list[tuple[Order, dict[str, Any]]] = []
    for message in read_topic(platform.bootstrap, topic):
        own = _events(message.value, form)
        events += [
            ((event["event_time"], message.time_us, message.partition, message.offset * ROWS_MAX + row), event)
            for row, event in enumerate(own)
        ]
    return folded(events, key, "dwell_ms", "page")


def wait_served(platform: Platform, key: str, expected: dict[int, tuple[Any, ...]]) -> None:
    """Returns when every entity has the expected values."""
    features = [f"{view_name(Shape.CLICKS, key)}:{name}" for name in SPAN_FEATURES]
    wanted = list(expected.values())

    def is_served() -> bool:
        try:
            return served(platform.read(features, {key: [*expected]})) == wanted
        except NotFound:  # a server that has just started may not have heard of the registry
            return False

    platform.wait(is_served)


def _events(value: bytes, form: str) -> list[dict[str, Any]]:
    if form == "json":
        return [json.loads(value)]
    table = pa.ipc.open_stream(value).read_all()
    plain = table.set_column(0, "event_time", table.column("event_time").cast(pa.int64()))
    rows: list[dict[str, Any]] = plain.to_pylist()
    return rows
