"""One answer of GetOnlineFeatures: columns by name, as views of their packed bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from google.protobuf.message import DecodeError
from numpy.typing import NDArray

from headrace.client.arrays import DEFAULTED_FLAG, STATE_MASK, WITHHELD_FLAG, Column, as_arrow, as_numpy
from headrace.client.wire import malformed
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb

if TYPE_CHECKING:
    import pandas as pd

_PRESENT: Final = pb.VALUE_STATE_PRESENT
_EXPIRED: Final = pb.VALUE_STATE_EXPIRED


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
    """Values, statuses and event times of one batch. Arrays share their column's bytes and are read-only.

    Parsed by protobuf: walking the answer in Python to save the one copy per column took twenty times as long.
    """

    def __init__(self, answer: bytes, outputs: Sequence[OutputColumn] = ()) -> None:
        try:
            message = pb.GetOnlineFeaturesResponse.FromString(answer)
        except DecodeError as error:
            raise malformed("it is no message of this contract") from error
        self._columns: Final = message.columns
        self._outputs: Final = outputs
        self.row_count: Final = message.row_count
        self.registry_revision: Final = message.registry_revision
        self.read_time_us: Final = message.read_time_us
        if outputs and len(outputs) != len(self._columns):
            raise malformed(f"{len(self._columns)} columns where the handle has {len(outputs)}")
        names = [output.name for output in outputs] if outputs else [column.name for column in message.columns]
        self._positions: Final = {name: position for position, name in enumerate(names)}
        self._decoded: Final[dict[int, Column]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Output names in the order of the selection."""
        return tuple(self._positions)

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
        """Which slots hold a value: present, a typed default, or expired and not withheld."""
        statuses = self.statuses(name)
        states = statuses & np.uint8(STATE_MASK)
        is_served = (states == _EXPIRED) & ((statuses & np.uint8(WITHHELD_FLAG)) == 0)
        found: NDArray[np.bool_] = (states == _PRESENT) | is_served | ((statuses & np.uint8(DEFAULTED_FLAG)) != 0)
        return found

    def to_arrow(self) -> pa.RecordBatch:
        """All columns, null where there is no value; shares its columns' bytes where Arrow's alignment allows."""
        names = self.columns
        arrays = [as_arrow(self._column(name), self.has_value(name)) for name in names]
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    def to_pandas(self) -> "pd.DataFrame":
        """All columns as a data frame; needs pandas (`pip install headrace[pandas]`)."""
        frame: pd.DataFrame = self.to_arrow().to_pandas()
        return frame

    def _column(self, name: str) -> Column:
        position = self._positions.get(name)
        if position is None:
            raise InvalidArgument(
                f"no column {name} in this batch; it has {', '.join(self._positions)}",
                reason="COLUMN_UNKNOWN",
                field="name",
                metadata={"column": name},
            )
        column = self._decoded.get(position)
        if column is None:
            column = self._decoded[position] = self._decode(name, position)
        return column

    def _decode(self, name: str, position: int) -> Column:
        """Taken out of the message once: each access to a bytes field of protobuf is a copy."""
        message = self._columns[position]
        kind = self._outputs[position].value_type if self._outputs else value_type_of(message.value_type)
        column = Column(
            name=name,
            value_type=kind,
            slot_bytes=kind.slot_bytes,
            values=message.values,
            offsets=message.offsets,
            statuses=message.statuses,
            event_times=message.event_times,
        )
        column.check(self.row_count)
        return column


def value_type_of(message: value_pb2.ValueType) -> ValueType:
    """Type from its wire form; raises InternalError for one that this release does not know."""
    return _value_type(message.scalar_type, message.list_shape, message.list_size)


@cache
def _value_type(scalar: int, shape: int, list_size: int) -> ValueType:
    try:
        return ValueType(Scalar(scalar), Shape(shape), list_size)
    except ValueError as error:
        raise malformed(f"unknown type {scalar}") from error
