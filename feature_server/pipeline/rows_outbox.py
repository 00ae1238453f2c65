"""Rows on their way into the log of a ring: a write waits until every broker has acknowledged all of its messages."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from feature_server.domain.log_messages import LogMessage
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
WRITERS_MAX: Final = 8  # that wait at a time: half of the threads, so that peers are answered while brokers are not
WRITER_WAIT_S: Final = 0.5
ROOM_S: Final = 0.01  # between two looks whether the producer has room again
POLL_S: Final = 0.05
RETRY_MS: Final = 1_000
STOP_WAIT_S: Final = 10.0

Told: TypeAlias = Callable[[KafkaError | None, Message], None]
"""What is to be called with the end of a message."""


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
        self._writers = threading.BoundedSemaphore(WRITERS_MAX)
        self._producer: Producer | None = None
        self._retired: list[Producer] = []  # that sent for others too, who wait to hear of it
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="rows-outbox", daemon=True)
        self.message_count = 0
        self.failed_count = 0

    def start(self) -> None:
        """Begins to hear."""
        self._thread.start()

    def close(self) -> None:
        """Ends; who still waits hears nothing more, and gives up at its time."""
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
        if not self._writers.acquire(timeout=WRITER_WAIT_S):
            raise ResourceExhausted(
                f"{WRITERS_MAX} writes wait for the log already; try again",
                reason="TOO_MANY_WRITES",
                retry_after_ms=RETRY_MS,
            )
        try:
            return self._append(messages)
        finally:
            self._writers.release()

    def _append(self, messages: Sequence[ToShard]) -> list[Position]:
        state = self._topic()
        end_s = self._clock_s() + WAIT_S
        delivery = _Delivery(len(messages))
        producer = self._open()
        for number, (shard, message) in enumerate(messages):
            told = delivery.told(number)
            while not self._is_sent(producer, state.name, shard, message, told, is_first=number == 0):
                if self._clock_s() >= end_s:
                    raise _no_room() if number == 0 else _unacknowledged(KafkaError(KafkaError._QUEUE_FULL))
                self._stop.wait(ROOM_S)
        offsets = delivery.wait(end_s, self._clock_s)
        self.message_count += len(messages)
        if delivery.error is not None:
            self.failed_count += 1
            if delivery.error.fatal():
                self._drop(producer)
            raise _unacknowledged(delivery.error)
        return [Position(shard, state.epoch, offset) for (shard, _), offset in zip(messages, offsets, strict=True)]

    def _is_sent(
        self, producer: Producer, topic: str, shard: int, message: LogMessage, told: Told, *, is_first: bool
    ) -> bool:
        """False where the producer has no room now."""
        try:
            producer.produce(topic, message.value(), partition=shard, headers=list(message.headers()), on_delivery=told)
        except BufferError:
            return False
        except KafkaException as error:
            if error.args[0].fatal():
                self._drop(producer)
            if not is_first:
                raise _unacknowledged(error.args[0]) from error
            raise Unavailable(
                f"rows were not taken by the log: {error.args[0]}", reason="KAFKA_UNAVAILABLE", retry_after_ms=RETRY_MS
            ) from error
        return True

    def _open(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = self._make()
            return self._producer

    def _drop(self, failed: Producer) -> None:
        """A producer that has failed for good sends nothing more: the next write makes another."""
        with self._lock:
            if self._producer is failed:
                self._producer = None
                self._retired.append(failed)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                retired = self._retired = [producer for producer in self._retired if len(producer)]
                producer = self._producer
            for one in retired:
                one.poll(0)
            if producer is None:
                self._stop.wait(POLL_S)
            else:
                producer.poll(POLL_S)
        if self._producer is not None:
            self._producer.flush(POLL_S)


def _no_room() -> ResourceExhausted:
    return ResourceExhausted(
        f"{UNSENT_BYTES_MAX >> 20} MiB of rows are on their way into the log already; try again",
        reason="TOO_MANY_ROWS_UNSENT",
        retry_after_ms=RETRY_MS,
    )


def _unacknowledged(error: KafkaError) -> Unavailable:
    return Unavailable(
        f"the log did not acknowledge the rows: {error}; they may be in it all the same: rows may be written again, "
        "and events of windows would then count twice",
        reason="KAFKA_UNAVAILABLE",
        retry_after_ms=RETRY_MS,
    )


class _Delivery:
    """What is known of the messages of one write."""

    def __init__(self, count: int) -> None:
        self._condition = threading.Condition()
        self._left = count
        self._offsets = [-1] * count
        self.error: KafkaError | None = None

    def told(self, number: int) -> Told:
        """What is to be called with the end of a message."""

        def end(error: KafkaError | None, message: Message) -> None:
            with self._condition:
                self._left -= 1
                if error is not None:
                    self.error = error
                elif (offset := message.offset()) is None or offset < 0:
                    self.error = KafkaError(KafkaError._NO_OFFSET)  # a token of it would promise nothing
                else:
                    self._offsets[number] = offset
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
