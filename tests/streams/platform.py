"""The processes of a stream test: worker and feature server, killed and started again, beside one control plane."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pyarrow as pa
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

from headrace.client import Client, RegistryClient
from headrace.definitions import DefinitionSet
from tests.cluster.processes import ServerProcess, free_port, wait_for

PARTITION_COUNT: Final = 8  # of keyed topics: as many as an embedded store has shards
APPLY_LIMIT_S: Final = 60.0
FLUSH_LIMIT_S: Final = 30.0


@dataclass(slots=True)
class Platform:
    """One worker and one feature server on folders of their own."""

    folder: Path
    bootstrap: str
    registry: str
    prefix: str
    options: Sequence[str] = ()
    worker: ServerProcess = field(init=False)
    server: ServerProcess = field(init=False)
    address: str = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        shared = ["--kafka", self.bootstrap, "--registry", self.registry, "--topic-prefix", self.prefix]
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        worker = ["--data", str(self.folder / "worker"), "--partitions", str(PARTITION_COUNT), *shared]
        server = ["--data", str(self.folder / "store"), "--port", str(port), *shared, *self.options]
        self.worker = ServerProcess("feature_server.pipeline.app", worker, self.folder / "worker.log")
        self.server = ServerProcess("feature_server.app", server, self.folder / "server.log")

    def start(self) -> None:
        """Starts both and waits until they listen."""
        for process in (self.worker, self.server):
            process.launch()
        for process in (self.worker, self.server):
            process.wait_listening()

    def stop(self) -> None:
        """Ends what still runs."""
        for process in (self.worker, self.server):
            process.stop()

    def tails(self) -> str:
        """Ends of both logs."""
        return f"worker:\n{self.worker.tail()}\nserver:\n{self.server.tail()}"

    def read(self, features: Sequence[str], keys: dict[str, list[int | str]]) -> pa.Table:
        """Features of entities, as they are served now."""
        with Client(self.address) as client:
            prepared = client.prepare(features=features)
            return client.get_online_features(prepared, entities=keys, timeout_s=10).to_arrow()

    def wait(self, holds: Callable[[], bool], limit_s: float = APPLY_LIMIT_S) -> None:
        """Returns when the condition holds; shows both logs where it does not in time."""
        wait_for(holds, limit_s, self.tails)


def apply(registry: str, definitions: DefinitionSet) -> None:
    """Registers definitions."""
    with RegistryClient(registry) as client:
        client.apply(definitions)


def make_topic(bootstrap: str, name: str, partitions: int, **settings: str) -> None:
    """A source topic; the broker's clock gives the write times."""
    client = AdminClient({"bootstrap.servers": bootstrap})
    config = {"message.timestamp.type": "LogAppendTime", "max.message.bytes": str(32 << 20), **settings}
    client.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(30)


def produce(bootstrap: str, topic: str, messages: Sequence[tuple[int, bytes]]) -> None:
    """Sends values to partitions, and waits until all have arrived."""
    producer = Producer({"bootstrap.servers": bootstrap, "linger.ms": 5, "message.max.bytes": 40 << 20})
    for partition, value in messages:
        producer.produce(topic, value, partition=partition)
        producer.poll(0)
    assert producer.flush(FLUSH_LIMIT_S) == 0
