"""How a client is let into a Kafka cluster: settings of librdkafka from a file."""

from pathlib import Path
from typing import Final

from headrace.errors import InvalidArgument

_ALLOWED: Final = ("security.", "sasl.", "ssl.", "client.id", "broker.address.family", "client.dns.lookup")
_FORBIDDEN: Final = ("sasl.login", "ssl.engine", "ssl.provider")  # what loads code of somebody else


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
