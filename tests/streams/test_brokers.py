"""The brokers of tools/kafka.py: a folder keeps a cluster over its lives, and three survive the death of one."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from tests.streams.fold import read_topic
from tools.kafka import BrokerError, Brokers

ROOT = Path(__file__).parent.parent.parent
LIMIT_S = 60.0


def test_the_program_starts_a_broker_keeps_its_data_and_stops_on_a_signal(tmp_path: Path) -> None:
    data = tmp_path / "kafka"
    command = [sys.executable, "-m", "tools.kafka", "--data", str(data)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().strip()
        assert said.startswith("kafka: 127.0.0.1:"), said
        bootstrap = said.removeprefix("kafka: ")
        make(bootstrap, "kept", 1)
        send(bootstrap, "kept", b"value")
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(LIMIT_S) == 0
    with pytest.raises(BrokerError, match="3 are asked for"):
        Brokers(data, 3)
    with Brokers(data, 1) as brokers:
        assert brokers.bootstrap == bootstrap
        assert [message.value for message in read_topic(bootstrap, "kept")] == [b"value"]


@pytest.mark.slow
def test_three_brokers_take_messages_while_one_is_dead(tmp_path: Path) -> None:
    with Brokers(tmp_path / "kafka", 3) as brokers:
        make(brokers.bootstrap, "replicated", 3)
        for number in range(3):
            send(brokers.bootstrap, "replicated", b"before")
            brokers.brokers[number].kill()
            send(brokers.bootstrap, "replicated", b"without")
            brokers.restart(number + 1)
        assert len(read_topic(brokers.bootstrap, "replicated")) == 6


def make(bootstrap: str, topic: str, replicas: int) -> None:
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_topics([NewTopic(topic, 1, replicas)])[topic].result(LIMIT_S)


def send(bootstrap: str, topic: str, value: bytes) -> None:
    """With acks of all replicas in sync."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "message.timeout.ms": 60_000, "log_level": 0})
    producer.produce(topic, value, partition=0)
    assert producer.flush(LIMIT_S) == 0
