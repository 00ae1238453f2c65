"""Turns a column of any type of the type table into independent observations of its parts."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType

Column: TypeAlias = pa.Array | pa.ChunkedArray | npt.NDArray[np.generic]
Numbers: TypeAlias = npt.NDArray[np.int64 | np.float64]

LABEL_LENGTH_MAX: Final = 64  # characters of a stored category; a longer one is known by its digest
_GOLDEN: Final = np.uint64(0x9E3779B97F4A7C15)  # 2^64 / golden ratio: spreads consecutive row numbers
_NAMED: Final = frozenset({Scalar.BOOL, Scalar.STRING, Scalar.BYTES})
_FLOATS: Final = frozenset({Scalar.F32, Scalar.F64})


class Kind(StrEnum):
    """How the values of a part compare: by an order, or only by being equal."""

    ORDERED = "ordered"
    NAMED = "named"


@dataclass(frozen=True, slots=True)
class Part:
    """What is counted of a value: the value itself (no name), the length of a list, or one element of it."""

    name: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Observed:
    """Observations of one part: numbers where it is ordered, distinct labels with their counts where it is named."""

    part: Part
    numbers: Numbers | None = None
    labels: tuple[str, ...] = ()
    label_counts: npt.NDArray[np.int64] | None = None


def parts_of(value_type: ValueType) -> tuple[Part, ...]:
    """The parts of a type. A fixed list has no length to watch."""
    kind = Kind.NAMED if value_type.scalar in _NAMED else Kind.ORDERED
    if value_type.shape is Shape.SINGLE:
        return (Part("", kind),)
    element = Part("element", kind)
    return (element,) if value_type.shape is Shape.FIXED else (Part("length", Kind.ORDERED), element)


def chunks_of(column: Column, value_type: ValueType, field: str = "column") -> Iterator[pa.Array]:
    """The column as Arrow arrays of its declared type; another type is refused, never cast."""
    if isinstance(column, np.ndarray):
        column = _from_numpy(column, value_type, field)
    if column.type != value_type.arrow:
        raise _wrong_type(str(column.type), value_type, field)
    yield from column.chunks if isinstance(column, pa.ChunkedArray) else (column,)


def observe(array: pa.Array, value_type: ValueType, first_row: int = 0) -> list[Observed]:
    """Observations of every part of the rows that hold a value; `first_row` numbers the rows over all chunks.

    A list gives one element a row, drawn by the row's number: elements of one list resemble each other, and counting
    them all would claim more independent observations than there are.
    """
    rows = np.flatnonzero(np.asarray(pc.is_valid(array))) + first_row
    held = array.drop_null()
    if value_type.shape is Shape.SINGLE:
        return [_observed(parts_of(value_type)[0], held, value_type.scalar)]
    if value_type.shape is Shape.FIXED:
        lengths = np.full(len(held), value_type.list_size, dtype=np.int64)
    else:
        lengths = np.asarray(pc.list_value_length(held)).astype(np.int64)
    starts = np.cumsum(lengths) - lengths
    filled = lengths > 0
    picks = starts[filled] + _picks(rows[filled], lengths[filled])
    elements = held.flatten().take(pa.array(picks))
    out = [_observed(part, elements, value_type.scalar) for part in parts_of(value_type)[-1:]]
    return out if value_type.shape is Shape.FIXED else [Observed(parts_of(value_type)[0], lengths), *out]


def _from_numpy(column: npt.NDArray[np.generic], value_type: ValueType, field: str) -> pa.Array:
    plain = value_type.shape is Shape.SINGLE and not value_type.is_variable
    times = value_type.scalar is Scalar.TIMESTAMP_US and column.dtype == np.dtype("<M8[us]")
    if column.ndim != 1 or (plain and column.dtype not in (value_type.numpy, np.dtype(object)) and not times):
        raise _wrong_type(f"numpy {column.dtype} of {column.ndim} dimensions", value_type, field)
    try:
        return pa.array(column, type=value_type.arrow, from_pandas=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as error:
        raise _wrong_type(f"numpy {column.dtype} ({error})", value_type, field) from error


def _picks(rows: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    mixed = (rows.astype(np.uint64) + np.uint64(1)) * _GOLDEN
    picks: npt.NDArray[np.int64] = ((mixed >> np.uint64(32)) % lengths.astype(np.uint64)).astype(np.int64)
    return picks


def _observed(part: Part, values: pa.Array, scalar: Scalar) -> Observed:
    if part.kind is Kind.ORDERED:
        return Observed(part, _numbers(values, scalar))
    counted = pc.value_counts(values)
    counts = np.asarray(counted.field("counts")).astype(np.int64)
    return Observed(part, labels=tuple(map(_label, counted.field("values").to_pylist())), label_counts=counts)


def _numbers(values: pa.Array, scalar: Scalar) -> Numbers:
    if scalar in _FLOATS:
        return np.asarray(values).astype(np.float64) + 0.0  # -0.0 becomes 0.0
    stored = {Scalar.TIMESTAMP_US: pa.int64(), Scalar.DATE: pa.int32()}.get(scalar)
    return np.asarray(values if stored is None else values.view(stored)).astype(np.int64)


def _label(value: bool | str | bytes) -> str:
    text = value if isinstance(value, str) else value.hex() if isinstance(value, bytes) else str(value).lower()
    if len(text) <= LABEL_LENGTH_MAX:
        return text
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()[:32]


def _wrong_type(found: str, value_type: ValueType, field: str) -> InvalidArgument:
    return InvalidArgument(
        f"{field} is {found}, where {value_type} is declared; give it as Arrow {value_type.arrow}",
        reason="WRONG_TYPE",
        field=field,
        metadata={"found": found, "type": str(value_type)},
    )
