"""The broker dies, or the server stands still: nothing is lost, nothing counts twice, and reads go on."""

import os
import signal
import time
from collections.abc import Callable

import pytest

from loadtest.events.encoding import arrow_message
from loadtest.events.generator import Generator
from loadtest.events.shapes import Shape, definitions
from tests.cluster.processes import ServerProcess
from tests.streams.platform import Platform, apply, make_topic, produce
from tests.streams.test_events_to_features import expected_of, recent, wait_served
from tools.kafka import Brokers

EVENTS_PER_MESSAGE = 100


def test_a_broker_that_is_killed_and_comes_back_costs_nothing_but_time(
    seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = "outage"
    make_topic(brokers.bootstrap, topic, 2)
    apply(registry, definitions(Shape.CLICKS, topic, "arrow"))
    platform = start_platform()
    generator = recent(Shape.CLICKS, seed)
    first, second = _messages(generator, 20), _messages(generator, 20)
    produce(brokers.bootstrap, topic, first)
    brokers.brokers[0].kill()
    time.sleep(0.5)  # readers and senders meet the dead broker
    assert platform.server.exit_code() is None
    brokers.restart(1)
    produce(brokers.bootstrap, topic, second)
    for key in ("user_id", "item_id"):
        expected = expected_of(platform, topic, "arrow", key)
        assert sum(one[0] for one in expected.values()) == 40 * EVENTS_PER_MESSAGE
        wait_served(platform, key, expected)


@pytest.mark.slow
def test_a_worker_that_stood_still_longer_than_its_session_changes_nothing(
    seed: int, brokers: Brokers, registry: str, start_platform: Callable[..., Platform]
) -> None:
    topic = "zombie"
    make_topic(brokers.bootstrap, topic, 2)
    apply(registry, definitions(Shape.CLICKS, topic, "arrow"))
    platform = start_platform()
    arguments = list(platform.worker.arguments)
    arguments[arguments.index("--data") + 1] = str(platform.folder / "second")
    second = ServerProcess("feature_server.pipeline.app", arguments, platform.folder / "second.log")
    generator = recent(Shape.CLICKS, seed)
    try:
        for _ in range(3):
            produce(brokers.bootstrap, topic, _messages(generator, 200))
            os.kill(platform.worker.pid, signal.SIGSTOP)
            if second.process is None:
                second.launch()
                second.wait_listening()
            produce(brokers.bootstrap, topic, _messages(generator, 200))
            time.sleep(15)  # beyond the session of 10 s, so that the second worker owns every partition
            os.kill(platform.worker.pid, signal.SIGCONT)
        for key in ("user_id", "item_id"):
            expected = expected_of(platform, topic, "arrow", key)
            wait_served(platform, key, expected)
    finally:
        second.stop()


def _messages(generator: Generator, count: int) -> list[tuple[int, bytes]]:
    return [(place % 2, arrow_message(generator.batch(EVENTS_PER_MESSAGE))) for place in range(count)]
