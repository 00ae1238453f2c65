"""Messages of keyed topics: an Arrow IPC stream of events of one source partition, in the order of their positions.

Columns: those of the source that its views read, and POSITION and WRITE_TIME. A position is the offset of the source
message in 43 bits and the row in it in 20, so that positions of a source partition only rise.
Headers: `source`, its name; `source_id`; `source_partition`, numbers as decimal text.
"""

from typing import Final, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from feature_server.domain import log_messages
from feature_server.domain.write_columns import read_ipc
from feature_server.pipeline.consumer import NO_TIME, Event
from feature_server.pipeline.outbox import Headers
from headrace.errors import DataLoss, InvalidArgument

POSITION: Final = log_messages.POSITION
WRITE_TIME: Final = log_messages.WRITE_TIME
ROW_BITS: Final = 20
ROWS_MAX: Final = log_messages.ROWS_MAX  # of one message: what a shard commits at once


class KeyedEvents(NamedTuple):
    """Events of one message, each with the time that the broker of its source gave it, or else that of this topic."""

    source: str
    source_id: int
    partition: int
    batch: pa.RecordBatch
    positions: NDArray[np.int64]
    write_us: NDArray[np.int64]


def positions_of(offsets: NDArray[np.int64], rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Positions of rows in messages at offsets."""
    return (offsets << ROW_BITS) | rows


def headers_of(source: str, source_id: int, partition: int) -> Headers:
    """Headers of a message."""
    return [
        ("source", source.encode()),
        ("source_id", b"%d" % source_id),
        ("source_partition", b"%d" % partition),
    ]


def write_keyed(batch: pa.RecordBatch) -> bytes:
    """Value of a message."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_keyed(event: Event) -> KeyedEvents:
    """Events of a message. Raises DataLoss where somebody else wrote it, or it was damaged."""
    try:
        known = dict(event.headers)
        source = known["source"].decode()
        source_id, partition = int(known["source_id"]), int(known["source_partition"])
        (batch,) = read_ipc(event.value)
        positions = batch.column(POSITION).to_numpy()
        write_us = batch.column(WRITE_TIME).to_numpy()
        if positions.dtype != np.int64 or write_us.dtype != np.int64 or np.any(np.diff(positions) <= 0):
            raise ValueError("its positions do not rise")
    except (KeyError, ValueError, InvalidArgument, pa.ArrowException) as error:
        raise DataLoss(f"a message of a keyed topic is damaged: {error}", reason="KEYED_MESSAGE") from error
    kept = [name for name in batch.schema.names if name not in {POSITION, WRITE_TIME}]
    write_us = np.where(write_us == NO_TIME, event.write_us, write_us)
    return KeyedEvents(source, source_id, partition, batch.select(kept), positions, write_us)
