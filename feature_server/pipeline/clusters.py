"""A Kafka cluster as the pipeline reaches it: addresses, how to be let in, and how its topics are named and made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PARTITION_COUNT: Final = 64  # of keyed topics: as many as a ring has shards by default
REPLICAS: Final = 1
RECONNECT_MS_MAX: Final = 1_000  # a broker that is back is found as soon
KEYED: Final = "keyed"
DEAD_LETTERS: Final = "deadletter"
ROWS: Final = "rows.ring"


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster and how topics are made on it. `prefix` keeps several installations apart on one.

    `access` are settings of librdkafka that say how to be let in. With `ring_shards` events go to the log of a ring of
    so many shards, else to keyed topics.
    """

    bootstrap: str
    partition_count: int = PARTITION_COUNT
    replicas: int = REPLICAS
    prefix: str = ""
    access: Mapping[str, str] = field(default_factory=dict)
    ring_shards: int = 0

    @property
    def client(self) -> dict[str, str | int | float | bool]:
        """Settings that every client has; errors come by the queues, and are logged as events."""
        return {
            **self.access,
            "bootstrap.servers": self.bootstrap,
            "reconnect.backoff.max.ms": RECONNECT_MS_MAX,
            "log_level": 0,
        }

    @property
    def rows(self) -> str:
        """Topic of the rows of a ring, partitioned by shard."""
        return f"{self.prefix}{ROWS}"

    def keyed(self, entity: str) -> str:
        """Topic of the events of an entity, partitioned by slot."""
        return f"{self.prefix}{KEYED}.{entity}"

    def dead_letters(self, source: str) -> str:
        """Topic of what of a source could not be used."""
        return f"{self.prefix}{DEAD_LETTERS}.{source}"

    def group(self, source: str) -> str:
        """Consumer group that reads a source."""
        return f"{self.prefix}headrace.{source}"
