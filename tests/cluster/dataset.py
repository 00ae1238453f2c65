"""Definitions and rows of the fault runs: every column of a row follows from its key and write number."""

import hashlib
import struct
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from headrace.convert.definitions import set_to_pb
from headrace.definitions import (
    Column,
    DefinitionSet,
    Entity,
    EntityKey,
    Feature,
    FeatureView,
    Source,
    SourceKind,
    latest,
)
from protos.common.v1 import value_pb2
from protos.control.v1 import definitions_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.cluster.history import Request, Seen, Write

ENTITY: Final = "faults.cluster.item"
VIEW: Final = "faults.cluster.numbers@v1"
FEATURES: Final = ("seq", "echo", "vector", "payload")
PAYLOAD_BYTES: Final = 200  # rows of about 350 bytes, as a view of 50 f32 has
EPOCH_US: Final = int(datetime(2020, 1, 1, tzinfo=UTC).timestamp() * 1_000_000)
_VECTOR_SIZE: Final = 4
_SEQ_BITS: Final = 21  # two million writes in a run; each is two seconds of event time after the last
TYPES: Final = {"seq": "i64", "echo": "string", "vector": f"list<f32,{_VECTOR_SIZE}>", "payload": "bytes"}


def definitions() -> definitions_pb2.DefinitionSet:
    """The entity, source and view that the runs write."""
    owner = "faults"
    columns = [Column("item_id", "i64"), Column("event_time", "timestamp_us")]
    columns += [Column(name, kind) for name, kind in TYPES.items()]
    source = Source(
        name="faults.cluster.pushed", owner=owner, kind=SourceKind.PUSH, columns=columns, event_time_column="event_time"
    )
    entity = Entity(name=ENTITY, owner=owner, join_keys=[EntityKey("item_id", "i64")])
    view = FeatureView(
        name=VIEW.partition("@")[0],
        owner=owner,
        entity=ENTITY,
        source=source.name,
        features=[Feature(name, kind, latest(name)) for name, kind in TYPES.items()],
    )
    return set_to_pb(DefinitionSet(sources=[source], entities=[entity], feature_views=[view]))


def write_request(request: Request, payload_bytes: int = PAYLOAD_BYTES) -> pb.WriteFeaturesRequest:
    """Message of a request of the history."""
    return pb.WriteFeaturesRequest(
        feature_view=VIEW,
        rows=[_row(write, payload_bytes) for write in request.writes],
        durability=pb.Durability.Value(f"DURABILITY_{request.durability}"),
        request_id=request.request,
    )


def read_request(keys: Sequence[int]) -> pb.GetOnlineFeaturesRequest:
    """Message that reads every column of the keys."""
    return pb.GetOnlineFeaturesRequest(
        features=[f"{VIEW}:{name}" for name in FEATURES],
        entity_columns=[pb.EntityColumn(join_key="item_id", int64_values=keys)],
        options=pb.ReadOptions(include_event_times=True),
    )


def seen_rows(keys: Sequence[int], answer: pb.GetOnlineFeaturesResponse) -> tuple[tuple[Seen, ...], frozenset[int]]:
    """Rows of an answer, and the keys that could not be read."""
    by_name = dict(zip(FEATURES, answer.columns, strict=True))
    statuses = by_name["seq"].statuses
    seqs = struct.unpack(f"<{len(keys)}q", by_name["seq"].values)
    times = struct.unpack(f"<{len(keys)}q", by_name["seq"].event_times)
    seen, unavailable = [], set()
    for row, key in enumerate(keys):
        state = statuses[row] & 0x0F
        if state == pb.VALUE_STATE_UNAVAILABLE:
            unavailable.add(key)
        elif state == pb.VALUE_STATE_MISSING:
            seen.append(Seen(key, None, -1))
        else:
            seen.append(Seen(key, seqs[row] if _is_whole(key, seqs[row], row, by_name) else -1, times[row]))
    return tuple(seen), frozenset(unavailable)


def event_time_us(seq: int, jitter: int) -> int:
    """Event time that no other write number gets, in the order of the numbers but for the jitter."""
    return EPOCH_US + ((seq + jitter) << _SEQ_BITS) + seq % (1 << _SEQ_BITS)


def payload(seq: int, size: int) -> bytes:
    """Bytes that do not compress, so that disk and cache fill as they would."""
    return hashlib.shake_128(seq.to_bytes(8, "little")).digest(size)


def vector(seq: int) -> tuple[float, ...]:
    """Small whole numbers: exact in f32."""
    return tuple(float(seq % 65_536 + index) for index in range(_VECTOR_SIZE))


def _is_whole(key: int, seq: int, row: int, columns: dict[str, pb.FeatureColumn]) -> bool:
    if any(column.statuses[row] != pb.VALUE_STATE_PRESENT for column in columns.values()):
        return False
    stored = _variable(columns["payload"], row)
    return (
        _variable(columns["echo"], row) == _echo(key, seq).encode()
        and stored == payload(seq, len(stored))
        and struct.unpack_from(f"<{_VECTOR_SIZE}f", columns["vector"].values, row * 4 * _VECTOR_SIZE) == vector(seq)
    )


def _variable(column: pb.FeatureColumn, row: int) -> bytes:
    start, end = struct.unpack_from("<2I", column.offsets, 4 * row)
    return column.values[start:end]


def _echo(key: int, seq: int) -> str:
    return f"{key}:{seq}"


def _row(write: Write, payload_bytes: int) -> pb.FeatureRow:
    row = pb.FeatureRow(entity_keys=[value_pb2.Value(int_value=write.key)])
    row.event_time.FromMicroseconds(write.event_us)
    row.values["seq"].int_value = write.seq
    row.values["echo"].string_value = _echo(write.key, write.seq)
    row.values["vector"].list_value.values.extend(value_pb2.Value(float_value=item) for item in vector(write.seq))
    row.values["payload"].bytes_value = payload(write.seq, payload_bytes)
    return row
