"""Messages of the log of rows: what a write is on its way to every copy of its shard.

Value: an Arrow IPC stream of one batch. Headers, numbers as decimal text: `layout` 1; `kind`; `views`, ids with commas
between; `revision` of the registry that the writer knew. By kind the batch has
- rows: the columns of a write of the one view; order and write time are given by the place in the log
- replay: the same and the columns of an order that rows were given before
- events: columns of a source with POSITION and WRITE_TIME, and the headers `source`, `source_id`, `source_partition`;
  each of the views takes its own columns
- erase: encoded keys of one entity in KEY; each of the views forgets them
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, NamedTuple

import pyarrow as pa

from feature_server.domain.write_columns import read_ipc
from headrace.errors import DataLoss, InvalidArgument

KEY: Final = "_key"
POSITION: Final = "_position"
WRITE_TIME: Final = "_write_us"
OFFSET_BITS: Final = 20  # of the row in its message, below the offset of the message
ROWS_MAX: Final = 1_024  # of one message
LOG_MESSAGE: Final = "LOG_MESSAGE"  # reason of an error: the message is none, at every copy alike
_LAYOUT: Final = b"1"

Headers = Sequence[tuple[str, bytes]]


class Kind(StrEnum):
    """What a message brings."""

    ROWS = "rows"
    REPLAY = "replay"
    EVENTS = "events"
    ERASE = "erase"


class Origin(NamedTuple):
    """Where events come from."""

    source: str
    source_id: int
    partition: int


class Logged(NamedTuple):
    """A message as the log gives it. `write_us` is when the broker took it."""

    offset: int
    write_us: int
    value: bytes
    headers: Headers


@dataclass(frozen=True, slots=True)
class LogMessage:
    """One message. `origin` is that of events."""

    kind: Kind
    views: Sequence[int]
    revision: int
    batch: pa.RecordBatch
    origin: Origin | None = None

    def headers(self) -> Headers:
        """What stands beside the value."""
        return log_headers(self.kind, self.views, self.revision, self.origin)

    def value(self) -> bytes:
        """The batch as bytes."""
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.batch.schema) as writer:
            writer.write_batch(self.batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data


def log_headers(kind: Kind, views: Sequence[int], revision: int, origin: Origin | None = None) -> Headers:
    """Headers of a message."""
    headers = [
        ("layout", _LAYOUT),
        ("kind", kind.encode()),
        ("views", ",".join(map(str, views)).encode()),
        ("revision", b"%d" % revision),
    ]
    if origin is not None:
        headers += [
            ("source", origin.source.encode()),
            ("source_id", b"%d" % origin.source_id),
            ("source_partition", b"%d" % origin.partition),
        ]
    return headers


def read_message(logged: Logged) -> LogMessage:
    """The message of a place. Raises DataLoss where somebody else wrote it, or it was damaged."""
    known = dict(logged.headers)
    try:
        if known["layout"] != _LAYOUT:
            raise ValueError(f"its layout is {known['layout']!r}")
        kind = Kind(known["kind"].decode())
        views = [int(one) for one in known["views"].split(b",")]
        origin = None
        if kind is Kind.EVENTS:
            origin = Origin(known["source"].decode(), int(known["source_id"]), int(known["source_partition"]))
        (batch,) = read_ipc(logged.value)
        if not 0 < batch.num_rows <= ROWS_MAX:
            raise ValueError(f"it has {batch.num_rows} rows")
        return LogMessage(kind, views, int(known["revision"]), batch, origin)
    except (KeyError, ValueError, InvalidArgument, pa.ArrowException) as error:
        raise DataLoss(f"a message of the log is damaged: {error}", reason=LOG_MESSAGE) from error
