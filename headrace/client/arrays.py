"""Columns of an answer as numpy and Arrow arrays over its packed bytes."""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.client.wire import malformed
from headrace.types import Scalar, Shape, ValueType
from protos.feature.v1 import online_feature_service_pb2 as pb

STATE_MASK: Final = 0x0F  # the low nibble of a status byte; see ValueState in the contract
DEFAULTED_FLAG: Final = 0x10
WITHHELD_FLAG: Final = 0x40  # with EXPIRED: the slot is empty

_PRESENT: Final = pb.VALUE_STATE_PRESENT
_EXPIRED: Final = pb.VALUE_STATE_EXPIRED


@dataclass(frozen=True, slots=True)
class Column:
    """One feature of a batch; blocks as FeatureColumn of the contract describes them, their sizes checked."""

    name: str
    value_type: ValueType
    values: memoryview
    offsets: memoryview
    statuses: memoryview


def served(statuses: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Which slots hold a value: present, a typed default, or expired and not withheld."""
    states = statuses & np.uint8(STATE_MASK)
    is_served = (states == _EXPIRED) & ((statuses & np.uint8(WITHHELD_FLAG)) == 0)
    found: NDArray[np.bool_] = (states == _PRESENT) | is_served | ((statuses & np.uint8(DEFAULTED_FLAG)) != 0)
    return found


def shaped(values: NDArray[Any], kind: ValueType) -> NDArray[Any]:
    """Elements of a type of fixed width as values by slot: timestamps as datetime64[us], dates as days."""
    if kind.scalar is Scalar.TIMESTAMP_US:
        values = values.view("<M8[us]")
    return values.reshape(-1, kind.list_size) if kind.shape is Shape.FIXED else values


def as_objects(column: Column) -> NDArray[Any]:
    """Values by slot of a type whose width varies, as Python objects."""
    return np.asarray(as_arrow(column, np.ones(len(column.statuses), bool)).to_numpy(zero_copy_only=False))


def as_arrow(column: Column, has_value: NDArray[np.bool_]) -> pa.Array:
    """Array that is null where there is no value; shares the packed bytes but for booleans, which Arrow packs."""
    row_count = len(column.statuses)
    validity = None if has_value.all() else pa.py_buffer(np.packbits(has_value, bitorder="little"))
    kind = column.value_type
    if kind.shape is Shape.FIXED:
        items = _elements(kind.scalar, column.values, row_count * kind.list_size)
        return pa.Array.from_buffers(kind.arrow, row_count, [validity], children=[items])
    if kind.shape is Shape.VARIABLE and kind.element_bytes:
        counts = np.frombuffer(column.offsets, "<u4") // kind.element_bytes
        items = _elements(kind.scalar, column.values, int(counts[-1]))
        ends = pa.py_buffer(counts.astype("<i4"))
        return pa.Array.from_buffers(kind.arrow, row_count, [validity, ends], children=[items])
    if kind.shape is Shape.VARIABLE:
        return _text_lists(column, validity)
    if not kind.slot_bytes:
        return pa.Array.from_buffers(
            kind.arrow, row_count, [validity, pa.py_buffer(column.offsets), pa.py_buffer(column.values)]
        )
    items = _elements(kind.scalar, column.values, row_count)
    return pa.Array.from_buffers(kind.arrow, row_count, [validity, items.buffers()[1]])


def _elements(scalar: Scalar, values: memoryview, count: int) -> pa.Array:
    kind = ValueType(scalar)
    packed = pa.py_buffer(np.packbits(np.frombuffer(values, "?"), bitorder="little")) if scalar is Scalar.BOOL else None
    return pa.Array.from_buffers(kind.arrow, count, [None, packed or pa.py_buffer(values)])


def _text_lists(column: Column, validity: pa.Buffer | None) -> pa.Array:
    """Lists of STRING or BYTES: each row is u32 count, count u32 end positions, then the bytes."""
    raw = np.frombuffer(column.values, np.uint8)
    bounds = np.frombuffer(column.offsets, "<u4").astype(np.int64)
    starts, filled = bounds[:-1], bounds[1:] > bounds[:-1]
    counts = np.zeros(len(starts), np.int64)
    counts[filled] = _words(raw, starts[filled], column.name)
    heads = np.where(filled, 4 + 4 * counts, 0)
    if np.any(starts + heads > bounds[1:]):
        raise malformed(f"column {column.name} has a list beyond its row")
    ends = _words(raw, _ranges(starts + 4, counts, step=4), column.name)
    is_first = _ranges(np.zeros_like(counts), counts, step=1) == 0
    lengths = np.where(is_first, ends, np.diff(ends, prepend=0))
    text = np.delete(raw, _ranges(starts, heads, step=1))
    if np.any(lengths < 0) or int(lengths.sum()) != len(text):
        raise malformed(f"column {column.name} has wrong list positions")
    item_ends = np.concatenate([[0], np.cumsum(lengths)]).astype("<i4")
    items = pa.Array.from_buffers(
        ValueType(column.value_type.scalar).arrow, len(lengths), [None, pa.py_buffer(item_ends), pa.py_buffer(text)]
    )
    item_bounds = np.concatenate([[0], np.cumsum(counts)]).astype("<i4")
    return pa.Array.from_buffers(
        column.value_type.arrow, len(counts), [validity, pa.py_buffer(item_bounds)], children=[items]
    )


def _ranges(starts: NDArray[np.int64], counts: NDArray[np.int64], step: int) -> NDArray[np.int64]:
    """start, start + step, ... of each pair, one after another."""
    ordinals = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    ranges: NDArray[np.int64] = np.repeat(starts, counts) + step * ordinals
    return ranges


def _words(raw: NDArray[np.uint8], positions: NDArray[np.int64], name: str) -> NDArray[np.int64]:
    if len(positions) and int(positions.max()) + 4 > len(raw):
        raise malformed(f"column {name} has a list beyond its row")
    words: NDArray[np.int64] = raw[positions[:, None] + np.arange(4)].copy().view("<u4").ravel().astype(np.int64)
    return words
