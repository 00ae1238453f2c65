"""Messages that a library reads one by one: what their records hold, checked and put into columns."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa

from feature_server.pipeline.decoding import EVENT_BYTES_MAX, Decoded, Rejected, oversized, single
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType

SCHEMA_BYTES_MAX: Final = 4 << 20
_BITS: Final = {Scalar.I32: 31, Scalar.DATE: 31, Scalar.I64: 63, Scalar.TIMESTAMP_US: 63}


class RecordFault(ValueError):
    """A message that is no record of the schema: its reason, and a sentence."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class RecordEvents:
    """Decodes with a function from payload to one value per column, in their order."""

    def __init__(
        self,
        columns: Mapping[str, ValueType],
        read: Callable[[bytes], Sequence[Any]],  # of many types
    ) -> None:
        self._columns = dict(columns)
        self._read = read

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Columns of the events."""
        rejected = oversized(payloads, EVENT_BYTES_MAX)
        skipped = {one.message for one in rejected}
        rows, messages = [], []
        for place, payload in enumerate(payloads):
            if place in skipped:
                continue
            try:
                row = self._read(payload)
                for value, (name, kind) in zip(row, self._columns.items(), strict=True):
                    check_range(value, name, kind)
            except RecordFault as error:
                rejected.append(Rejected(place, error.reason, str(error)))
                continue
            rows.append(row)
            messages.append(place)
        values = list(zip(*rows, strict=True)) if rows else [()] * len(self._columns)
        found = {
            name: pa.array(own, kind.arrow) for own, (name, kind) in zip(values, self._columns.items(), strict=True)
        }
        return single(found, np.array(messages, np.int64), sorted(rejected))


def check_range(value: Any, name: str, kind: ValueType) -> None:  # of the type of the column
    """Raises RecordFault where a whole number or a list does not fit its column."""
    if value is None:
        return
    bits = _BITS.get(kind.scalar)
    if bits is not None:
        for one in value if kind.shape is not Shape.SINGLE else (value,):
            if not -(1 << bits) <= one < 1 << bits:
                raise RecordFault("OUT_OF_RANGE", f"field {name!r} is {one}, out of the range of {kind}")
    if kind.shape is Shape.FIXED and len(value) != kind.list_size:
        raise RecordFault("LIST_SIZE", f"field {name!r} has {len(value)} elements, where {kind} is declared")


def schema_bytes(folder: Path, name: str, source: str) -> bytes:
    """A file of the folder of schemas. Raises InvalidArgument."""
    try:
        with (folder / name).open("rb") as file:
            data = file.read(SCHEMA_BYTES_MAX + 1)
    except OSError as error:
        raise bad_schema(source, name, f"it cannot be read: {error.strerror}") from error
    if len(data) > SCHEMA_BYTES_MAX:
        raise bad_schema(source, name, f"it is larger than {SCHEMA_BYTES_MAX} bytes")
    return data


def bad_schema(source: str, name: str, why: str) -> InvalidArgument:
    """The refusal of a source whose schema is of no use."""
    return InvalidArgument(
        f"schema {name!r} of source {source!r}: {why}",
        reason="BAD_EVENT_SCHEMA",
        field="uri",
        metadata={"source": source, "schema": name},
    )
