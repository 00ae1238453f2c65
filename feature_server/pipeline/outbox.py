"""Messages on their way to Kafka: bounded, in order, and known to have arrived before their events are committed."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.topics import MESSAGE_BYTES_MAX, unavailable
from headrace.errors import HeadraceError, Unavailable

UNSENT_BYTES_MAX: Final = 64 << 20  # in memory; beyond it nothing more is taken until some have arrived
UNSENT_MESSAGES_MAX: Final = 50_000
LINGER_MS: Final = 5  # what a message may wait for others of its partition
DELIVERY_MS: Final = 120_000  # of one message, tries included; then the worker begins again from what was committed
FLUSH_STEP_S: Final = 0.05

Headers = Sequence[tuple[str, bytes]]


def settings(cluster: Cluster) -> dict[str, str | int | float | bool]:
    """Settings of a producer whose messages keep their order: after one that fails, none follows."""
    return {
        **cluster.client,
        "enable.idempotence": True,
        "enable.gapless.guarantee": True,
        "acks": "all",
        "compression.type": "lz4",
        "linger.ms": LINGER_MS,
        "batch.size": 1 << 20,
        "message.max.bytes": MESSAGE_BYTES_MAX,
        "message.timeout.ms": DELIVERY_MS,
        "queue.buffering.max.messages": 2 * UNSENT_MESSAGES_MAX,
        "queue.buffering.max.kbytes": 4 * UNSENT_BYTES_MAX >> 10,
    }


class Parcel:
    """What one batch of events became; `done` is called once all of its messages have arrived."""

    __slots__ = ("done", "unsent_count")

    def __init__(self, done: Callable[[], None]) -> None:
        self.done = done
        self.unsent_count = 0


class Outbox:
    """Sends parcels and reports them in their order. One thread uses it."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._parcels: deque[Parcel] = deque()
        self._unsent_bytes = 0
        self._unsent_count = 0
        self._error: HeadraceError | None = None

    @property
    def is_full(self) -> bool:
        """Whether to wait before the next parcel."""
        return self._unsent_bytes >= UNSENT_BYTES_MAX or self._unsent_count >= UNSENT_MESSAGES_MAX

    def open(self, done: Callable[[], None]) -> Parcel:
        """A parcel for the messages of one batch; close it when all are sent."""
        return Parcel(done)

    def send(self, parcel: Parcel, topic: str, partition: int, value: bytes, headers: Headers) -> None:
        """Sends one message of a parcel. Raises Unavailable after a failure."""
        self._check()
        size = len(value)
        parcel.unsent_count += 1
        self._unsent_count += 1
        self._unsent_bytes += size

        def arrived(error: KafkaError | None, _: Message) -> None:
            self._unsent_count -= 1
            self._unsent_bytes -= size
            if error is None:
                parcel.unsent_count -= 1
            elif self._error is None:
                self._error = unavailable(f"a message to {topic!r} did not arrive", KafkaException(error))

        try:
            self._producer.produce(topic, value, partition=partition, headers=list(headers), on_delivery=arrived)
        except (BufferError, KafkaException) as error:
            self._error = Unavailable(f"a message to {topic!r} was not taken: {error}", reason="KAFKA_UNAVAILABLE")
            raise self._error from error

    def close(self, parcel: Parcel) -> None:
        """All messages of the parcel are on their way."""
        self._parcels.append(parcel)

    def poll(self, wait_s: float = 0.0) -> None:
        """Takes in what has arrived. Raises Unavailable after a failure."""
        self._producer.poll(wait_s)
        self._check()
        while self._parcels and not self._parcels[0].unsent_count:
            self._parcels.popleft().done()

    def flush(self, limit_s: float, clock_s: Callable[[], float]) -> bool:
        """Waits until all parcels have arrived; False where the time ran out."""
        end_s = clock_s() + limit_s
        while self._parcels or self._unsent_count:
            if clock_s() > end_s:
                return False
            self.poll(FLUSH_STEP_S)
        return True

    def drop(self) -> None:
        """Forgets parcels whose events belong to others now; their messages may still arrive, and change nothing."""
        self._parcels.clear()

    def _check(self) -> None:
        if self._error is not None:
            raise self._error
