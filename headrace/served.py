"""Served answers on their way to the offline store: the columns of one, and the frames that carry them."""

import struct
from collections.abc import Iterator
from typing import Final, NamedTuple

import pyarrow as pa

from core_ext.hashing import crc32c
from headrace.errors import DataLoss

NO_ROW_US: Final = -(2**63)  # event time of an answer that no row gave
TRACE_BYTES: Final = 16
FRAME_BYTES_MAX: Final = 64 << 20

COLUMNS: Final = pa.schema([
    pa.field("served_time", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("entity_key", pa.binary(), nullable=False),
    pa.field("feature", pa.string(), nullable=False),  # view@vN:feature
    pa.field("status", pa.int32(), nullable=False),
    pa.field("value", pa.binary(), nullable=False),  # canonical bytes, empty in an empty slot
    pa.field("row_event_time_us", pa.int64()),  # of the row that gave it; null where it was not logged
    pa.field("shard", pa.int32(), nullable=False),
    pa.field("shard_epoch", pa.int64(), nullable=False),
    pa.field("applied_offset", pa.int64(), nullable=False),
    pa.field("registry_revision", pa.int64(), nullable=False),
    pa.field("transform_digest", pa.binary(), nullable=False),
    pa.field("feature_service", pa.string()),  # name@vN; null where a list of features was read
    pa.field("trace_id", pa.binary()),  # 16 bytes; null where the read was not traced
])  # fmt: skip

_MAGIC: Final = b"HRSV"
_HEAD: Final = struct.Struct("<4sIqI")  # magic, bytes of the Arrow stream, number of its first answer, answers
_CHECKSUM: Final = struct.Struct("<I")  # CRC-32C of head and stream
FRAME_HEAD_BYTES: Final = _HEAD.size + _CHECKSUM.size


class Frame(NamedTuple):
    """Answers `first` to `first + row_count` of one epoch as an Arrow IPC stream, and where the frame ends."""

    first: int
    row_count: int
    stream: memoryview
    end: int


def encode_frame(first: int, row_count: int, stream: bytes) -> bytes:
    """One frame."""
    head = _HEAD.pack(_MAGIC, len(stream), first, row_count)
    return head + _CHECKSUM.pack(crc32c(stream, crc32c(head))) + stream


def whole_frames(data: bytes, at: int = 0) -> Iterator[Frame]:
    """Frames from a place on; ends before one that is cut or broken."""
    view = memoryview(data)
    while at + FRAME_HEAD_BYTES <= len(data):
        magic, byte_count, first, row_count = _HEAD.unpack_from(data, at)
        begin = at + FRAME_HEAD_BYTES
        end = begin + byte_count
        if magic != _MAGIC or byte_count > FRAME_BYTES_MAX or end > len(data):
            return
        checksum = crc32c(data[begin:end], crc32c(data[at : at + _HEAD.size]))
        if (checksum,) != _CHECKSUM.unpack_from(data, at + _HEAD.size):
            return
        yield Frame(first, row_count, view[begin:end], end)
        at = end


def frames_of(data: bytes) -> list[Frame]:
    """All frames of a message; raises DataLoss where anything is left over."""
    frames = list(whole_frames(data))
    if (frames[-1].end if frames else 0) != len(data):
        raise DataLoss("a log of served answers arrived damaged", reason="SERVED_LOG_CORRUPT")
    return frames


def encode_rows(rows: pa.Table) -> bytes:
    """Rows as an Arrow IPC stream; columns may be encoded by dictionaries."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    stream: bytes = sink.getvalue().to_pybytes()
    return stream


def decode_rows(stream: bytes | memoryview) -> pa.Table:
    """Rows of a frame in the form of COLUMNS; raises DataLoss for what is none."""
    try:
        with pa.ipc.open_stream(stream) as reader:
            return reader.read_all().select(COLUMNS.names).cast(COLUMNS)
    except (pa.ArrowException, KeyError, ValueError, OSError) as error:
        raise DataLoss(f"a frame holds no served answers: {error}", reason="SERVED_LOG_CORRUPT") from error
