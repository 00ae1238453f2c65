"""Builds requests and rows by hand, byte by byte, independent of the compiled cores."""

import random
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from core_ext.hashing import crc32c

BOOL, I32, I64, F32, F64, STRING, BYTES, TIMESTAMP_US, DATE = range(1, 10)
SINGLE, FIXED, VARIABLE = 0, 1, 2
WIDTHS = {BOOL: 1, I32: 4, I64: 8, F32: 4, F64: 8, TIMESTAMP_US: 8, DATE: 4}

FLAG_TOMBSTONE, FLAG_HAS_NULLS = 1, 2
VALUE_FIELDS = {I64: 2, STRING: 3, BYTES: 4}
UNKNOWN_FIELD = 100

Key: TypeAlias = int | bytes
ColumnType: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True)
class KeyColumn:
    """One join key column of a request: strings are given as bytes, so that they may be wrong."""

    name: str
    kind: int
    values: Sequence[Key]
    nulls: Sequence[int] = ()


@dataclass(frozen=True)
class Sample:
    """One request, to be encoded in any of the ways that the format allows."""

    columns: Sequence[KeyColumn] = ()
    service: str = ""
    handle: bytes = b""
    features: Sequence[str] = ()
    options: Sequence[bytes] = field(default=())
    data: Sequence[bytes] = field(default=())
    """Request columns, encoded."""


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def number_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed64_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 1) + value


def group(number: int, body: bytes) -> bytes:
    return varint(number << 3 | 3) + body + varint(number << 3 | 4)


def unknown_fields(rng: random.Random) -> bytes:
    """A field that no reader of ours knows, of a wire type at random, groups in groups among them."""
    return rng.choice(
        [
            number_field(UNKNOWN_FIELD, rng.getrandbits(64)),
            bytes_field(UNKNOWN_FIELD, rng.randbytes(5)),
            fixed64_field(UNKNOWN_FIELD, rng.randbytes(8)),
            varint(UNKNOWN_FIELD << 3 | 5) + rng.randbytes(4),
            group(UNKNOWN_FIELD, group(1, number_field(2, 7)) + bytes_field(3, b"\xff")),
            group(1, bytes_field(1, b"a known number with another wire type")),
        ]
    )


def int64_bytes(values: Iterable[Key]) -> bytes:
    return b"".join(struct.pack("<q", value) for value in values)


def column_bytes(column: KeyColumn) -> bytes:
    """An EntityColumn as protobuf's own encoder writes it."""
    out = bytes_field(1, column.name.encode())
    if column.kind == I64:
        out += bytes_field(2, int64_bytes(column.values)) if column.values else b""
    else:
        out += b"".join(bytes_field(VALUE_FIELDS[column.kind], bytes_of(value)) for value in column.values)
    return out + (bytes_field(5, b"".join(map(varint, column.nulls))) if column.nulls else b"")


def bytes_of(value: Key) -> bytes:
    assert isinstance(value, bytes)
    return value


def request_bytes(sample: Sample) -> bytes:
    """A request as protobuf's own encoder writes it."""
    out = bytes_field(1, sample.service.encode()) if sample.service else b""
    out += bytes_field(2, sample.handle) if sample.handle else b""
    out += b"".join(bytes_field(3, name.encode()) for name in sample.features)
    out += b"".join(bytes_field(4, column_bytes(column)) for column in sample.columns)
    out += b"".join(bytes_field(5, column) for column in sample.data)
    return out + (bytes_field(6, b"".join(sample.options)) if sample.options else b"")


def scrambled_column(rng: random.Random, column: KeyColumn) -> bytes:
    """The same EntityColumn with lists split and unpacked, fields out of order and unknown ones between them."""
    lists: list[list[bytes]] = [[bytes_field(1, b"overwritten"), bytes_field(1, column.name.encode())], [], []]
    values = list(column.values)
    while column.kind == I64 and values:
        count = rng.randint(0, len(values))
        chunk, values = values[:count], values[count:]
        packed = bytes_field(2, int64_bytes(chunk))
        lists[1] += [packed] if rng.random() < 0.5 else [fixed64_field(2, int64_bytes([value])) for value in chunk]
    if column.kind != I64:
        lists[1] += [bytes_field(VALUE_FIELDS[column.kind], bytes_of(value)) for value in values]
    nulls = list(column.nulls)
    while nulls:
        count = rng.randint(0, len(nulls))
        numbers, nulls = nulls[:count], nulls[count:]
        packed = bytes_field(5, b"".join(map(varint, numbers)))
        lists[2] += [packed] if rng.random() < 0.5 else [number_field(5, number) for number in numbers]
    return merged(rng, lists)


