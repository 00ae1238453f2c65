"""Structs of Thrift's compact protocol as trees: the form of the metadata of a Parquet file."""

from typing import Final, NamedTuple, Union

TRUE: Final = 1
FALSE: Final = 2
BYTE: Final = 3
I16: Final = 4
I32: Final = 5
I64: Final = 6
BINARY: Final = 8
LIST: Final = 9
STRUCT: Final = 12
_LONG_LIST: Final = 15  # from here on the length of a list stands behind its head
_DEPTH_MAX: Final = 32


class Items(NamedTuple):
    """A list of values of one type; structs may stand as the bytes that they become."""

    kind: int
    values: "list[Value]"


Struct = dict[int, tuple[int, "Value"]]  # by field: its type and value
Value = Union[int, bytes, Items, Struct]  # noqa: UP007 - the names refer to each other


def read_struct(data: bytes) -> Struct:
    """The struct at the beginning of some bytes. Raises ValueError where they are not whole."""
    reader = _Reader(data)
    try:
        return reader.struct(0)
    except IndexError as error:
        raise ValueError(f"a struct does not end in its {len(data)} bytes") from error


def struct_bytes(struct: Struct) -> bytes:
    """A struct as it is stored."""
    out = bytearray()
    _put_struct(out, struct)
    return bytes(out)


def varint(value: int) -> bytes:
    """A number of seven bits a byte, the lowest first."""
    out = bytearray()
    _put_varint(out, value)
    return bytes(out)


def folded(value: int) -> int:
    """A signed number as one without sign, small where the number is near 0."""
    return value << 1 if value >= 0 else (-value << 1) - 1


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self, depth: int) -> Struct:
        if depth > _DEPTH_MAX:
            raise ValueError("structs lie too deep in each other")
        out: Struct = {}
        field = 0
        while head := self._byte():
            field = field + (head >> 4) if head >> 4 else self._integer()
            kind = head & 0x0F
            out[field] = (kind, self._value(kind, depth))
        return out

    def _value(self, kind: int, depth: int) -> Value:
        if kind in (TRUE, FALSE):
            return int(kind == TRUE)
        if kind == BYTE:
            return self._byte()
        if kind in (I16, I32, I64):
            return self._integer()
        if kind == BINARY:
            return self._bytes(self._varint())
        if kind == STRUCT:
            return self.struct(depth + 1)
        if kind == LIST:
            head = self._byte()
            count = head >> 4 if head >> 4 < _LONG_LIST else self._varint()
            if count > len(self._data):
                raise IndexError
            of = head & 0x0F
            return Items(of, [self._value(BYTE if of in (TRUE, FALSE) else of, depth + 1) for _ in range(count)])
        raise ValueError(f"type {kind} is not used in the metadata of Parquet files")

    def _byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1]

    def _bytes(self, count: int) -> bytes:
        if count > len(self._data) - self._at:
            raise IndexError
        self._at += count
        return self._data[self._at - count : self._at]

    def _varint(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value
            shift += 7

    def _integer(self) -> int:
        value = self._varint()
        return value >> 1 ^ -(value & 1)


def _put_struct(out: bytearray, struct: Struct) -> None:
    before = 0
    for field, (kind, value) in struct.items():
        if 0 < field - before < _LONG_LIST + 1:
            out.append(field - before << 4 | kind)
        else:
            out.append(kind)
            _put_varint(out, folded(field))
        before = field
        if kind not in (TRUE, FALSE):
            _put_value(out, kind, value)
    out.append(0)


def _put_value(out: bytearray, kind: int, value: Value) -> None:
    if isinstance(value, Items):
        count = len(value.values)
        out.append(min(count, _LONG_LIST) << 4 | value.kind)
        if count >= _LONG_LIST:
            _put_varint(out, count)
        for one in value.values:
            _put_value(out, value.kind, one)
    elif isinstance(value, dict):
        _put_struct(out, value)
    elif isinstance(value, bytes):
        if kind == BINARY:
            _put_varint(out, len(value))
        out += value
    elif kind in (TRUE, FALSE, BYTE):
        out.append(value)
    else:
        _put_varint(out, folded(value))


def _put_varint(out: bytearray, value: int) -> None:
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
