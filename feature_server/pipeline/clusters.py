"""A Kafka cluster as the pipeline reaches it: addresses, how to be let in, and how its topics are named and made."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from headrace.errors import InvalidArgument

PARTITION_COUNT: Final = 64  # of keyed topics: as many as a ring has shards by default
REPLICAS: Final = 1
RECONNECT_MS_MAX: Final = 1_000  # a broker that is back is found as soon
KEYED: Final = "keyed"
DEAD_LETTERS: Final = "deadletter"
ROWS: Final = "rows.ring"
_ALLOWED: Final = ("security.", "sasl.", "ssl.", "client.id", "broker.address.family", "client.dns.lookup")
_FORBIDDEN: Final = ("sasl.login", "ssl.engine", "ssl.provider")  # what loads code of somebody else


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


def read_access(path: Path | None) -> dict[str, str]:
    """Settings of a file with a line `name=value` each, such as security.protocol and sasl.password."""
    if path is None:
        return {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidArgument(f"{path} cannot be read", reason="KAFKA_ACCESS_FILE", field="kafka_access") from error
    found = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        name, is_pair, value = (part.strip() for part in line.partition("="))
        if not is_pair or not name.startswith(_ALLOWED) or name.startswith(_FORBIDDEN):
            raise InvalidArgument(
                f"line {number} of {path} is no setting that lets a client in; give security.*, sasl.* and ssl.*",
                reason="KAFKA_ACCESS_FILE",
                field="kafka_access",
                metadata={"line": str(number)},
            )
        found[name] = value
    return found
