"""What of a stream cannot be used, kept with the reason; docs/decisions/0037-streams.md has the headers."""

from typing import Final, NamedTuple

from feature_server.pipeline.outbox import Headers
from feature_server.pipeline.topics import MESSAGE_BYTES_MAX

PAYLOAD_BYTES_MAX: Final = MESSAGE_BYTES_MAX - (64 << 10)  # room for headers and what Kafka adds
DETAIL_LENGTH_MAX: Final = 500
STAGE_DECODE: Final = "decode"
STAGE_APPLY: Final = "apply"


class DeadLetter(NamedTuple):
    """A message that was not used, or the rows of one. `payload` is what was read, or an Arrow stream of the rows."""

    topic: str
    partition: int
    offset: int
    reason: str
    detail: str
    payload: bytes
    stage: str = STAGE_DECODE

    def value(self) -> bytes:
        """Payload, cut where no topic would take it."""
        return self.payload[:PAYLOAD_BYTES_MAX]

    def headers(self, source: str) -> Headers:
        """Where it came from, and why it lies here."""
        return [
            ("source", source.encode()),
            ("topic", self.topic.encode()),
            ("partition", b"%d" % self.partition),
            ("offset", b"%d" % self.offset),
            ("reason", self.reason.encode()),
            ("detail", self.detail[:DETAIL_LENGTH_MAX].encode()),
            ("stage", self.stage.encode()),
            ("payload_bytes", b"%d" % len(self.payload)),
        ]
