"""kill -9 of worker and server at random points: served values are the fold of the log, no event lost or doubled."""

import random
import time
from collections.abc import Callable

import pytest

from loadtest.events.encoding import arrow_message
from loadtest.events.shapes import Shape, definitions
from tests.streams.platform import Platform, apply, make_topic, produce
from tests.streams.test_events_to_features import expected_of, recent, wait_served
from tools.kafka import Brokers

MESSAGES = 60
EVENTS_PER_MESSAGE = 200
SOURCE_PARTITIONS = 2
LIFE_S = (0.2, 1.5)  # beyond "listening"


@pytest.mark.parametrize("kills", [5, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(3_600)])])
def test_killed_anywhere_every_event_counts_once(
    kills: int, seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = f"killed-{kills}"
    source = random.Random(f"{seed}/{kills}")
    make_topic(brokers.bootstrap, topic, SOURCE_PARTITIONS)
    apply(registry, definitions(Shape.CLICKS, topic, "arrow"))
    generator = recent(Shape.CLICKS, seed)
    platform = start_platform()
    for _ in range(kills):
        batches = generator.batches(MESSAGES // 5 * EVENTS_PER_MESSAGE, EVENTS_PER_MESSAGE)
        messages = [(place % SOURCE_PARTITIONS, arrow_message(batch)) for place, batch in enumerate(batches)]
        produce(brokers.bootstrap, topic, messages)
        time.sleep(source.uniform(*LIFE_S))  # how far the processes come is the fault that is tested
        for process in source.choice([(platform.worker,), (platform.server,), (platform.worker, platform.server)]):
            process.kill()
            process.launch()
        platform.worker.wait_listening()
        platform.server.wait_listening()
    for key in ("user_id", "item_id"):
        expected = expected_of(platform, topic, "arrow", key)
        wait_served(platform, key, expected)
