"""Rows on their way into the log of a ring: a write waits until every broker has acknowledged all of its messages."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from feature_server.domain.logged_writes import ToShard
from feature_server.domain.shard import Position
from feature_server.domain.shard_writes import Durability
from feature_server.pipeline import outbox
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.rows_topic import RowsTopicState
from headrace.errors import FailedPrecondition, ResourceExhausted, Unavailable

LINGER_MS: Final = 1
DELIVERY_MS: Final = 10_000  # of one message, tries included: what comes later than that is of no use to a writer
WAIT_S: Final = DELIVERY_MS / 1_000 + 2
UNSENT_BYTES_MAX: Final = 64 << 20
POLL_S: Final = 0.05
RETRY_MS: Final = 1_000
STOP_WAIT_S: Final = 10.0


def settings(cluster: Cluster) -> dict[str, str | int | float | bool]:
    """Settings of a producer of writes that do not wait for each other: one that fails stops no other."""
    return {
        **outbox.settings(cluster),
        "enable.gapless.guarantee": False,
        "linger.ms": LINGER_MS,
        "message.timeout.ms": DELIVERY_MS,
        "queue.buffering.max.kbytes": UNSENT_BYTES_MAX >> 10,
    }


class RowsOutbox:
    """Satisfies RowsLog. Any thread may append; one of its own hears what was acknowledged."""

    def __init__(
        self,
        make: Callable[[], Producer],
        topic: Callable[[], RowsTopicState],
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._make = make
        self._topic = topic
        self._clock_s = clock_s
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows-outbox", daemon=True)
        self.message_count = 0
        self.failed_count = 0

    def start(self) -> None:
        """Begins to hear."""
        self._thread.start()

    def close(self) -> None:
        """Ends; who still waits is told that it failed."""
        self._stop.set()
        self._thread.join(STOP_WAIT_S)

    def check(self, durability: Durability) -> None:
        """Whether the topic keeps what is asked; MEMORY is served as LOG."""
        if durability is Durability.FSYNC and not self._topic().is_flushed:
            raise FailedPrecondition(
                f"brokers acknowledge rows before they are on their disks; ask for LOG, or set flush.messages=1 on "
                f"topic {self._topic().name!r}",
                reason="FSYNC_NOT_OFFERED",
                field="durability",
            )

    def append(self, messages: Sequence[ToShard]) -> list[Position]:
        """Sends all, and returns once all are acknowledged."""
        state = self._topic()
        delivery = _Delivery(len(messages))
        for number, (shard, message) in enumerate(messages):
            self._send(state.name, shard, message.value(), message.headers(), delivery.told(number))
        offsets = delivery.wait(self._clock_s() + WAIT_S, self._clock_s)
        self.message_count += len(messages)
        if delivery.error is not None:
            self.failed_count += 1
            if delivery.error.fatal():
                self._drop()
            raise Unavailable(
                f"the log did not acknowledge the rows: {delivery.error}; they may be in it all the same: write them "
                "again with the same request_id",
                reason="KAFKA_UNAVAILABLE",
                retry_after_ms=RETRY_MS,
            )
        return [Position(shard, state.epoch, offset) for (shard, _), offset in zip(messages, offsets, strict=True)]

    def _send(self, topic: str, shard: int, value: bytes, headers: outbox.Headers, told: Callable[..., None]) -> None:
        try:
            self._open().produce(topic, value, partition=shard, headers=list(headers), on_delivery=told)
        except BufferError as error:
            raise ResourceExhausted(
                f"{UNSENT_BYTES_MAX >> 20} MiB of rows are on their way into the log already; try again",
                reason="TOO_MANY_ROWS_UNSENT",
                retry_after_ms=RETRY_MS,
            ) from error
        except KafkaException as error:
            self._drop()
            raise Unavailable(
                f"rows were not taken by the log: {error.args[0]}", reason="KAFKA_UNAVAILABLE", retry_after_ms=RETRY_MS
            ) from error

    def _open(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = self._make()
            return self._producer

    def _drop(self) -> None:
        """A producer that has failed for good sends nothing more: the next write makes another."""
        with self._lock:
            self._producer = None

    def _run(self) -> None:
        while not self._stop.is_set():
            producer = self._producer
            if producer is None:
                self._stop.wait(POLL_S)
            else:
                producer.poll(POLL_S)
        if self._producer is not None:
            self._producer.flush(POLL_S)


class _Delivery:
    """What is known of the messages of one write."""

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._left = count
        self._offsets = [-1] * count
        self.error: KafkaError | None = None

    def told(self, number: int) -> Callable[[KafkaError | None, Message], None]:
        """What is to be called with the end of a message."""

        def end(error: KafkaError | None, message: Message) -> None:
            with self._condition:
                self._left -= 1
                if error is not None:
                    self.error = error
                else:
                    self._offsets[number] = message.offset() or 0
                if not self._left:
                    self._condition.notify_all()

        return end

    def wait(self, end_s: float, clock_s: Callable[[], float]) -> Sequence[int]:
        """Offsets once all have an end. After that time they count as failed."""
        with self._condition:
            while self._left:
                left_s = end_s - clock_s()
                if left_s <= 0:
                    self.error = self.error or KafkaError(KafkaError._TIMED_OUT)
                    break
                self._condition.wait(left_s)
            return self._offsets