def scrambled_request(rng: random.Random, sample: Sample) -> bytes:
    """The same request in another of the ways that the format allows."""
    lists = [[bytes_field(4, scrambled_column(rng, column)) for column in sample.columns]]
    lists.append([bytes_field(1, b"overwritten"), bytes_field(1, sample.service.encode())])
    lists.append([bytes_field(2, b"overwritten"), bytes_field(2, sample.handle)])
    lists.append([bytes_field(3, name.encode()) for name in sample.features])
    lists.append([bytes_field(5, column) for column in sample.data])
    lists.append([bytes_field(6, merged(rng, [[option]])) for option in sample.options])
    return merged(rng, lists)


def merged(rng: random.Random, lists: Sequence[Sequence[bytes]]) -> bytes:
    """All pieces in one: each list in its order, the lists interleaved, unknown fields between them."""
    left = [list(pieces) for pieces in lists if pieces]
    out = bytearray()
    while left:
        if rng.random() < 0.2:
            out += unknown_fields(rng)
        pieces = rng.choice(left)
        out += pieces.pop(0)
        left = [pieces for pieces in left if pieces]
    return bytes(out)


def is_variable(column: ColumnType) -> bool:
    return column[0] not in WIDTHS or column[1] == VARIABLE


def slot_bytes(column: ColumnType) -> int:
    return 8 if is_variable(column) else WIDTHS[column[0]] * max(column[2], 1)


def parts(values: Sequence[bytes]) -> bytes:
    """A stored list of STRING or BYTES."""
    if not values:
        return b""
    ends = [sum(map(len, values[: count + 1])) for count in range(len(values))]
    return struct.pack(f"<I{len(ends)}I", len(values), *ends) + b"".join(values)


def pack_row(
    schema_id: int,
    columns: Sequence[ColumnType],
    values: Sequence[bytes | None],
    event_time_us: int,
    order: tuple[int, int, int, int] = (0, 0, 0, 0),
) -> bytes:
    """A row of layout 1; `order` is write time, source id, partition, offset. A value is what its slot answers."""
    fixed, heap, bitmap = bytearray(), bytearray(), 0
    bitmap_bytes = (len(columns) + 63) // 64 * 8
    for index, (column, value) in enumerate(zip(columns, values, strict=True)):
        fixed += bytes(-(64 + bitmap_bytes + len(fixed)) % (4 if is_variable(column) else WIDTHS[column[0]]))
        if value is None:
            bitmap |= 1 << index
            fixed += bytes(slot_bytes(column))
        elif not is_variable(column):
            assert len(value) == slot_bytes(column)
            fixed += value
        else:
            if value and column[1] == VARIABLE and column[0] in WIDTHS:
                heap += bytes(-len(heap) % 8)
            fixed += struct.pack("<II", len(heap) if value else 0, len(value))
            heap += value
    fixed += bytes(-(64 + bitmap_bytes + len(fixed)) % 8)
    heap_start = 64 + bitmap_bytes + len(fixed)
    length = (heap_start + len(heap) + 3) // 4 * 4 + 4
    header = row_header(FLAG_HAS_NULLS if bitmap else 0, length, schema_id, event_time_us, order, heap_start)
    return sealed((header + bitmap.to_bytes(bitmap_bytes, "little") + fixed + heap).ljust(length - 4, b"\0"))


def pack_tombstone(schema_id: int, event_time_us: int) -> bytes:
    return sealed(row_header(FLAG_TOMBSTONE, 68, schema_id, event_time_us, (0, 0, 0, 0), 64))


def row_header(
    flags: int, length: int, schema_id: int, event_time_us: int, order: tuple[int, int, int, int], heap_start: int
) -> bytes:
    write_time_us, source_id, partition, offset = order
    head = struct.pack("<BBHIII", 0xD7, 1, flags, length, schema_id, source_id)
    times = struct.pack("<qqq", event_time_us, write_time_us, write_time_us)
    return head + times + struct.pack("<qiIII", offset, partition, heap_start, 0, 0)


def sealed(row: bytes) -> bytes:
    """The row with its checksum."""
    return row + struct.pack("<I", crc32c(row))


def key_part(kind: int, value: Key) -> bytes:
    if kind == I64:
        assert isinstance(value, int)
        return b"\x01" + struct.pack(">Q", value + (1 << 63))
    return bytes([2 if kind == STRING else 3]) + struct.pack(">H", len(bytes_of(value))) + bytes_of(value)


def storage_key(entity_id: int, parts_of_key: Sequence[tuple[int, Key]], view_id: int) -> bytes:
    key = b"".join(key_part(kind, value) for kind, value in parts_of_key)
    return struct.pack(">I", entity_id) + key + struct.pack(">I", view_id)
