"""The topic that is the log of a ring: one partition per shard, written by servers and workers alone."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import ConfigResource
from confluent_kafka.cimpl import NewTopic

from feature_server.domain.log_writes import log_epoch
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.consumer import settings
from feature_server.pipeline.topics import ASK_LIMIT_S, MESSAGE_BYTES_MAX, topic_id, unavailable
from feature_server.ring.log import LogRange
from headrace.errors import FailedPrecondition, HeadraceError, Unavailable

REPLICAS: Final = 3
RETENTION_S: Final = 7 * 24 * 3_600
RANGE_LIMIT_S: Final = 1.0  # of one question: heartbeats wait behind it
RANGE_RETRY_S: Final = 2.0
RETRY_MS: Final = 1_000
APPEAR_STEP_S: Final = 0.1
_PURPOSE: Final = "rows"


@dataclass(frozen=True, slots=True)
class RowsTopicState:
    """The topic as the cluster describes it. `epoch` tells it from one of the same name that was made later.

    `is_flushed` says whether a message is on the disk of its brokers before it is acknowledged.
    """

    name: str
    epoch: int
    is_flushed: bool


class RowsTopic:
    """What is known of the topic, and what its partitions hold. Safe to share between threads."""

    def __init__(
        self,
        cluster: Cluster,
        shard_count: int,
        replicas: int = REPLICAS,
        retention_s: int = RETENTION_S,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = cluster.rows
        self._cluster = cluster
        self._shard_count = shard_count
        self._replicas = replicas
        self._retention_s = retention_s
        self._clock_s = clock_s
        self._state: RowsTopicState | None = None
        self._unknown: HeadraceError = Unavailable(
            f"topic {self.name!r} is not found yet; try again", reason="KAFKA_UNAVAILABLE", retry_after_ms=RETRY_MS
        )
        self._lock = threading.Lock()
        self._client: Consumer | None = None
        self._failure: HeadraceError | None = None
        self._retry_s = 0.0

    def find(self) -> RowsTopicState:
        """Finds the topic, or makes it; takes a while, and changes what `state` gives.

        Raises Unavailable, and FailedPrecondition for a topic that is no log.
        """
        try:
            self._state = self._found()
        except Unavailable as error:
            self._unknown = error  # what was found before holds until the cluster says otherwise
            raise
        except HeadraceError as error:
            self._state, self._unknown = None, error
            raise
        return self._state

    def state(self) -> RowsTopicState:
        """What was found; raises at once where nothing was, or why not."""
        if self._state is None:
            raise self._unknown
        return self._state

    def range(self, shard: int) -> LogRange:
        """What the partition of a shard holds now. Raises Unavailable, at once where it did a moment ago."""
        name = self.state().name
        with self._lock:
            if self._failure is not None and self._clock_s() < self._retry_s:
                raise self._failure
            self._client = self._client or Consumer(settings(self._cluster, self._cluster.group(_PURPOSE)))
            try:
                low, high = self._client.get_watermark_offsets(TopicPartition(name, shard), timeout=RANGE_LIMIT_S)
            except KafkaException as error:
                self._failure = unavailable(f"{name!r} does not tell its offsets", error)
                self._retry_s = self._clock_s() + RANGE_RETRY_S
                raise self._failure from error
            return LogRange(int(low), int(high))

    def close(self) -> None:
        """Closes its client."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None

    def _found(self) -> RowsTopicState:
        admin = AdminClient(self._cluster.client)
        name = self.name
        try:
            if name not in admin.list_topics(timeout=ASK_LIMIT_S).topics:
                self._make(admin)
            found = admin.describe_topics(TopicCollection([name]), request_timeout=ASK_LIMIT_S)[name].result()
            resource = ConfigResource(ConfigResource.Type.TOPIC, name)
            config = admin.describe_configs([resource], request_timeout=ASK_LIMIT_S)[resource].result()
        except KafkaException as error:
            raise unavailable(f"topic {name!r} cannot be described", error) from error
        values = {key: entry.value for key, entry in config.items()}
        self._check(len(found.partitions), values)
        return RowsTopicState(name, log_epoch(topic_id(found.topic_id)), values.get("flush.messages") == "1")

    def _check(self, partition_count: int, values: dict[str, str]) -> None:
        if partition_count != self._shard_count:
            raise FailedPrecondition(
                f"topic {self.name!r} has {partition_count} partitions, and the ring {self._shard_count} shards: each "
                "shard needs one of its own; give the ring another --topic-prefix, or make the topic anew",
                reason="ROWS_PARTITIONS",
                metadata={"partitions": str(partition_count), "shards": str(self._shard_count)},
            )
        wanted = {"message.timestamp.type": "LogAppendTime", "cleanup.policy": "delete"}
        wrong = [f"{key}={values.get(key)}" for key, value in wanted.items() if values.get(key) != value]
        if wrong:
            raise FailedPrecondition(
                f"topic {self.name!r} has {', '.join(wrong)}, and is no log of rows: set message.timestamp.type="
                "LogAppendTime and cleanup.policy=delete",
                reason="ROWS_TOPIC_SETTINGS",
                metadata={"topic": self.name},
            )

    def _make(self, admin: AdminClient) -> None:
        config = {
            "message.timestamp.type": "LogAppendTime",
            "cleanup.policy": "delete",
            "retention.ms": str(self._retention_s * 1_000),
            "max.message.bytes": str(MESSAGE_BYTES_MAX),
            "min.insync.replicas": str(max(1, self._replicas - 1)),
            "unclean.leader.election.enable": "false",
        }
        topic = NewTopic(self.name, self._shard_count, self._replicas, config=config)
        try:
            admin.create_topics([topic], operation_timeout=ASK_LIMIT_S)[self.name].result(ASK_LIMIT_S)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR:
                raise FailedPrecondition(
                    f"the cluster has too few brokers for {self._replicas} replicas of {self.name!r}; start more, or "
                    "say how many rows may be lost with: --rows-replicas 1",
                    reason="ROWS_REPLICAS",
                    field="rows_replicas",
                ) from error
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise
        end_s = self._clock_s() + ASK_LIMIT_S
        while self.name not in admin.list_topics(timeout=ASK_LIMIT_S).topics:
            if self._clock_s() > end_s:
                raise Unavailable(f"topic {self.name!r} was made and does not appear", reason="KAFKA_UNAVAILABLE")
            time.sleep(APPEAR_STEP_S)
