"""Rows of the log of served answers, made of the records that the request core hands over."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.answers import OFFSETS, STATUSES, VALUES, Answer
from core_ext.keys import shard_of_slot, slot_of_key
from core_ext.rules import DEFAULTED, EXPIRED, PRESENT, STATE_MASK, WITHHELD
from core_ext.served_ring import HEAD_BYTES, UNKNOWN_TIME_US
from feature_server.domain.selection import Prepared, SelectedColumn
from headrace.served import COLUMNS, TRACE_BYTES
from headrace.types import Shape, ValueType

_HEAD: Final = struct.Struct("<4I2Q32s16s")
_COUNT: Final = struct.Struct("<I")
_NO_TRACE: Final = bytes(TRACE_BYTES)

assert _HEAD.size == HEAD_BYTES, "native/hr_served.h draws the record"


@dataclass(frozen=True, slots=True)
class ServedRead:
    """One record, taken apart. Keys lie at [lookup * row_count + row], event times at [group, row]; () is no key."""

    handle: bytes
    trace_id: bytes
    row_count: int
    applied: NDArray[np.int64]  # epoch and offset per shard
    event_times_us: NDArray[np.int64]
    keys: Sequence[bytes]
    answer: bytes


def read_record(record: bytes) -> ServedRead:
    """A record of core_ext.served_ring."""
    rows, lookups, groups, shards, key_bytes, answer_bytes, handle, trace_id = _HEAD.unpack_from(record)
    at = HEAD_BYTES
    applied = np.frombuffer(record, "<i8", 2 * shards, at).reshape(shards, 2)
    at += applied.nbytes
    times = np.frombuffer(record, "<i8", groups * rows, at).reshape(groups, rows)
    at += times.nbytes
    ends = np.frombuffer(record, "<u4", lookups * rows, at).tolist()
    at += 4 * len(ends)
    keys = [record[at + begin : at + end] for begin, end in zip([0, *ends], ends, strict=False)]
    begin = at + key_bytes
    answer = record[begin : begin + answer_bytes]
    return ServedRead(handle, trace_id, rows, applied, times, keys, answer)


@dataclass(frozen=True, slots=True)
class _Slots:
    """Values of columns one after the other: a status each, its bytes in `data` up to its end."""

    statuses: NDArray[np.uint8]
    lengths: NDArray[np.int64]
    data: bytes


def served_rows(read: ServedRead, prepared: Prepared) -> pa.Table:
    """One row per value, column after column, with the columns of COLUMNS, some of them as dictionaries.

    Rows without an entity key name no entity and are left out.
    """
    answer = Answer(read.answer)
    columns, rows = prepared.columns, read.row_count
    slots = _all_slots(answer, columns)
    lookups, groups = prepared.lookups, prepared.groups
    key_at = _spread(lookups, rows)
    keys = pa.array(read.keys, pa.binary())
    shards = np.array([_shard_of(key, len(read.applied)) for key in read.keys], np.int32)[key_at]
    times = read.event_times_us[np.repeat(groups, rows), np.tile(np.arange(rows), len(columns))]
    count = len(key_at)
    place = np.repeat(np.arange(len(columns), dtype=np.int32), rows)
    digests = list(dict.fromkeys(column.view.transform_digest for column in columns))
    digest_at = np.array([digests.index(column.view.transform_digest) for column in columns], np.int32)[place]
    table = pa.Table.from_arrays(
        [
            _repeated(answer.read_time_us, count, pa.int64()).cast(COLUMNS.field("served_time").type),
            pa.DictionaryArray.from_arrays(pa.array(key_at.astype(np.int32)), keys),
            _named(place, [column.reference for column in columns], pa.string()),
            pa.array(slots.statuses.astype(np.int32)),
            _binary(slots),
            pa.array(times, pa.int64(), mask=times == UNKNOWN_TIME_US),
            pa.array(shards),
            pa.array(read.applied[shards, 0]),
            pa.array(read.applied[shards, 1]),
            _repeated(answer.registry_revision, count, pa.int64()),
            _named(digest_at, digests, pa.binary()),
            _repeated(prepared.feature_service or None, count, pa.string()),
            _repeated(None if read.trace_id == _NO_TRACE else read.trace_id, count, pa.binary()),
        ],
        names=COLUMNS.names,
    )
    has_key = np.array([bool(key) for key in read.keys])
    return table if has_key.all() else table.filter(pa.array(has_key[key_at]))


def _spread(numbers: Sequence[int], rows: int) -> NDArray[np.int64]:
    """Places [number * rows + row] of every column's rows."""
    starts = np.array(numbers, np.int64)[:, np.newaxis] * rows
    return np.asarray(starts + np.arange(rows), np.int64).ravel()


def _shard_of(key: bytes, shard_count: int) -> int:
    return shard_of_slot(slot_of_key(key), shard_count) if key else 0


def _named(places: NDArray[np.int32], names: Sequence[object], kind: pa.DataType) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(places), pa.array(names, kind))


def _repeated(value: object, count: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), count)


def _binary(slots: _Slots) -> pa.Array:
    offsets = np.zeros(len(slots.lengths) + 1, np.int32)
    np.cumsum(slots.lengths, out=offsets[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(slots.lengths), [None, pa.py_buffer(offsets), pa.py_buffer(slots.data)]
    )


def _all_slots(answer: Answer, columns: Sequence[SelectedColumn]) -> _Slots:
    blocks = answer.blocks
    parts = [_slots(answer, blocks, number, column.value_type) for number, column in enumerate(columns)]
    return _Slots(
        np.concatenate([part.statuses for part in parts]),
        np.concatenate([part.lengths for part in parts]),
        b"".join(part.data for part in parts),
    )


def _slots(answer: Answer, blocks: memoryview, number: int, kind: ValueType) -> _Slots:
    start, byte_count = answer.place(number, STATUSES)
    statuses = np.frombuffer(blocks, np.uint8, byte_count, start)
    start, byte_count = answer.place(number, VALUES)
    values = blocks[start : start + byte_count]
    if kind.slot_bytes:
        held = _is_held(statuses)
        lengths = np.where(held, kind.slot_bytes, 0)
        data = bytes(values)
        if not held.all():
            data = np.frombuffer(values, np.uint8).reshape(len(statuses), kind.slot_bytes)[held].tobytes()
        return _Slots(statuses, lengths, data)
    start, byte_count = answer.place(number, OFFSETS)
    ends = np.frombuffer(blocks, "<u4", byte_count // 4, start).astype(np.int64)
    if kind.shape is Shape.VARIABLE and not kind.element_bytes:
        texts = [_canonical(bytes(values[first:last])) for first, last in pairwise(ends)]
        return _Slots(statuses, np.array([len(text) for text in texts], np.int64), b"".join(texts))
    return _Slots(statuses, np.diff(ends), bytes(values))


def _is_held(statuses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether slots hold a value: docs/decisions/0010-withheld.md."""
    state = statuses & STATE_MASK
    held = (state == PRESENT) | ((statuses & DEFAULTED) != 0) | ((state == EXPIRED) & ((statuses & WITHHELD) == 0))
    return np.asarray(held, np.bool_)


def _canonical(value: bytes) -> bytes:
    """A list of texts: each after its length, where an answer has a count and then all ends."""
    if not value:
        return b""
    (count,) = _COUNT.unpack_from(value)
    ends = np.frombuffer(value, "<u4", count, _COUNT.size).tolist()
    body = value[_COUNT.size * (1 + count) :]
    return b"".join(_COUNT.pack(end - begin) + body[begin:end] for begin, end in zip([0, *ends], ends, strict=False))
