"""Messages that are one JSON object each."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pyarrow as pa

from core_ext.arrow import ArrowColumn
from core_ext.events import REASONS, JsonDecoder
from feature_server.pipeline.decoding import EVENT_BYTES_MAX, Decoded, Rejected, single
from headrace.types import Shape, ValueType

PART_BYTES_MAX: Final = 256 << 20  # of the columns that are made at once


class JsonEvents:
    """Decodes in C; docs/decisions/0037-streams.md has the rules of types."""

    def __init__(self, columns: Mapping[str, ValueType]) -> None:
        self._types = dict(columns)
        described = [
            (name, (int(kind.scalar), int(kind.shape), kind.list_size, kind.element_bytes))
            for name, kind in columns.items()
        ]
        self._decoder = JsonDecoder(described, EVENT_BYTES_MAX)
        self._row_bytes = 1 + sum(kind.slot_bytes for kind in columns.values())

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Columns of the events."""
        found, messages, rejected = [], [], []
        start = 0
        for part in self._parts(payloads):
            decoded = self._decoder.decode(part)
            arrays = [_array(one, kind) for one, kind in zip(decoded.columns, self._types.values(), strict=True)]
            found.append(arrays)
            messages.append(decoded.messages + start)
            rejected += [self._rejected(start + place, *fault) for place, *fault in decoded.faults]
            start += len(part)
        joined = found[0] if len(found) == 1 else [pa.concat_arrays(arrays) for arrays in zip(*found, strict=True)]
        return single(dict(zip(self._types, joined, strict=True)), np.concatenate(messages), rejected)

    def _parts(self, payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
        """Messages whose columns fit into memory together; at least one of them."""
        rows_max = max(1, PART_BYTES_MAX // self._row_bytes)
        start = held_bytes = 0
        for place, payload in enumerate(payloads):
            if place > start and (place - start >= rows_max or held_bytes + len(payload) > PART_BYTES_MAX):
                yield payloads[start:place]
                start, held_bytes = place, 0
            held_bytes += len(payload)
        yield payloads[start:]

    def _rejected(self, place: int, status: int, column: int) -> Rejected:
        name = list(self._types)[column] if column >= 0 else ""
        where = f"field {name!r}, declared {self._types[name]}" if name else "the message"
        return Rejected(place, REASONS[status], f"{where}: {_WORDS[REASONS[status]]}")


_WORDS: Final[Mapping[str, str]] = {
    "EVENT_TOO_LARGE": f"over {EVENT_BYTES_MAX} bytes",
    "NOT_UTF8": "no UTF-8",
    "MALFORMED_JSON": "no JSON",
    "TOO_DEEP": "nested deeper than 32",
    "NOT_AN_OBJECT": "JSON, and no object",
    "DUPLICATE_FIELD": "stands twice",
    "WRONG_TYPE": "of another type",
    "OUT_OF_RANGE": "out of the range of its type",
    "BAD_TIME": "no time of RFC 3339 in whole microseconds, or no date",
    "NAIVE_TIME": "a time without its zone",
    "BAD_BASE64": "no base64",
    "BAD_TEXT": "half a surrogate pair",
    "NULL_ELEMENT": "a null in a list",
    "LIST_SIZE": "of another length than the list that is declared",
}


def _array(column: ArrowColumn, kind: ValueType) -> pa.Array:
    if column.child is None:
        return _elements(column, kind.arrow)
    child = _elements(column.child, kind.arrow.value_type)
    buffers = [_buffer(column.validity)] + ([_buffer(column.offsets)] if kind.shape is Shape.VARIABLE else [])
    return pa.Array.from_buffers(kind.arrow, column.length, buffers, children=[child])


def _elements(column: ArrowColumn, kind: pa.DataType) -> pa.Array:
    offsets = [] if column.offsets is None else [_buffer(column.offsets)]
    buffers = [_buffer(column.validity), *offsets, _buffer(column.values)]
    return pa.Array.from_buffers(kind, column.length, buffers)


def _buffer(data: object) -> pa.Buffer | None:
    return None if data is None else pa.py_buffer(data)
