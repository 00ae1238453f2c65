"""Topics of the pipeline and how they are made; partitions follow the slots of keys."""

import time
from collections.abc import Sequence
from typing import Final

import numpy as np
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic
from numpy.typing import NDArray

from core_ext.hashing import SLOT_COUNT
from feature_server.pipeline.clusters import Cluster
from headrace.errors import FailedPrecondition, HeadraceError, Unavailable

MESSAGE_BYTES_MAX: Final = 32 << 20  # of one message of the pipeline, and of an event that is read
RETENTION_MS: Final = 7 * 24 * 3_600 * 1_000
ASK_LIMIT_S: Final = 15.0
WAIT_STEP_S: Final = 0.1
_U64: Final = (1 << 64) - 1
_LOG_APPEND: Final = {"message.timestamp.type": "LogAppendTime"}


def partitions_of(slots: NDArray[np.uint16], partition_count: int) -> NDArray[np.int64]:
    """Partitions of slots; a partition owns a range of slots, as a shard does."""
    found: NDArray[np.int64] = slots.astype(np.int64) * partition_count // SLOT_COUNT
    return found


def shard_of_partition(partition: int, partition_count: int, shard_count: int) -> int:
    """The shard that owns every slot of a partition."""
    return partition * shard_count // partition_count


def check_partitions(topic: str, partition_count: int, shard_count: int) -> None:
    """Raises FailedPrecondition unless every partition of a keyed topic lies in one shard."""
    is_power = partition_count > 0 and not partition_count & (partition_count - 1)
    if not is_power or not shard_count <= partition_count <= SLOT_COUNT:
        raise FailedPrecondition(
            f"topic {topic!r} has {partition_count} partitions and the store {shard_count} shards: it needs a power of "
            f"two of partitions, at least as many as shards and at most {SLOT_COUNT}; make the topic anew",
            reason="KEYED_PARTITIONS",
            metadata={"topic": topic, "partitions": str(partition_count), "shards": str(shard_count)},
        )


def make_topics(client: AdminClient, cluster: Cluster, keyed: Sequence[str], dead_letters: Sequence[str]) -> None:
    """Makes the topics that are missing, and waits until they are there. Raises Unavailable.

    The broker gives messages of keyed topics their time, so that no clock of a worker enters a row.
    """
    known = _counts(client)
    settings = {"max.message.bytes": str(MESSAGE_BYTES_MAX), "retention.ms": str(RETENTION_MS)}
    wanted = [
        NewTopic(topic, cluster.partition_count, cluster.replicas, config={**settings, **_LOG_APPEND})
        for topic in keyed
        if topic not in known
    ]
    wanted += [NewTopic(topic, 1, cluster.replicas, config=settings) for topic in dead_letters if topic not in known]
    if not wanted:
        return
    for topic, made in client.create_topics(wanted, operation_timeout=ASK_LIMIT_S).items():
        try:
            made.result(ASK_LIMIT_S)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise unavailable(f"topic {topic!r} could not be made", error) from error
    deadline = time.monotonic() + ASK_LIMIT_S
    while not {*keyed, *dead_letters} <= _counts(client).keys():
        if time.monotonic() > deadline:
            raise Unavailable("topics that were made do not appear", reason="KAFKA_UNAVAILABLE")
        time.sleep(WAIT_STEP_S)


def check_rows_topic(client: AdminClient, cluster: Cluster) -> None:
    """Raises Unavailable before a server of the ring has made the topic, FailedPrecondition for another ring."""
    count = _counts(client).get(cluster.rows)
    if count is None:
        raise Unavailable(
            f"topic {cluster.rows!r} is not there yet: start the feature servers of the ring",
            reason="KAFKA_UNAVAILABLE",
        )
    if count != cluster.ring_shards:
        raise FailedPrecondition(
            f"topic {cluster.rows!r} has {count} partitions, and --ring-shards is {cluster.ring_shards}: give the "
            "shards of the ring",
            reason="ROWS_PARTITIONS",
            field="ring_shards",
            metadata={"partitions": str(count), "shards": str(cluster.ring_shards)},
        )


def partition_counts(client: AdminClient, topics: Sequence[str]) -> dict[str, int]:
    """Partitions of those of the topics that exist. Raises Unavailable."""
    found = _counts(client)
    return {topic: found[topic] for topic in topics if topic in found}


def topic_id(given: object) -> bytes:
    """Id of a topic, which one of the same name that is made later does not have, of what describes it."""
    low, high = given.get_least_significant_bits(), given.get_most_significant_bits()  # type: ignore[attr-defined]
    return ((int(high) & _U64) << 64 | int(low) & _U64).to_bytes(16, "big")


def unavailable(what: str, error: KafkaException) -> HeadraceError:
    """Our error for one of Kafka's."""
    return Unavailable(f"{what}: {error.args[0]}", reason="KAFKA_UNAVAILABLE")


def _counts(client: AdminClient) -> dict[str, int]:
    try:
        topics = client.list_topics(timeout=ASK_LIMIT_S).topics
    except KafkaException as error:
        raise unavailable("Kafka does not answer", error) from error
    return {name: len(topic.partitions) for name, topic in topics.items() if topic.error is None and topic.partitions}
