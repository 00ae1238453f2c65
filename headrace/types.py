"""The type table: every element type, its code in rows, its width, and its Arrow, numpy and text forms."""

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
import pyarrow as pa

LIST_SIZE_MAX: Final = 65_535  # a fixed list's width must fit the row's u16 element count


class Scalar(IntEnum):
    """Element types; the numbers are stored in rows and sent on the wire, and are never reused."""

    BOOL = 1
    I32 = 2
    I64 = 3
    F32 = 4
    F64 = 5
    STRING = 6
    BYTES = 7
    TIMESTAMP_US = 8
    DATE = 9


class Shape(IntEnum):
    """How many elements a value holds; the numbers are those of the contracts."""

    SINGLE = 0
    FIXED = 1
    VARIABLE = 2


ENTITY_KEY_SCALARS: Final = frozenset({Scalar.I64, Scalar.STRING, Scalar.BYTES})

_WIDTHS: Final = {
    Scalar.BOOL: 1,
    Scalar.I32: 4,
    Scalar.I64: 8,
    Scalar.F32: 4,
    Scalar.F64: 8,
    Scalar.TIMESTAMP_US: 8,
    Scalar.DATE: 4,
}
_ARROW: Final = {
    Scalar.BOOL: pa.bool_(),
    Scalar.I32: pa.int32(),
    Scalar.I64: pa.int64(),
    Scalar.F32: pa.float32(),
    Scalar.F64: pa.float64(),
    Scalar.STRING: pa.string(),
    Scalar.BYTES: pa.binary(),
    Scalar.TIMESTAMP_US: pa.timestamp("us", tz="UTC"),
    Scalar.DATE: pa.date32(),
}
_NUMPY: Final = {
    Scalar.BOOL: np.dtype("?"),
    Scalar.I32: np.dtype("<i4"),
    Scalar.I64: np.dtype("<i8"),
    Scalar.F32: np.dtype("<f4"),
    Scalar.F64: np.dtype("<f8"),
    Scalar.TIMESTAMP_US: np.dtype("<i8"),
    Scalar.DATE: np.dtype("<i4"),
}
_NAMES: Final = {scalar: scalar.name.lower() for scalar in Scalar}
_BY_NAME: Final = {name: scalar for scalar, name in _NAMES.items()}


@dataclass(frozen=True, slots=True)
class ValueType:
    """A complete type. `list_size` is the element count of a fixed list and 0 for every other shape."""

    scalar: Scalar
    shape: Shape = Shape.SINGLE
    list_size: int = 0
    is_variable: bool = field(init=False, repr=False, compare=False)
    """Whether a value's size differs from row to row (STRING, BYTES, variable lists)."""
    element_bytes: int = field(init=False, repr=False, compare=False)
    """Width of one element in bytes; 0 for STRING and BYTES."""
    slot_bytes: int = field(init=False, repr=False, compare=False)
    """Width of one value in a column of an answer; 0 where it varies."""

    def __post_init__(self) -> None:
        fixed = self.shape is Shape.FIXED
        if fixed and not 1 <= self.list_size <= LIST_SIZE_MAX:
            raise ValueError(f"a fixed list holds 1 to {LIST_SIZE_MAX} elements, not {self.list_size}")
        if not fixed and self.list_size != 0:
            raise ValueError(f"list_size is for fixed lists only, and is {self.list_size}")
        if fixed and self.scalar not in _WIDTHS:
            raise ValueError(f"a fixed list holds fixed-width elements, not {_NAMES[self.scalar]}")
        element_bytes = _WIDTHS.get(self.scalar, 0)
        is_variable = self.shape is Shape.VARIABLE or not element_bytes
        object.__setattr__(self, "is_variable", is_variable)
        object.__setattr__(self, "element_bytes", element_bytes)
        object.__setattr__(self, "slot_bytes", 0 if is_variable else element_bytes * (self.list_size or 1))

    @property
    def arrow(self) -> pa.DataType:
        """The Arrow type that holds it."""
        element = _ARROW[self.scalar]
        if self.shape is Shape.FIXED:
            return pa.list_(pa.field("item", element, nullable=False), self.list_size)
        if self.shape is Shape.VARIABLE:
            return pa.list_(pa.field("item", element, nullable=False))
        return element

    @property
    def numpy(self) -> np.dtype[np.generic]:
        """Little-endian numpy type of one element; object for STRING and BYTES."""
        return _NUMPY.get(self.scalar, np.dtype(object))

    def __str__(self) -> str:
        name = _NAMES[self.scalar]
        if self.shape is Shape.FIXED:
            return f"list<{name},{self.list_size}>"
        return f"list<{name}>" if self.shape is Shape.VARIABLE else name


def parse_type(text: str) -> ValueType:
    """Type from its text form: `f32`, `list<f32,8>`, `list<string>`. Raises ValueError naming the known types."""
    body = text.strip()
    if not (body.startswith("list<") and body.endswith(">")):
        return ValueType(_scalar_named(body))
    element, separator, size = body[len("list<") : -1].partition(",")
    if not separator:
        return ValueType(_scalar_named(element), Shape.VARIABLE)
    if not size.strip().isdecimal():
        raise ValueError(f"list size {size.strip()!r} in type {text!r} is not a whole number")
    return ValueType(_scalar_named(element), Shape.FIXED, int(size))


def _scalar_named(name: str) -> Scalar:
    scalar = _BY_NAME.get(name.strip())
    if scalar is None:
        raise ValueError(f"unknown type {name.strip()!r}; known: {', '.join(_BY_NAME)}, list<T>, list<T,N>")
    return scalar
