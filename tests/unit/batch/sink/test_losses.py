"""What the sink does about messages that are gone and reads that break off: nothing is passed over in silence."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from batch.offline.catalogue import Catalogue
from batch.offline.positions import LogRange
from batch.sink.sink import REFRESH_S, Sink
from batch.sink.streams import stream_of
from headrace.errors import DataLoss, Unavailable
from tests.unit.batch.offline.parts import catalogue_of
from tests.unit.batch.sink.mock_topic import Mock, MockTopic, order, places, sink_all, source

ROUNDS = 3


class Parts:
    """A sink with its catalogue, its cluster and its clock."""

    def __init__(self, folder: Path) -> None:
        self.now_s = 0.0
        self.mock = Mock()
        self.catalogue: Catalogue = catalogue_of(folder)
        self.sink: Sink = self.mock.sink(self.catalogue, clock_s=lambda: self.now_s)
        self.table = self.catalogue.event_table(stream_of(source()).columns)

    @property
    def topic(self) -> MockTopic:
        topic = self.sink._topic
        assert isinstance(topic, MockTopic)
        return topic

    def rows(self) -> list[dict[str, Any]]:  # Any: values of rows
        found: list[dict[str, Any]] = self.table.read().read_all().to_pylist()
        return found

    def move(self, partition: int, first: int, end: int) -> None:
        """The table's position, by hand."""
        empty = stream_of(source()).columns.arrow.empty_table()
        self.table.append(empty, [LogRange("mock-1", partition, 0, first, end)])

    def assert_lost(self, offset: int) -> None:
        for _ in range(ROUNDS):
            with pytest.raises(DataLoss, match=f"no longer holds offset {offset}") as caught:
                self.sink.cycle()
            assert caught.value.reason == "EVENTS_LOST"


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    made = Parts(tmp_path)
    yield made
    made.sink.close()
    made.catalogue.close()


def lose(topic: MockTopic) -> None:
    topic.lose(0)


def fail(topic: MockTopic) -> None:
    topic.fail()


@pytest.mark.parametrize(("fault", "kind"), [(lose, DataLoss), (fail, Unavailable)])
def test_messages_that_were_read_before_an_error_are_read_again(
    parts: Parts, fault: Callable[[MockTopic], None], kind: type[Exception]
) -> None:
    parts.mock.send(0, order(0), order(1))
    parts.mock.send(1, order(2), order(3))
    sink_all(parts.sink)
    fault(parts.topic)
    parts.mock.send(1, order(4), order(5))
    with pytest.raises(kind):
        parts.sink.cycle()
    parts.mock.send(0, order(6), order(7))
    parts.mock.send(1, order(8))
    if kind is DataLoss:
        parts.move(0, 2, 3)  # its message 2 is the one that is gone
    sink_all(parts.sink)
    gone = {(0, 2, 0)} if kind is DataLoss else set()
    every = {(0, offset, 0) for offset in range(4)} | {(1, offset, 0) for offset in range(5)}
    assert places(parts.rows()) == sorted(every - gone)


def test_partition_that_stopped_is_told_in_every_round_though_its_log_grows(parts: Parts) -> None:
    parts.mock.send(0, order(0), order(1))
    sink_all(parts.sink)
    parts.topic.lose(0)
    parts.mock.send(1, order(2))
    parts.assert_lost(2)
    parts.mock.send(0, order(3), order(4))
    parts.assert_lost(2)
    assert places(parts.rows()) == [(0, 0, 0), (0, 1, 0)]


def test_loss_of_a_partition_that_the_table_had_nothing_of_is_told_in_every_round(parts: Parts) -> None:
    parts.mock.send(1, order(0))
    sink_all(parts.sink)
    parts.mock.send(0, order(1), order(2))
    parts.topic.lows[0] = 1
    parts.topic.lose(0)
    parts.assert_lost(0)
    parts.move(0, 0, 1)
    sink_all(parts.sink)
    assert places(parts.rows()) == [(0, 1, 0), (1, 0, 0)]


def test_shorter_log_that_grows_past_the_table_stays_an_alarm(parts: Parts) -> None:
    parts.move(0, 0, 2)
    parts.mock.send(0, order(0))
    parts.assert_lost(2)
    parts.mock.send(0, order(1), order(2))
    parts.assert_lost(2)


def test_topic_that_was_made_anew_under_a_running_sink_is_read_from_its_beginning(parts: Parts) -> None:
    parts.mock.send(0, order(0), order(1))
    sink_all(parts.sink)
    parts.topic.made = "mock-2"
    parts.mock.send(0, order(2))  # as many as before, and one more
    parts.now_s += REFRESH_S
    sink_all(parts.sink)
    ranges = [LogRange(log, 0, 0, 0, 0) for log in ("mock-1", "mock-2")]
    assert [parts.table.position(one).next_offset for one in ranges] == [2, 3]
    assert sorted(row["user_id"] for row in parts.rows()) == [0, 0, 1, 1, 2]


@pytest.mark.parametrize(
    ("time_ms", "has_time"),
    [
        (1_767_225_600_000, True),
        (253_402_300_799_999, True),
        (253_402_300_800_000, False),
        (1_767_225_600_000_000, False),  # microseconds for milliseconds
        (1_767_225_600_000_000_000, False),  # nanoseconds
    ],
)
def test_broker_time_beyond_every_calendar_is_none(parts: Parts, time_ms: int, has_time: bool) -> None:
    parts.mock.send(0, order(0), time_ms=time_ms)
    (done,) = sink_all(parts.sink)
    assert (done.row_count, len(done.rejected)) == (1, 0)
    assert (parts.rows()[0]["_write_time"] is not None) == has_time
