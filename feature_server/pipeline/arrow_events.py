"""Messages that are Arrow IPC streams, each with a batch of events."""

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa

from feature_server.domain.write_columns import read_ipc
from feature_server.pipeline.decoding import ROWS_PER_MESSAGE_MAX, Decoded, Rejected, arrow_schema
from headrace.errors import InvalidArgument
from headrace.types import ValueType


class ArrowEvents:
    """Takes columns by name where they have the declared type; columns that nobody asked for are left out."""

    def __init__(self, columns: Mapping[str, ValueType]) -> None:
        self._schema = arrow_schema(columns)

    def decode(self, payloads: Sequence[bytes]) -> Decoded:
        """Batches of all messages as one."""
        tables, messages, rows = [], [], []
        rejected: list[Rejected] = []
        for place, payload in enumerate(payloads):
            try:
                batches = [self._shaped(batch) for batch in read_ipc(payload)]
                for batch in batches:
                    batch.validate(full=True)  # texts that are none must not reach a row
                count = sum(batch.num_rows for batch in batches)
                if count > ROWS_PER_MESSAGE_MAX:
                    raise InvalidArgument(
                        f"{count} events in one message, and it may hold {ROWS_PER_MESSAGE_MAX}",
                        reason="TOO_MANY_EVENTS",
                        field="value",
                    )
            except pa.ArrowInvalid as error:
                rejected.append(Rejected(place, "MALFORMED_ARROW", str(error)))
                continue
            except InvalidArgument as error:
                rejected.append(Rejected(place, error.reason, error.message))
                continue
            tables += batches
            messages.append(np.full(count, place, np.int64))
            rows.append(np.arange(count, dtype=np.int64))
        whole = pa.Table.from_batches(tables, self._schema).combine_chunks()
        columns = {name: _joined(whole.column(name)) for name in self._schema.names}
        empty = np.zeros(0, np.int64)
        return Decoded(columns, np.concatenate([empty, *messages]), np.concatenate([empty, *rows]), rejected)

    def _shaped(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        arrays = []
        for field in self._schema:
            places = batch.schema.get_all_field_indices(field.name)
            if len(places) != 1:
                how = "is missing" if not places else "stands twice"
                raise InvalidArgument(
                    f"column {field.name!r} {how} in the message", reason="UNKNOWN_COLUMN", field=field.name
                )
            column = batch.column(places[0])
            if not _fits(column.type, field.type):
                raise InvalidArgument(
                    f"column {field.name!r} is {column.type}, where {field.type} is declared",
                    reason="WRONG_TYPE",
                    field=field.name,
                )
            arrays.append(column if column.type == field.type else column.cast(field.type))
        return pa.RecordBatch.from_arrays(arrays, schema=self._schema)


def _fits(actual: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_timestamp(wanted):  # any zone will do: the instant does not depend on it
        return pa.types.is_timestamp(actual) and actual.unit == wanted.unit and actual.tz is not None
    if pa.types.is_list(wanted) or pa.types.is_fixed_size_list(wanted):
        is_same_shape = type(actual) is type(wanted) and getattr(actual, "list_size", 0) == getattr(
            wanted, "list_size", 0
        )
        return is_same_shape and _fits(actual.value_type, wanted.value_type)
    return bool(actual == wanted)


def _joined(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks or [pa.nulls(0, column.type)])
