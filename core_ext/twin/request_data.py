"""Request data columns in plain Python: parsed, bound to the fields of a plan, and checked."""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from core_ext.wire import int32_of, typed_fields, varint

COLUMN_COUNT_MAX: Final = 256
_BOOL, _STRING, _BYTES = 1, 6, 7
_FORMATS: Final = {1: "?", 2: "<i", 3: "<q", 4: "<f", 5: "<d", 8: "<q", 9: "<i"}


class BadColumnError(Exception):
    """A column is wrong: reason, and field path."""

    def __init__(self, reason: str, path: str) -> None:
        super().__init__(reason, path)
        self.reason = reason
        self.path = path


@dataclass
class DataColumn:
    """One column as sent."""

    name: str = ""
    kind: list[int] = field(default_factory=lambda: [0, 0, 0])
    values: bytes = b""
    offsets: bytes = b""
    nulls: list[int] = field(default_factory=list)


def data_column(data: bytes) -> DataColumn:
    """A RequestColumn. Raises MalformedError and UnicodeDecodeError."""
    column = DataColumn()
    for number, kind, value in typed_fields(data, level=1):
        if number == 5 and kind == 0 and isinstance(value, int):
            column.nulls.append(int32_of(value))
        elif isinstance(value, bytes):
            _take(column, number, value)
    return column


def _take(column: DataColumn, number: int, value: bytes) -> None:
    if number == 1:
        column.name = value.decode()
    elif number == 2:
        for part, kind, given in typed_fields(value, level=2):
            if kind == 0 and part <= 3 and isinstance(given, int):
                column.kind[part - 1] = int32_of(given)
    elif number == 3:
        column.values = value
    elif number == 4:
        column.offsets = value
    elif number == 5:
        at = 0
        while at < len(value):
            row, at = varint(value, at)
            column.nulls.append(int32_of(row))


def bound_columns(columns: Sequence[DataColumn], fields: Sequence[tuple[str, int]]) -> list[int]:
    """Number of the column of each field. Raises BadColumnError."""
    bound = []
    for name, scalar in fields:
        found = [number for number, column in enumerate(columns) if column.name == name]
        if found and columns[found[0]].kind != [scalar, 0, 0]:
            raise BadColumnError("WRONG_REQUEST_TYPE", f"request_columns[{found[0]}].value_type")
        if len(found) > 1:
            raise BadColumnError("DUPLICATE_REQUEST_COLUMN", f"request_columns[{found[1]}].name")
        if not found:
            raise BadColumnError("MISSING_REQUEST_FIELD", "request_columns")
        bound.append(found[0])
    for number in range(len(columns)):
        if number not in bound:
            raise BadColumnError("UNKNOWN_REQUEST_COLUMN", f"request_columns[{number}].name")
    return bound


def column_values(column: DataColumn, number: int, scalar: int, row_count: int) -> list[Any]:  # Any: by the type
    """Value of each row, None where it is null. Raises BadColumnError."""
    path = f"request_columns[{number}]"
    if scalar in _FORMATS:
        width = struct.calcsize(_FORMATS[scalar])
        if len(column.values) != width * row_count or column.offsets:
            raise BadColumnError("REQUEST_LENGTH_MISMATCH", f"{path}.values")
        parts = [column.values[width * row : width * (row + 1)] for row in range(row_count)]
    else:
        ends = _ends(column, row_count)
        if ends is None:
            raise BadColumnError("REQUEST_LENGTH_MISMATCH", f"{path}.offsets")
        parts = [column.values[ends[row] : ends[row + 1]] for row in range(row_count)]
    if column.nulls != sorted(set(column.nulls)) or any(not 0 <= row < row_count for row in column.nulls):
        raise BadColumnError("BAD_NULL_ROWS", f"{path}.null_rows")
    nulls = set(column.nulls)
    return [None if row in nulls else _checked(scalar, part, path) for row, part in enumerate(parts)]


def slot_value(scalar: int, data: bytes) -> Any:  # Any: by the type
    """What the bytes of a slot mean to an expression."""
    if scalar == _STRING:
        return data.decode()
    if scalar == _BYTES:
        return data
    (value,) = struct.unpack(_FORMATS[scalar], data)
    return math.nan if isinstance(value, float) and math.isnan(value) else value


def slot_bytes(scalar: int, value: Any) -> bytes:  # Any: by the type
    """Bytes of the slot of a value."""
    if isinstance(value, str):
        return value.encode()
    return value if isinstance(value, bytes) else struct.pack(_FORMATS[scalar], value)


def width_of(scalar: int) -> int:
    """Bytes of a slot, 0 where they vary."""
    return struct.calcsize(_FORMATS[scalar]) if scalar in _FORMATS else 0


def _checked(scalar: int, part: bytes, path: str) -> Any:  # Any: by the type
    if scalar == _BOOL and part[0] > 1:
        raise BadColumnError("REQUEST_VALUE_INVALID", f"{path}.values")
    try:
        return slot_value(scalar, part)
    except UnicodeDecodeError as error:
        raise BadColumnError("REQUEST_VALUE_INVALID", f"{path}.values") from error


def _ends(column: DataColumn, row_count: int) -> tuple[int, ...] | None:
    if len(column.offsets) != 4 * (row_count + 1):
        return None
    ends = struct.unpack(f"<{row_count + 1}I", column.offsets)
    is_sound = ends[0] == 0 and list(ends) == sorted(ends) and ends[-1] == len(column.values)
    return ends if is_sound else None
