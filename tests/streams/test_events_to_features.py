"""Events of a topic are served as features: Arrow batches and single JSON messages, one source feeding two entities."""

import time
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from loadtest.events.encoding import arrow_message, json_messages
from loadtest.events.generator import Generator
from loadtest.events.shapes import Shape, definitions, view_name
from tests.streams.fold import SPAN_FEATURES, folded, read_topic, served
from tests.streams.platform import Platform, apply, make_topic, produce
from tools.kafka import Brokers

EVENTS = 3_000
SOURCE_PARTITIONS = 3
DAY_US = 86_400_000_000


def recent(shape: Shape, seed: int, **more: Any) -> Generator:
    """Events of the last hour, so that every window of a day holds them."""
    start_us = time.time_ns() // 1_000 - 3_600_000_000
    return Generator(shape, seed, start_us=start_us, key_counts={"user_id": 300, "item_id": 50}, **more)


@pytest.mark.parametrize("form", ["arrow", "json"])
def test_features_are_the_fold_of_the_log(
    form: str, seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = f"clicks-{form}"
    make_topic(brokers.bootstrap, topic, SOURCE_PARTITIONS)
    apply(registry, definitions(Shape.CLICKS, topic, form))
    platform = start_platform()
    batch = recent(Shape.CLICKS, seed).batch(EVENTS)
    messages: list[tuple[int, bytes]] = []
    for place, start in enumerate(range(0, EVENTS, 100)):
        part = batch.slice(start, 100)
        values = [arrow_message(part)] if form == "arrow" else json_messages(part)
        messages += [(place % SOURCE_PARTITIONS, value) for value in values]
    produce(brokers.bootstrap, topic, messages)
    events = []
    rows = iter(batch.to_pylist())
    for message in read_topic(brokers.bootstrap, topic):
        own = pa.ipc.open_stream(message.value).read_all().to_pylist() if form == "arrow" else [None]
        events += [(message, event) for event in own]
    assert len(events) == EVENTS
    del rows
    for key in ("user_id", "item_id"):
        expected = expected_of(platform, topic, form, key)
        features = [f"{view_name(Shape.CLICKS, key)}:{name}" for name in SPAN_FEATURES]
        keys = list(expected)
        platform.wait(lambda keys=keys, features=features, key=key, expected=expected: served(platform.read(features, {key: keys})) == [expected[one] for one in keys])


def expected_of(platform: Platform, topic: str, form: str, key: str) -> dict[Any, tuple[Any, ...]]:
    """The fold of what a topic holds."""
    import json

    events = []
    for message in read_topic(platform.bootstrap, topic):
        if form == "arrow":
            own = pa.ipc.open_stream(message.value).read_all()
            own = own.set_column(0, "event_time", own.column("event_time").cast(pa.int64())).to_pylist()
        else:
            own = [json.loads(message.value)]
        for row, event in enumerate(own):
            order = (event["event_time"], message.time_us, message.partition, message.offset * 1_000 + row)
            events.append((order, event))
    return folded(events, key, "dwell_ms", "page")
