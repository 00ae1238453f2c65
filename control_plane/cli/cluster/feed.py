"""Sends events of sources to their topics when they happen."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import pyarrow as pa
from confluent_kafka import KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from control_plane.cli.cluster.live_year import SourceEvents
from headrace.errors import Unavailable

ROWS_MAX: Final = 1_000  # of one message
FLUSH_LIMIT_S: Final = 30.0
# One partition each: events of equal times of one entity keep the order in which they were sent.
PARTITIONS: Final = 1
_SETTINGS: Final = {"message.timestamp.type": "LogAppendTime"}


def make_topics(bootstrap: str, topics: Sequence[str], replicas: int) -> None:
    """Makes topics of sources. Raises Unavailable."""
    client = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    wanted = [NewTopic(topic, PARTITIONS, replicas, config=_SETTINGS) for topic in topics]
    try:
        for made in client.create_topics(wanted, operation_timeout=FLUSH_LIMIT_S).values():
            made.result(FLUSH_LIMIT_S)
    except KafkaException as error:
        raise Unavailable(f"topics could not be made: {error.args[0]}", reason="KAFKA_UNAVAILABLE") from error


class Feed:
    """Owns the producer; used by one thread."""

    def __init__(self, bootstrap: str, sources: Sequence[SourceEvents], topics: Mapping[str, str]) -> None:
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "enable.idempotence": True, "linger.ms": 0, "log_level": 0}
        )
        self._sources = sources
        self._topics = topics
        self._on_sent: Callable[[str, pa.Table], None] = lambda _source, _rows: None
        self.event_count = 0

    def tell(self, on_sent: Callable[[str, pa.Table], None]) -> None:
        """Calls this with what was sent of a source, from now on."""
        self._on_sent = on_sent

    def send_until(self, today_us: int) -> int:
        """Sends what has happened, and waits until the brokers have it; gives the number of events."""
        count = 0
        for events in self._sources:
            for part in events.until(today_us, ROWS_MAX):
                self._producer.produce(self._topics[events.source.name], _message(part), partition=0)
                self._producer.poll(0)
                self._on_sent(events.source.name, part)
                count += len(part)
        if count and self._producer.flush(FLUSH_LIMIT_S):
            raise Unavailable(
                f"events did not arrive in {FLUSH_LIMIT_S:.0f} s; look into the log of Kafka",
                reason="KAFKA_UNAVAILABLE",
            )
        self.event_count += count
        return count

    def next_us(self) -> int | None:
        """When the next event happens; None after the last."""
        times = [at for at in (events.next_us() for events in self._sources) if at is not None]
        return min(times, default=None)


def now_us() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


def _message(rows: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return bytes(sink.getvalue())
