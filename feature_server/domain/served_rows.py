"""Rows of the log of served answers, made of the records that the request core hands over."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.keys import shard_of_slot, slot_of_key
from core_ext.served_ring import HEAD_BYTES, UNKNOWN_TIME_US
from core_ext.served_slots import TEXTS, read_slots
from feature_server.domain.selected import AnyColumn, SelectedColumn
from feature_server.domain.selection import Prepared
from headrace.served import COLUMNS, TRACE_BYTES
from headrace.types import Shape, ValueType

_HEAD: Final = struct.Struct("<4I2Q32s16s")
_NO_TRACE: Final = bytes(TRACE_BYTES)

assert _HEAD.size == HEAD_BYTES, "native/hr_served.h draws the record"


@dataclass(frozen=True, slots=True)
class ServedRead:
    """One record, taken apart. Keys lie at [lookup * row_count + row], event times at [group * row_count + row]."""

    handle: bytes
    trace_id: bytes
    row_count: int
    applied: NDArray[np.int64]  # epoch and offset per shard
    event_times_us: NDArray[np.int64]
    keys: Sequence[bytes]  # empty where the read named no entity
    answer: bytes


def read_record(record: bytes) -> ServedRead:
    """A record of core_ext.served_ring."""
    rows, lookups, groups, shards, key_bytes, answer_bytes, handle, trace_id = _HEAD.unpack_from(record)
    at = HEAD_BYTES
    applied = np.frombuffer(record, "<i8", 2 * shards, at).reshape(shards, 2)
    at += applied.nbytes
    times = np.frombuffer(record, "<i8", groups * rows, at)
    at += times.nbytes
    ends = np.frombuffer(record, "<u4", lookups * rows, at).tolist()
    at += 4 * len(ends)
    keys = [record[at + begin : at + end] for begin, end in zip([0, *ends], ends, strict=False)]
    begin = at + key_bytes
    return ServedRead(handle, trace_id, rows, applied, times, keys, record[begin : begin + answer_bytes])


class Selection:
    """What the rows of every read of one selection have in common."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        self.kinds = np.array([_kind(column.value_type) for column in prepared.columns], np.int32)
        self.is_logged = np.array([_goes_offline(column) for column in prepared.columns], np.bool_)
        self.lookups = np.where(self.is_logged, prepared.lookups, 0)
        self.groups = np.where(self.is_logged, prepared.groups, 0)

    @cached_property
    def features(self) -> pa.Array:
        """Reference of each column."""
        return pa.array([column.reference for column in self.prepared.columns], pa.string())

    @cached_property
    def digests(self) -> pa.Array:
        """Transform digest of each column's view."""
        return pa.array([column.view.transform_digest for column in self.prepared.columns], pa.binary())


def served_rows(reads: Sequence[ServedRead], selection: Selection) -> pa.Table:
    """One row per value, read after read and column after column, as COLUMNS has them, some as dictionaries.

    Values that were read without an entity key are of no entity, and are left out; so are those computed on demand,
    whose request data is not logged, and those of views that stay online. Raises MalformedAnswerError.
    """
    if not selection.is_logged.any():
        return COLUMNS.empty_table()
    slots = [read_slots(read.answer, selection.kinds) for read in reads]
    columns = len(selection.kinds)
    counts = np.array([columns * read.row_count for read in reads], np.int64)
    read_of = np.repeat(np.arange(len(reads)), counts)
    place, key_at, time_at = _places(reads, selection)
    keys = [key for read in reads for key in read.keys]
    shards = np.array([_shard_of(key, len(reads[0].applied)) for key in keys], np.int32)[key_at]
    applied = np.stack([read.applied for read in reads])[read_of, shards]
    times = np.concatenate([read.event_times_us for read in reads])[time_at]
    statuses = np.frombuffer(b"".join(part[0] for part in slots), np.uint8)
    revisions, read_times = (np.repeat(np.array([part[at] for part in slots], np.int64), counts) for at in (4, 5))
    traces = [None if read.trace_id == _NO_TRACE else read.trace_id for read in reads]
    table = pa.Table.from_arrays(
        [
            pa.array(read_times).cast(COLUMNS.field("served_time").type),
            pa.DictionaryArray.from_arrays(pa.array(key_at.astype(np.int32)), pa.array(keys, pa.binary())),
            pa.DictionaryArray.from_arrays(pa.array(place), selection.features),
            pa.array(statuses.astype(np.int32)),
            _binary(slots),
            pa.array(times, pa.int64(), mask=times == UNKNOWN_TIME_US),
            pa.array(shards),
            pa.array(np.ascontiguousarray(applied[:, 0])),
            pa.array(np.ascontiguousarray(applied[:, 1])),
            pa.array(revisions),
            pa.DictionaryArray.from_arrays(pa.array(place), selection.digests),
            pa.repeat(pa.scalar(selection.prepared.feature_service or None, pa.string()), len(place)),
            pa.array(traces, pa.binary()).take(pa.array(read_of)),
        ],
        names=COLUMNS.names,
    )
    has_key = np.array([bool(key) for key in keys])
    if has_key.all() and selection.is_logged.all():
        return table
    return table.filter(pa.array(has_key[key_at] & selection.is_logged[place]))


def _goes_offline(column: AnyColumn) -> bool:
    return isinstance(column, SelectedColumn) and column.view.definition.offline


def _kind(value_type: ValueType) -> int:
    """Kind of a column for core_ext.served_slots."""
    if value_type.shape is Shape.VARIABLE and not value_type.element_bytes:
        return TEXTS
    return value_type.slot_bytes  # 0: VARIABLE


def _places(
    reads: Sequence[ServedRead], selection: Selection
) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int64]]:
    """Of every value its column, and where its key and its event time lie among those of all reads."""
    place, key_at, time_at = [], [], []
    key_start = time_start = 0
    for read in reads:
        rows = np.arange(read.row_count)
        place.append(np.repeat(np.arange(len(selection.kinds), dtype=np.int32), read.row_count))
        key_at.append((key_start + selection.lookups[:, np.newaxis] * read.row_count + rows).ravel())
        time_at.append((time_start + selection.groups[:, np.newaxis] * read.row_count + rows).ravel())
        key_start += len(read.keys)
        time_start += len(read.event_times_us)
    return np.concatenate(place), np.concatenate(key_at), np.concatenate(time_at)


def _shard_of(key: bytes, shard_count: int) -> int:
    return shard_of_slot(slot_of_key(key), shard_count) if key else 0


def _binary(slots: Sequence[tuple[bytes, bytes, bytes, int, int, int]]) -> pa.Array:
    lengths = np.frombuffer(b"".join(part[1] for part in slots), "<u4")
    offsets = np.zeros(len(lengths) + 1, np.int32)
    np.cumsum(lengths, out=offsets[1:])
    data = b"".join(part[2] for part in slots)
    return pa.Array.from_buffers(pa.binary(), len(lengths), [None, pa.py_buffer(offsets), pa.py_buffer(data)])
