"""Twin of core_ext.row_codec: rows from and to plain Python values, without Arrow."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final, NamedTuple

from core_ext.twin.hashing import crc32c, with_checksum

ROW_BYTES_MAX: Final = 1 << 20

_MAGIC, _LAYOUT = 0xD7, 1
_HEADER: Final = struct.Struct("<BBHIIIqqqqiIII")
_CRC_BYTES: Final = 4
_TOMBSTONE, _HAS_NULLS, _HAS_TILES = 1, 2, 4
_STRING, _BYTES = 6, 7
_SINGLE, _FIXED, _VARIABLE = 0, 1, 2
_FORMATS: Final = {1: "?", 2: "i", 3: "q", 4: "f", 5: "d", 8: "q", 9: "i"}


class CorruptRowError(ValueError):
    """Bytes that are no row."""


class RowHeader(NamedTuple):
    """Header fields of a row."""

    flags: int
    schema_id: int
    source_id: int
    event_time_us: int
    write_time_us: int
    available_time_us: int
    offset: int
    partition: int


@dataclass(frozen=True)
class Column:
    """Type of a column. The struct format of its elements is None for STRING and BYTES."""

    scalar: int
    shape: int
    list_size: int

    @property
    def format(self) -> str | None:
        """Struct format of one element."""
        return _FORMATS.get(self.scalar)

    @property
    def is_variable(self) -> bool:
        """Whether its slot points into the heap."""
        return self.shape == _VARIABLE or self.format is None

    @property
    def element_bytes(self) -> int:
        """Width of one element; 0 for STRING and BYTES."""
        return struct.calcsize("<" + self.format) if self.format else 0


@dataclass(frozen=True)
class Schema:
    """Where the columns of a view version lie in a row."""

    schema_id: int
    columns: tuple[Column, ...]
    offsets: list[int] = field(init=False)
    fixed_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        end = 64 + (len(self.columns) + 63) // 64 * 8
        offsets = []
        for column in self.columns:
            end = _align(end, 4 if column.is_variable else column.element_bytes)
            offsets.append(end)
            end += 8 if column.is_variable else column.element_bytes * (column.list_size or 1)
        object.__setattr__(self, "offsets", offsets)
        object.__setattr__(self, "fixed_bytes", _align(end, 8))


def schema_of(schema_id: int, columns: Sequence[tuple[int, int, int]]) -> Schema:
    """Schema from the tuples that the core takes."""
    return Schema(schema_id, tuple(Column(*column) for column in columns))


def _align(value: int, step: int) -> int:
    return (value + step - 1) // step * step


def encode_row(schema: Schema, values: Sequence[Any], header: RowHeader) -> bytes:
    """Finished row; the flags of `header` are not read. Raises ValueError when it would be too long."""
    fixed = bytearray(schema.fixed_bytes)
    heap = bytearray()
    flags = 0
    for index, (column, at, value) in enumerate(zip(schema.columns, schema.offsets, values, strict=True)):
        if value is None:
            fixed[64 + index // 8] |= 1 << index % 8
            flags = _HAS_NULLS
        elif column.is_variable:
            struct.pack_into("<II", fixed, at, *_append(heap, column, value))
        else:
            elements = value if column.shape == _FIXED else [value]
            struct.pack_into(f"<{len(elements)}{column.format}", fixed, at, *elements)
    body = bytes(fixed + heap)
    body += bytes(_align(len(body), 4) - len(body))
    if len(body) + _CRC_BYTES > ROW_BYTES_MAX:
        raise ValueError("the row is too long")
    return _finish(body, header._replace(flags=flags, schema_id=schema.schema_id), schema.fixed_bytes)


def _finish(body: bytes, header: RowHeader, heap_start: int) -> bytes:
    flags, schema_id, source_id, event, write, available, offset, partition = header
    head = _HEADER.pack(
        _MAGIC, _LAYOUT, flags, len(body) + _CRC_BYTES, schema_id, source_id, event, write, available, offset,
        partition, heap_start, 0, 0,
    )  # fmt: skip
    return with_checksum(head + body[len(head) :])


def _append(heap: bytearray, column: Column, value: Any) -> tuple[int, int]:
    """Adds a value to the heap; gives its start and length."""
    if column.shape == _SINGLE:
        stored = _raw(value)
    elif column.format is None:
        parts = [_raw(element) for element in value]
        ends = [sum(map(len, parts[: i + 1])) for i in range(len(parts))]
        stored = struct.pack(f"<{len(parts) + 1}I", len(parts), *ends) + b"".join(parts) if parts else b""
    else:
        stored = struct.pack(f"<{len(value)}{column.format}", *value)
        heap += bytes(_align(len(heap), 8) - len(heap)) if stored else b""
    if not stored:
        return 0, 0
    heap += stored
    return len(heap) - len(stored), len(stored)


def _raw(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


def encode_tombstone(  # noqa: PLR0917 - the parameters of the core
    schema_id: int, event_time_us: int, write_time_us: int, source_id: int, partition: int, offset: int
) -> bytes:
    """Row that says: erased."""
    header = RowHeader(_TOMBSTONE, schema_id, source_id, event_time_us, write_time_us, write_time_us, offset, partition)
    return _finish(bytes(64), header, 64)


def check_row(row: bytes, schema: Schema | None = None) -> RowHeader:
    """Header after every check. Raises CorruptRowError with the message of the core."""
    if not 68 <= len(row) <= ROW_BYTES_MAX or len(row) % 4:
        raise CorruptRowError("size is below a header and checksum, above 1 MiB or no multiple of 4")
    magic, layout, flags, length, schema_id, source, event, write, available, offset, partition, heap, tiles, rest = (
        _HEADER.unpack_from(row)
    )
    end = len(row) - _CRC_BYTES
    tombstone = bool(flags & _TOMBSTONE)
    _refuse(magic != _MAGIC, "first byte is not the row magic 0xD7")
    _refuse(layout != _LAYOUT, "layout is unknown: written by a newer version")
    _refuse(length != len(row), "length field differs from the size")
    _refuse(crc32c(row[:end]) != int.from_bytes(row[end:], "little"), "checksum differs")
    _refuse(flags > _TOMBSTONE | _HAS_NULLS | _HAS_TILES, "unknown flags")
    _refuse(rest != 0, "reserved field is not 0")
    _refuse(not 64 <= heap <= end, "heap start lies outside the row")
    tiles_fit = heap <= tiles <= end if flags & _HAS_TILES and tiles else not flags & _HAS_TILES and tiles == 0
    _refuse(not tiles_fit, "tile map start lies outside the row or disagrees with the flags")
    _refuse(tombstone and (flags != _TOMBSTONE or end != 64), "tombstone carries more than a header")
    if schema is not None:
        _refuse(schema_id != schema.schema_id, "schema id differs")
        if not tombstone:
            _check_columns(row, schema, flags, heap, tiles or end)
    return RowHeader(flags, schema_id, source, event, write, available, offset, partition)


def _refuse(condition: bool, message: str) -> None:
    if condition:
        raise CorruptRowError(message)


def _check_columns(row: bytes, schema: Schema, flags: int, heap_start: int, heap_end: int) -> None:
    fits = heap_start == schema.fixed_bytes <= len(row) - _CRC_BYTES
    _refuse(not fits, "heap does not start behind the columns of the schema")
    nulls = int.from_bytes(row[64 : 64 + (len(schema.columns) + 63) // 64 * 8], "little")
    agrees = nulls < 1 << len(schema.columns) and bool(nulls) == bool(flags & _HAS_NULLS)
    _refuse(not agrees, "null bitmap disagrees with the flags or the column count")
    heap = row[heap_start:heap_end]
    for column, at in zip(schema.columns, schema.offsets, strict=True):
        if column.is_variable:
            _check_value(column, heap, *struct.unpack_from("<II", row, at))


def _check_value(column: Column, heap: bytes, start: int, size: int) -> None:
    if start == size == 0:
        return
    aligned = column.shape != _VARIABLE or column.format is None or (size % column.element_bytes == start % 8 == 0)
    _refuse(size == 0 or start + size > len(heap), "a variable value lies outside the heap")
    if column.shape == _VARIABLE and column.format is None:
        _refuse(not _is_list(heap[start : start + size]), "a list of strings or bytes is malformed")
    _refuse(not aligned, "a variable value lies outside the heap")


def _is_list(value: bytes) -> bool:
    count = int.from_bytes(value[:4], "little")
    if len(value) < 4 or not 1 <= count <= (len(value) - 4) // 4:
        return False
    ends = struct.unpack_from(f"<{count}I", value, 4)
    return sorted(ends) == list(ends) and ends[-1] == len(value) - 4 - 4 * count


def decode_row(schema: Schema, row: bytes) -> tuple[RowHeader, list[Any]]:
    """Header and Python values; a tombstone has none. Raises CorruptRowError."""
    header = check_row(row, schema)
    if header.flags & _TOMBSTONE:
        return header, []
    return header, [
        None if row[64 + i // 8] >> i % 8 & 1 else _value(i, column, row, at, schema.fixed_bytes)
        for i, (column, at) in enumerate(zip(schema.columns, schema.offsets, strict=True))
    ]


def _value(index: int, column: Column, row: bytes, at: int, heap_start: int) -> Any:
    if not column.is_variable:
        elements = struct.unpack_from(f"<{column.list_size or 1}{column.format}", row, at)
        return list(elements) if column.shape == _FIXED else elements[0]
    start, size = struct.unpack_from("<II", row, at)
    stored = row[heap_start + start : heap_start + start + size]
    if column.format:
        return list(struct.unpack(f"<{size // column.element_bytes}{column.format}", stored))
    try:
        return _text(column, stored) if column.shape == _SINGLE else _text_list(column, stored)
    except UnicodeDecodeError as error:
        raise CorruptRowError(f"a string of column {index} is not UTF-8") from error


def _text(column: Column, stored: bytes) -> str | bytes:
    return stored.decode() if column.scalar == _STRING else stored


def _text_list(column: Column, stored: bytes) -> list[str | bytes]:
    if not stored:
        return []
    (count,) = struct.unpack_from("<I", stored)
    ends = [0, *struct.unpack_from(f"<{count}I", stored, 4)]
    body = stored[4 + 4 * count :]
    return [_text(column, body[start:end]) for start, end in pairwise(ends)]
