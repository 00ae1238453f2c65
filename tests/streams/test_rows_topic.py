"""The log of a ring on a real broker: made once, known again, and refused where it is none."""

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from feature_server.domain.log_writes import is_log_epoch
from feature_server.pipeline.clusters import Cluster
from feature_server.pipeline.rows_topic import RowsTopic
from feature_server.ring.log import LogRange
from headrace.errors import FailedPrecondition, Unavailable
from tests.cluster.processes import wait_for
from tests.streams.platform import make_topic
from tools.kafka import Brokers

SHARDS = 4
LIMIT_S = 20.0


def topic_of(brokers: Brokers, prefix: str, shard_count: int = SHARDS, replicas: int = 1) -> RowsTopic:
    return RowsTopic(Cluster(brokers.bootstrap, prefix=prefix), shard_count, replicas)


def reason_of(topic: RowsTopic) -> str:
    with pytest.raises(FailedPrecondition) as error:
        topic.find()
    with pytest.raises(FailedPrecondition):
        topic.state()
    return error.value.reason


def range_of(topic: RowsTopic, shard: int) -> LogRange | None:
    """What is told of a partition, None before its leader is known."""
    try:
        return topic.range(shard)
    except Unavailable:
        return None


def test_who_comes_second_finds_the_log_that_the_first_has_made(brokers: Brokers) -> None:
    first, second = topic_of(brokers, "twice."), topic_of(brokers, "twice.")
    with pytest.raises(Unavailable):
        first.state()
    assert first.find() == second.find() == second.state()
    assert is_log_epoch(first.state().epoch) and not first.state().is_flushed


def test_the_range_of_a_shard_is_what_its_partition_keeps(brokers: Brokers) -> None:
    topic = topic_of(brokers, "range.")
    topic.find()
    wait_for(lambda: range_of(topic, 2) == LogRange(0, 0), LIMIT_S)
    producer = Producer({"bootstrap.servers": brokers.bootstrap})
    for _ in range(5):
        producer.produce(topic.name, b"x", partition=2)
    assert producer.flush(LIMIT_S) == 0
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap})
    for cut in admin.delete_records([TopicPartition(topic.name, 2, 3)]).values():
        cut.result(LIMIT_S)
    assert topic.range(2) == LogRange(3, 5)
    wait_for(lambda: range_of(topic, 1) == LogRange(0, 0), LIMIT_S)
    topic.close()


def test_a_log_that_was_made_anew_has_another_epoch(brokers: Brokers) -> None:
    topic = topic_of(brokers, "anew.")
    before = topic.find()
    admin = AdminClient({"bootstrap.servers": brokers.bootstrap})
    admin.delete_topics([topic.name])[topic.name].result(LIMIT_S)
    assert topic.find().epoch != before.epoch


def test_a_topic_of_other_partitions_or_settings_is_no_log(brokers: Brokers) -> None:
    topic_of(brokers, "parts.").find()
    assert reason_of(topic_of(brokers, "parts.", SHARDS * 2)) == "ROWS_PARTITIONS"
    make_topic(brokers.bootstrap, "compact.rows.ring", SHARDS, **{"cleanup.policy": "compact"})
    assert reason_of(topic_of(brokers, "compact.")) == "ROWS_TOPIC_SETTINGS"


def test_more_replicas_than_brokers_are_refused_with_what_to_do(brokers: Brokers) -> None:
    assert reason_of(topic_of(brokers, "many.", replicas=3)) == "ROWS_REPLICAS"


def test_a_topic_that_flushes_each_message_promises_fsync(brokers: Brokers) -> None:
    make_topic(brokers.bootstrap, "flushed.rows.ring", SHARDS, **{"flush.messages": "1"})
    assert topic_of(brokers, "flushed.").find().is_flushed
