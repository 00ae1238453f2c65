"""One answer of GetOnlineFeatures: columns by name, as views of the received bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from headrace.client.arrays import DEFAULTED_FLAG, STATE_MASK, Column, as_arrow, as_numpy
from headrace.client.wire import fields, malformed
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb

if TYPE_CHECKING:
    import pandas as pd

_PRESENT: Final = pb.VALUE_STATE_PRESENT
_EXPIRED: Final = pb.VALUE_STATE_EXPIRED
_ANSWER: Final = {name: field.number for name, field in pb.GetOnlineFeaturesResponse.DESCRIPTOR.fields_by_name.items()}
_COLUMN: Final = {name: field.number for name, field in pb.FeatureColumn.DESCRIPTOR.fields_by_name.items()}


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column that a selection answers."""

    name: str
    feature: str
    value_type: ValueType


@dataclass(frozen=True, slots=True)
class PreparedFeatures:
    """A resolved selection: reads by its handle skip names and resolution."""

    handle: bytes
    columns: tuple[OutputColumn, ...]
    join_keys: Mapping[str, Scalar]
    registry_revision: int
    feature_service: str


class FeatureBatch:
    """Values, statuses and event times of one batch. Arrays share the answer's bytes and are read-only.

    An expired value counts as a value only in a read with include_expired.
    """

    def __init__(self, answer: bytes, outputs: Sequence[OutputColumn] = (), *, include_expired: bool = False) -> None:
        self._answer = answer
        self._outputs = outputs
        self._include_expired = include_expired
        spans: list[tuple[int, int]] = []
        numbers = dict.fromkeys(_ANSWER.values(), 0)
        for number, start, end in fields(answer, 0, len(answer)):
            if number == _ANSWER["columns"] and end >= 0:
                spans.append((start, end))
            elif end < 0:
                numbers[number] = start
        self.row_count: Final = numbers[_ANSWER["row_count"]]
        self.registry_revision: Final = numbers[_ANSWER["registry_revision"]]
        self.read_time_us: Final = numbers[_ANSWER["read_time_us"]]
        if outputs and len(outputs) != len(spans):
            raise malformed(f"{len(spans)} columns where the handle has {len(outputs)}")
        self._spans = spans
        self._decoded: dict[int, Column] = {}
        self._positions: dict[str, int] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Output names in the order of the selection."""
        return tuple(self._names())

    def numpy(self, name: str) -> NDArray[Any]:
        """Values by slot, uncopied for types of fixed width: timestamps as datetime64[us], dates as days since 1970.

        A slot without a value is zero; `statuses` or `states` tells which.
        """
        return as_numpy(self._column(name))

    def statuses(self, name: str) -> NDArray[np.uint8]:
        """Status bytes: state in the low nibble, flags and cause in the high one."""
        return np.frombuffer(self._column(name).statuses, np.uint8)

    def states(self, name: str) -> NDArray[np.uint8]:
        """States alone, comparable with headrace.client.ValueState."""
        return self.statuses(name) & np.uint8(STATE_MASK)

    def event_times(self, name: str) -> NDArray[np.datetime64]:
        """Event times in UTC, the epoch where there is no row; only in a read with include_event_times."""
        column = self._column(name)
        if self.row_count and not len(column.event_times):
            raise InvalidArgument(
                f"event times of {name} were not asked for; read with ReadOptions(include_event_times=True)",
                reason="EVENT_TIMES_NOT_REQUESTED",
                field="options.include_event_times",
                metadata={"column": name},
            )
        return np.frombuffer(column.event_times, "<i8").view("<M8[us]")

    def has_value(self, name: str) -> NDArray[np.bool_]:
        """Which slots hold a value: present, a typed default, or expired in a read with include_expired."""
        statuses = self.statuses(name)
        states = statuses & np.uint8(STATE_MASK)
        found: NDArray[np.bool_] = (states == _PRESENT) | ((statuses & np.uint8(DEFAULTED_FLAG)) != 0)
        if self._include_expired:
            found |= states == _EXPIRED
        return found

    def to_arrow(self) -> pa.RecordBatch:
        """All columns, null where there is no value; shares the answer's bytes where Arrow's alignment allows."""
        names = self.columns
        arrays = [as_arrow(self._column(name), self.has_value(name)) for name in names]
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    def to_pandas(self) -> "pd.DataFrame":
        """All columns as a data frame; needs pandas (`pip install headrace[pandas]`)."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def _names(self) -> dict[str, int]:
        if not self._positions:
            if self._outputs:
                names = [output.name for output in self._outputs]
            else:
                names = [self._decode(index).name for index in range(len(self._spans))]
            self._positions = {name: index for index, name in enumerate(names)}
        return self._positions

    def _column(self, name: str) -> Column:
        position = self._names().get(name)
        if position is None:
            raise InvalidArgument(
                f"no column {name} in this batch; it has {', '.join(self._names())}",
                reason="COLUMN_UNKNOWN",
                field="name",
                metadata={"column": name},
            )
        return self._decode(position)

    def _decode(self, position: int) -> Column:
        column = self._decoded.get(position)
        if column is None:
            output = self._outputs[position] if self._outputs else None
            column = _decode_column(self._answer, *self._spans[position], output)
            column.check(self.row_count)
            self._decoded[position] = column
        return column


def value_type_of(message: value_pb2.ValueType) -> ValueType:
    """Type from its wire form; raises InternalError for one that this release does not know."""
    try:
        return ValueType(Scalar(message.scalar_type), Shape(message.list_shape), message.list_size)
    except ValueError as error:
        raise malformed(f"unknown type {message.scalar_type}") from error


def _decode_column(answer: bytes, start: int, end: int, output: OutputColumn | None) -> Column:
    view = memoryview(answer)
    found = {number: view[at:stop] for number, at, stop in fields(answer, start, end) if stop >= 0}
    blocks = {name: found.get(number, view[:0]) for name, number in _COLUMN.items()}
    return Column(
        name=output.name if output else str(blocks["name"], "utf-8"),
        value_type=output.value_type if output else _value_type(bytes(blocks["value_type"])),
        values=blocks["values"],
        offsets=blocks["offsets"],
        statuses=blocks["statuses"],
        event_times=blocks["event_times"],
    )


def _value_type(payload: bytes) -> ValueType:
    return value_type_of(value_pb2.ValueType.FromString(payload))
