"""Batches of events as the values of messages."""

import json
from collections.abc import Iterator

import pyarrow as pa


def arrow_message(batch: pa.RecordBatch) -> bytes:
    """One Arrow IPC stream with all events."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    data: bytes = sink.getvalue().to_pybytes()
    return data


def json_messages(batch: pa.RecordBatch) -> Iterator[bytes]:
    """One object per event; times are whole microseconds."""
    place = batch.schema.get_field_index("event_time")
    plain = batch.set_column(place, "event_time", batch.column(place).cast(pa.int64()))
    for event in plain.to_pylist():
        yield json.dumps(event, ensure_ascii=False, separators=(",", ":")).encode()
