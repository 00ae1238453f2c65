"""What is no event never stops a partition: it lies in the dead-letter topic with its place, reason and bytes."""

import json
import time
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka.admin import AdminClient

from headrace.definitions import DefinitionSet, Feature, FeatureView, window
from headrace.errors import NotFound
from loadtest.events.encoding import json_messages
from loadtest.events.shapes import Shape, definitions, source_name, view_name
from tests.streams.fold import SPAN_FEATURES, read_topic
from tests.streams.platform import Platform, apply, make_topic, produce
from tests.streams.test_events_to_features import expected_of, recent, wait_served
from tools.kafka import Brokers

GOOD = 200


def event(**changes: Any) -> bytes:
    """A good event of a sensor, with changes."""
    made = {"event_time": time.time_ns() // 1_000, "sensor_id": 1, "celsius": 20.5, "volts": 1.5, "is_alarm": False}
    return json.dumps({**made, **changes}).encode()


POISON: dict[str, Callable[[], bytes]] = {
    "MALFORMED_JSON": lambda: b'{"event_time": 1, "sensor_id": 1',
    "NOT_AN_OBJECT": lambda: b"[1, 2]",
    "NOT_UTF8": lambda: b"\xff\xfe",
    "TOO_DEEP": lambda: b'{"a":' + b"[" * 10_000,
    "EVENT_TOO_LARGE": lambda: event(firmware="x" * (1 << 20)),
    "WRONG_TYPE": lambda: event(celsius="warm"),
    "OUT_OF_RANGE": lambda: event(volts=1e300),
    "NAIVE_TIME": lambda: event(event_time="2026-01-01T00:00:00"),
    "DUPLICATE_FIELD": lambda: b'{"sensor_id": 1, "sensor_id": 2}',
    "EVENT_TIME_REQUIRED": lambda: b'{"sensor_id": 1}',
    "EVENT_TIME_OUT_OF_RANGE": lambda: event(event_time=time.time_ns() // 1_000 + 3_600_000_000),
    "BAD_ENTITY_KEY": lambda: event(sensor_id=None),
}


def test_poison_is_set_aside_with_its_reason_and_the_partition_goes_on(
    seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic, shape = "poison", Shape.SENSORS
    make_topic(brokers.bootstrap, topic, 1)
    apply(registry, definitions(shape, topic, "json"))
    platform = start_platform()
    good = list(json_messages(recent(shape, seed).batch(GOOD)))
    bad = [(reason, make()) for reason, make in POISON.items()]
    bad.append(("MALFORMED_JSON", b""))
    values = []
    for place, value in enumerate(good):
        values += [bad[place // 10][1]] if place % 10 == 0 and place // 10 < len(bad) else []
        values.append(value)
    produce(brokers.bootstrap, topic, [(0, value) for value in values])
    letters = f"{platform.prefix}deadletter.{source_name(shape)}"
    platform.wait(lambda: letters in topics(brokers) and len(read_topic(brokers.bootstrap, letters)) >= len(bad))
    found = read_topic(brokers.bootstrap, letters)
    assert sorted((one.headers["reason"].decode(), one.value) for one in found) == sorted(bad)
    for one in found:
        offset = int(one.headers["offset"])
        assert values[offset] == one.value
        assert (one.headers["topic"], one.headers["partition"], one.headers["stage"]) == (
            topic.encode(),
            b"0",
            b"decode",
        )
    expected = sensors_of(platform, topic)
    features = [f"{view_name(shape, 'sensor_id')}:{name}" for name in ("count_7d", "last_text")]
    wanted = list(expected.values())

    def is_served() -> bool:
        table = platform.read(features, {"sensor_id": [*expected]})
        return list(zip(*(column.to_pylist() for column in table.columns[-2:]), strict=True)) == wanted

    platform.wait(is_served)
    assert sum(count for count, _ in wanted) == GOOD


def sensors_of(platform: Platform, topic: str) -> dict[int, tuple[int, str]]:
    """Per sensor how many good events there are, and the text of the newest."""
    found: dict[int, list[tuple[tuple[int, int], str]]] = {}
    for message in read_topic(platform.bootstrap, topic):
        try:
            one = json.loads(message.value)
        except (ValueError, RecursionError):
            continue
        if isinstance(one, dict) and "firmware" in one and len(one["firmware"]) < 100:
            found.setdefault(one["sensor_id"], []).append(((one["event_time"], message.offset), one["firmware"]))
    return {sensor: (len(own), max(own)[1]) for sensor, own in found.items()}


def topics(brokers: Brokers) -> set[str]:
    """Names of all topics."""
    return set(AdminClient({"bootstrap.servers": brokers.bootstrap}).list_topics(timeout=10).topics)


def test_a_lost_store_is_filled_again_from_the_log(
    seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = "refilled"
    make_topic(brokers.bootstrap, topic, 2)
    apply(registry, without_services(definitions(Shape.CLICKS, topic, "json")))
    platform = start_platform()
    messages = list(json_messages(recent(Shape.CLICKS, seed).batch(500)))
    produce(brokers.bootstrap, topic, [(place % 2, value) for place, value in enumerate(messages)])
    expected = expected_of(platform, topic, "json", "user_id")
    wait_served(platform, "user_id", expected)
    platform.server.kill()
    (platform.folder / "store").rename(platform.folder / "lost")
    platform.server.launch()
    platform.server.wait_listening()
    wait_served(platform, "user_id", expected)
    assert len(SPAN_FEATURES) == len(next(iter(expected.values())))


def without_services(given: DefinitionSet) -> DefinitionSet:
    """Views alone."""
    return DefinitionSet(sources=given.sources, entities=given.entities, feature_views=given.feature_views)


LARGE_BYTES: Final = 100_000  # a row holds some of them, in each of its spans
LARGE_COUNT: Final = 12


def test_what_a_view_cannot_take_is_set_aside_by_the_server(
    seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic, shape = "outgrown", Shape.SENSORS
    make_topic(brokers.bootstrap, topic, 1)
    given = definitions(shape, topic, "json")
    view = given.feature_views[0]
    text = Feature("texts", "list<string>", window("last_n", "firmware", over="7d", hop="6h", item_count=100))
    wide = FeatureView(
        view.name, owner=view.owner, entity=view.entity, source=view.source, features=[*view.features, text]
    )
    apply(registry, DefinitionSet(sources=given.sources, entities=given.entities, feature_views=[wide]))
    platform = start_platform()
    now_us = time.time_ns() // 1_000
    large = [event(sensor_id=7, event_time=now_us + at, firmware="x" * LARGE_BYTES) for at in range(LARGE_COUNT)]
    produce(brokers.bootstrap, topic, [(0, value) for value in [*large, event(sensor_id=8, firmware="y")]])
    features, letters = [f"{view.name}:count_7d"], f"{platform.prefix}deadletter.{source_name(shape)}"

    def is_settled() -> bool:
        found = read_topic(brokers.bootstrap, letters) if letters in topics(brokers) else []
        return bool(found) and counts(platform, features, [7, 8]) == [LARGE_COUNT - len(found), 1]

    platform.wait(is_settled)
    found = read_topic(brokers.bootstrap, letters)
    assert {(one.headers["reason"], one.headers["stage"]) for one in found} == {(b"ROW_TOO_LARGE", b"apply")}
    assert {int(one.headers["offset"]) for one in found} < set(range(LARGE_COUNT))


def counts(platform: Platform, features: list[str], sensors: list[int]) -> list[int | None]:
    """Counts of sensors, as they are served."""
    try:
        found: list[int | None] = platform.read(features, {"sensor_id": [*sensors]}).column(-1).to_pylist()
    except NotFound:
        return []
    return found
