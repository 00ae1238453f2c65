"""Writes on their way into the log of a ring, over producers that are full, refuse, or fail for good."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pytest
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from feature_server.domain.log_messages import Kind, LogMessage
from feature_server.domain.logged_writes import ToShard, small_batches
from feature_server.domain.shard import Position
from feature_server.pipeline.rows_outbox import WAIT_S, WRITERS_MAX, RowsOutbox
from feature_server.pipeline.rows_topic import RowsTopicState
from headrace.errors import ResourceExhausted, Unavailable

LIMIT_S = 30.0
STATE = RowsTopicState("rows.ring", 7, is_flushed=False)
FATAL = KafkaError(KafkaError._FATAL, "out of order", fatal=True)
REFUSED = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "too large")


class Delivered:
    """A message with its place."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


class FakeProducer:
    """Takes what its script says, and acknowledges what was taken when it is polled."""

    def __init__(self, *script: Exception | None) -> None:
        self.script = list(script)
        self.holds = False
        self.offset: int | None = 0
        self.error: KafkaError | None = None
        self._told: list[Callable[[KafkaError | None, Message], None]] = []
        self._lock = threading.Lock()

    def produce(self, topic: str, value: bytes, *, partition: int, headers: Any, on_delivery: Any) -> None:
        assert (topic, partition) == (STATE.name, 3)
        refusal = self.script.pop(0) if self.script else None
        if refusal is not None:
            raise refusal
        with self._lock:
            self._told.append(on_delivery)

    def poll(self, timeout_s: float) -> int:
        if self.holds:
            threading.Event().wait(timeout_s)
            return 0
        with self._lock:
            told, self._told = self._told, []
        for one in told:
            one(self.error, cast(Message, Delivered(self.offset)))
            self.offset = None if self.offset is None else self.offset + 1
        return len(told)

    def flush(self, timeout_s: float) -> int:
        return self.poll(timeout_s)

    def __len__(self) -> int:
        return len(self._told)


class Clock:
    """Moves by a step with every look."""

    def __init__(self, step_s: float = 0.0) -> None:
        self.now_s = 0.0
        self._step_s = step_s

    def __call__(self) -> float:
        self.now_s += self._step_s
        return self.now_s


@contextmanager
def outbox_over(*producers: FakeProducer, clock: Clock | None = None) -> Iterator[RowsOutbox]:
    made = iter(producers)
    outbox = RowsOutbox(lambda: cast(Producer, next(made)), lambda: STATE, clock or Clock())
    outbox.start()
    try:
        yield outbox
    finally:
        outbox.close()


def messages(count: int) -> Sequence[ToShard]:
    batch = pa.RecordBatch.from_pydict({"user_id": [1]})
    return [ToShard(3, LogMessage(Kind.ROWS, [1], 1, batch)) for _ in range(count)]


def test_a_write_waits_for_room() -> None:
    with outbox_over(FakeProducer(None, BufferError(), BufferError(), None)) as outbox:
        assert outbox.append(messages(2)) == [Position(3, 7, 0), Position(3, 7, 1)]


@pytest.mark.parametrize(
    ("script", "kind", "said"),
    [
        ((), ResourceExhausted, "on their way into the log already; try again"),
        ((None,), Unavailable, "they may be in it all the same"),
    ],
)
def test_a_write_that_finds_no_room_says_whether_some_of_it_was_sent(
    script: Sequence[None], kind: type[Exception], said: str
) -> None:
    full = FakeProducer(*script, *[BufferError()] * 100)
    with outbox_over(full, clock=Clock(WAIT_S / 10)) as outbox, pytest.raises(kind, match=said):
        outbox.append(messages(2))


def test_a_message_that_is_refused_leaves_the_producer_to_the_others() -> None:
    first = FakeProducer(None, KafkaException(REFUSED))
    with outbox_over(first) as outbox:
        with pytest.raises(Unavailable, match="they may be in it all the same"):
            outbox.append(messages(2))
        assert outbox.append(messages(1)) == [Position(3, 7, 1)]


def test_of_a_producer_that_failed_for_good_the_others_still_hear() -> None:
    first, second = FakeProducer(None, KafkaException(FATAL), KafkaException(FATAL)), FakeProducer()
    first.holds = True
    found: list[list[Position]] = []
    with outbox_over(first, second) as outbox:
        waiting = threading.Thread(target=lambda: found.append(outbox.append(messages(1))))
        waiting.start()
        while not len(first):
            threading.Event().wait(0.001)
        failed = outbox._open()
        for _ in range(2):
            with pytest.raises(Unavailable):
                outbox._is_sent(
                    failed, STATE.name, 3, messages(1)[0].message, lambda error, message: None, is_first=True
                )
        assert outbox.append(messages(1)) == [Position(3, 7, 0)], "by the second, which the second failure left alone"
        first.holds = False
        waiting.join(LIMIT_S)
    assert found == [[Position(3, 7, 0)]]


def test_an_acknowledgement_without_an_offset_is_none() -> None:
    producer = FakeProducer()
    producer.offset = None
    with outbox_over(producer) as outbox, pytest.raises(Unavailable, match="they may be in it all the same"):
        outbox.append(messages(1))


def test_more_writers_than_may_wait_are_refused() -> None:
    producer = FakeProducer()
    producer.holds = True
    with outbox_over(producer) as outbox:
        writers = [threading.Thread(target=outbox.append, args=(messages(1),)) for _ in range(WRITERS_MAX)]
        for writer in writers:
            writer.start()
        while len(producer) < WRITERS_MAX:
            threading.Event().wait(0.001)
        with pytest.raises(ResourceExhausted, match="wait for the log already"):
            outbox.append(messages(1))
        producer.holds = False
        for writer in writers:
            writer.join(LIMIT_S)
            assert not writer.is_alive()


def test_what_a_caller_wrote_beside_the_columns_is_not_logged() -> None:
    batch = pa.RecordBatch.from_pydict({"user_id": [1, 2]}).replace_schema_metadata({"note": "x" * 1_000})
    (part,) = small_batches(batch, np.array([1]))
    assert part.schema.metadata is None
    assert part.to_pydict() == {"user_id": [2]}
