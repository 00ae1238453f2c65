"""Twin of core_ext.pages: decodes every page of a column chunk."""

from collections.abc import Iterator
from itertools import islice
from typing import Final, NamedTuple

import pyarrow as pa

from core_ext.pages import CODECS, ChunkKind

PAGE_BYTES_MAX: Final = 1 << 24
_DATA, _DICTIONARY = 0, 2
_PLAIN, _OLD_DICTIONARY, _RLE, _NUMBERS = 0, 2, 3, 8


class OtherPageError(Exception):
    """A page is damaged, or of a kind that is not read."""


class Header(NamedTuple):
    """Fields of a page header, None where it lacks them."""

    type: int | None
    plain_bytes: int | None
    stored_bytes: int | None
    value_count: int | None
    encoding: int | None
    level_encoding: int | None
    repeat_encoding: int | None


class Bytes:
    """Bytes that are read from the front; what lacks some is damaged."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def take(self, count: int) -> bytes:
        """The next bytes."""
        if count > len(self.data) - self.at:
            raise OtherPageError
        self.at += count
        return self.data[self.at - count : self.at]

    def varint(self, bits_max: int = 64) -> int:
        """An integer of seven bits a byte, the lowest first."""
        value = 0
        for shift in range(0, bits_max, 7):
            byte = self.take(1)[0]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:
                return value & (2**64 - 1)
        raise OtherPageError

    def integer(self) -> int:
        """A signed integer of Thrift."""
        value = self.varint()
        return value >> 1 ^ -(value & 1)


def chunk_values(kind: ChunkKind, chunk: bytes, row_count: int) -> list[bytes | None] | None:
    """The first rows of a chunk, None for a null; or None for a chunk that is not read."""
    try:
        return _rows(kind, Bytes(chunk), row_count)
    except OtherPageError:
        return None


def _rows(kind: ChunkKind, chunk: Bytes, row_count: int) -> list[bytes | None]:
    rows: list[bytes | None] = []
    dictionary: list[bytes] | None = None
    while len(rows) < row_count:
        header = _header(chunk)
        stored = chunk.take(header.stored_bytes or 0)
        count = -1 if header.value_count is None else header.value_count
        if header.type == _DICTIONARY:
            if dictionary is not None or header.encoding not in (_PLAIN, _OLD_DICTIONARY) or count < 0:
                raise OtherPageError
            dictionary = _split(_plain(kind, header, stored), kind.width)[:count]
            if len(dictionary) < count:
                raise OtherPageError
        elif header.type != _DATA or not 0 <= count <= kind.row_count - len(rows) or not _tells_levels(header):
            raise OtherPageError
        elif count:
            rows += _page(kind, header, Bytes(_plain(kind, header, stored)), dictionary, row_count - len(rows))
    return rows[:row_count]


def _tells_levels(header: Header) -> bool:
    return min(-1 if one is None else one for one in (header.level_encoding, header.repeat_encoding)) >= 0


def _page(
    kind: ChunkKind, header: Header, page: Bytes, dictionary: list[bytes] | None, wanted: int
) -> list[bytes | None]:
    assert header.value_count is not None, "the caller has looked"
    levels = [1] * header.value_count
    if kind.is_nullable:
        if header.level_encoding != _RLE:
            raise OtherPageError
        size = int.from_bytes(page.take(4), "little")
        levels = _first(_runs(Bytes(page.take(size)), 1), header.value_count)
        if max(levels) > 1:
            raise OtherPageError
    needed = sum(levels[:wanted])
    rest = page.take(len(page.data) - page.at)
    if header.encoding == _PLAIN:
        values = _split(rest, kind.width)[:needed]
        if len(values) < needed:
            raise OtherPageError
    else:
        values = _looked_up(header, rest, dictionary, needed)
    left = iter(values)
    return [next(left) if level else None for level in levels[:wanted]]


def _looked_up(header: Header, rest: bytes, dictionary: list[bytes] | None, needed: int) -> list[bytes]:
    if header.encoding not in (_NUMBERS, _OLD_DICTIONARY) or dictionary is None or (rest and rest[0] > 32):
        raise OtherPageError
    bits = rest[0] if rest else 0
    numbers = _first(_runs(Bytes(rest[1:]), bits), needed)
    if any(number >= len(dictionary) for number in numbers):
        raise OtherPageError
    return [dictionary[number] for number in numbers]


def _first(numbers: Iterator[int], count: int) -> list[int]:
    found = list(islice(numbers, count))
    if len(found) < count:
        raise OtherPageError
    return found


def _runs(data: Bytes, bits: int) -> Iterator[int]:
    """Numbers in repeated and packed runs."""
    while True:
        head = data.varint()
        count = head >> 1
        if count == 0 or count > 2**31 - 1:
            raise OtherPageError
        if head & 1:
            packed = int.from_bytes(data.take(count * bits), "little")
            for i in range(8 * count):
                yield packed >> i * bits & (1 << bits) - 1
        else:
            repeated = int.from_bytes(data.take((bits + 7) // 8), "little")
            for _ in range(count):
                yield repeated


def _split(data: bytes, width: int) -> list[bytes]:
    return [data[at : at + width] for at in range(0, len(data) - width + 1, width)]


def _plain(kind: ChunkKind, header: Header, stored: bytes) -> bytes:
    assert header.plain_bytes is not None, "the header was checked"
    if kind.codec == CODECS["UNCOMPRESSED"]:
        if header.plain_bytes != len(stored):
            raise OtherPageError
        return stored
    if header.plain_bytes > PAGE_BYTES_MAX:
        raise OtherPageError
    if kind.codec == CODECS["ZSTD"]:
        return _inflated(stored, header.plain_bytes)
    return _snappy(Bytes(stored), header.plain_bytes)


def _inflated(stored: bytes, size: int) -> bytes:
    try:
        return bytes(pa.Codec("zstd").decompress(stored, size, asbytes=True))
    except OSError as error:
        raise OtherPageError from error


def _snappy(block: Bytes, size: int) -> bytes:
    if block.varint(bits_max=35) != size:
        raise OtherPageError
    out = bytearray()
    while block.at < len(block.data):
        tag = block.take(1)[0]
        count = (tag >> 2) + 1
        if tag & 3 == 0:
            if count > 60:
                count = int.from_bytes(block.take(count - 60), "little") + 1
            out += block.take(count)
        else:
            extra = block.take(4 if tag & 3 == 3 else tag & 3)
            distance = int.from_bytes(extra, "little")
            if tag & 3 == 1:
                count, distance = (tag >> 2 & 7) + 4, tag >> 5 << 8 | extra[0]
            if distance == 0 or distance > len(out):
                raise OtherPageError
            for _ in range(count):
                out.append(out[-distance])
        if len(out) > size:
            raise OtherPageError
    if len(out) != size:
        raise OtherPageError
    return bytes(out)


def _header(data: Bytes) -> Header:
    outer: dict[int, int] = {}
    inner: dict[int, int] = {}
    for identity, kind in _fields(data):
        if identity in (1, 2, 3) and kind == 5:
            outer[identity] = data.integer()
        elif identity in (5, 7) and kind == 12:
            for name, of in _fields(data):
                if name in (1, 2, 3, 4) and of == 5:
                    inner[name] = data.integer()
                else:
                    _skip(data, of, 0)
        else:
            _skip(data, kind, 0)
    header = Header(*(outer.get(i) for i in (1, 2, 3)), *(inner.get(i) for i in (1, 2, 3, 4)))
    if header.plain_bytes is None or header.stored_bytes is None or header.plain_bytes < 0 or header.stored_bytes < 0:
        raise OtherPageError
    return header


def _fields(data: Bytes) -> Iterator[tuple[int, int]]:
    identity = 0
    while head := data.take(1)[0]:
        identity = identity + (head >> 4) if head >> 4 else (data.integer() + 2**15) % 2**16 - 2**15
        if head & 0x0F == 0:
            return
        yield identity, head & 0x0F


def _skip(data: Bytes, kind: int, depth: int) -> None:
    if kind in (4, 5, 6):
        data.varint()
    elif kind == 3:
        data.take(1)
    elif kind in (7, 8):
        data.take(8 if kind == 7 else data.varint())
    elif kind == 12 and depth < 8:
        for _, of in _fields(data):
            _skip(data, of, depth + 1)
    elif kind not in (1, 2):
        raise OtherPageError
