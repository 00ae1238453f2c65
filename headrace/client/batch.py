"""One answer of GetOnlineFeatures: columns by name, as views of their packed bytes."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from core_ext.answers import EVENT_TIMES, OFFSETS, STATUSES, VALUES, Answer, MalformedAnswerError
from headrace.client.arrays import (
    STATE_MASK,
    Column,
    as_arrow,
    as_objects,
    served,
    shaped,
)
from headrace.client.wire import malformed
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType
from protos.common.v1 import value_pb2

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True)
class OutputColumn:
    """One column that a selection answers."""

    name: str
    feature: str
    value_type: ValueType


class Outputs(tuple[OutputColumn, ...]):
    """The columns of a selection, with what every answer of it needs of them."""

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Positions by name."""
        return {output.name: position for position, output in enumerate(self)}

    @cached_property
    def float_type(self) -> ValueType | None:
        """The one type of all, where that is a single float."""
        return float_type_of({output.value_type for output in self})

    @cached_property
    def frame_columns(self) -> "pd.Index[str]":
        """Names as the columns of a data frame."""
        import pandas as pd  # optional

        return pd.Index([output.name for output in self])


@dataclass(frozen=True, slots=True)
class PreparedFeatures:
    """A resolved selection: reads by its handle skip names and resolution, and bring the request fields as data."""

    handle: bytes
    columns: tuple[OutputColumn, ...]
    join_keys: Mapping[str, Scalar]
    registry_revision: int
    feature_service: str
    request_fields: Mapping[str, ValueType] = field(default_factory=dict)


class FeatureBatch:
    """Values, statuses and event times of one batch. Arrays share one aligned buffer and are read-only."""

    def __init__(self, answer: bytes, outputs: Sequence[OutputColumn] = ()) -> None:
        try:
            self._answer: Final = Answer(answer)
        except MalformedAnswerError as error:
            raise malformed(str(error)) from error
        self._outputs: Final = outputs if isinstance(outputs, Outputs) else Outputs(outputs)
        self.row_count: Final = self._answer.row_count
        self.registry_revision: Final = self._answer.registry_revision
        self.read_time_us: Final = self._answer.read_time_us
        count = len(self._answer)
        if outputs and len(outputs) != count:
            raise malformed(f"{count} columns where the handle has {len(outputs)}")
        self._positions: Final = (
            self._outputs.positions
            if outputs
            else {name: position for position, name in enumerate(map(self._answer.name, range(count)))}
        )
        self._checked: Final[dict[int, ValueType]] = {}

    @property
    def columns(self) -> tuple[str, ...]:
        """Output names in the order of the selection."""
        return tuple(self._positions)

    def numpy(self, name: str) -> NDArray[Any]:
        """Values by slot, uncopied for types of fixed width: timestamps as datetime64[us], dates as days since 1970.

        A slot without a value is zero; `statuses` or `states` tells which.
        """
        position, kind = self._at(name)
        if not kind.slot_bytes:
            return as_objects(self._column(name))
        start, byte_count = self._answer.place(position, VALUES)
        return shaped(np.frombuffer(self._answer.blocks, kind.numpy, byte_count // kind.element_bytes, start), kind)

    def statuses(self, name: str) -> NDArray[np.uint8]:
        """Status bytes: state in the low nibble, flags and cause in the high one."""
        start, row_count = self._answer.place(self._at(name)[0], STATUSES)
        return np.frombuffer(self._answer.blocks, np.uint8, row_count, start)

    def states(self, name: str) -> NDArray[np.uint8]:
        """States alone, comparable with headrace.client.ValueState."""
        return self.statuses(name) & np.uint8(STATE_MASK)

    def event_times(self, name: str) -> NDArray[np.datetime64]:
        """Event times in UTC, the epoch where there is no row; only in a read with include_event_times."""
        start, byte_count = self._answer.place(self._at(name)[0], EVENT_TIMES)
        if self.row_count and not byte_count:
            raise InvalidArgument(
                f"event times of {name} were not asked for; read with ReadOptions(include_event_times=True)",
                reason="EVENT_TIMES_NOT_REQUESTED",
                field="options.include_event_times",
                metadata={"column": name},
            )
        return np.frombuffer(self._answer.blocks, "<M8[us]", byte_count // 8, start)

    def has_value(self, name: str) -> NDArray[np.bool_]:
        """Which slots hold a value: present, a typed default, or expired and not withheld."""
        return served(self.statuses(name))

    def to_arrow(self) -> pa.RecordBatch:
        """All columns, null where there is no value; shares its columns' bytes where Arrow's alignment allows."""
        names = self.columns
        arrays = [as_arrow(self._column(name), self.has_value(name)) for name in names]
        return pa.RecordBatch.from_arrays(arrays, names=list(names))

    def to_pandas(self) -> "pd.DataFrame":
        """All columns as a data frame; needs pandas (`pip install headrace[pandas]`)."""
        import pandas as pd  # optional

        # A frame made of one array takes a fraction of the time of one that is made column by column.
        kind = self._float_type()
        if kind is None:
            frame: pd.DataFrame = self.to_arrow().to_pandas()
            return frame
        floats = np.frombuffer(self._floats(kind.slot_bytes), kind.numpy).reshape(len(self._positions), self.row_count)
        # A view, as whoever has the frame may name its columns.
        columns = self._outputs.frame_columns.view() if self._outputs else list(self._positions)
        return pd.DataFrame(floats.T, columns=columns, copy=False)

    def _float_type(self) -> ValueType | None:
        if not self.row_count or len(self._positions) != len(self._answer):
            return None
        if self._outputs:
            return self._outputs.float_type
        return float_type_of({self._at(name)[1] for name in self.columns})

    def _floats(self, slot_bytes: int) -> bytearray:
        try:
            return self._answer.floats(slot_bytes)
        except MalformedAnswerError as error:
            for name in self.columns:  # one of them is refused under its name
                self._at(name)
            raise malformed(str(error)) from error

    def _column(self, name: str) -> Column:
        position, kind = self._at(name)
        values, offsets, statuses = (
            self._answer.blocks[start : start + byte_count]
            for start, byte_count in (self._answer.place(position, block) for block in (VALUES, OFFSETS, STATUSES))
        )
        return Column(name, kind, values, offsets, statuses)

    def _at(self, name: str) -> tuple[int, ValueType]:
        """Position and type of a column whose blocks have the sizes that its type and the row count ask for."""
        position = self._positions.get(name)
        if position is None:
            raise InvalidArgument(
                f"no column {name} in this batch; it has {', '.join(self._positions)}",
                reason="COLUMN_UNKNOWN",
                field="name",
                metadata={"column": name},
            )
        kind = self._checked.get(position)
        if kind is None:
            outputs = self._outputs
            kind = outputs[position].value_type if outputs else _value_type(*self._answer.value_type(position))
            try:
                self._answer.check(position, kind.slot_bytes)
            except MalformedAnswerError as error:
                raise malformed(f"column {name}: {error}") from error
            self._checked[position] = kind
        return position, kind


def float_type_of(kinds: Collection[ValueType]) -> ValueType | None:
    """The one type among these, where it is a single float."""
    if len(kinds) != 1:
        return None
    (kind,) = kinds
    return kind if kind.scalar in (Scalar.F32, Scalar.F64) and kind.shape is Shape.SINGLE else None


def value_type_of(message: value_pb2.ValueType) -> ValueType:
    """Type from its wire form; raises InternalError for one that this release does not know."""
    return _value_type(message.scalar_type, message.list_shape, message.list_size)


@cache
def _value_type(scalar: int, shape: int, list_size: int) -> ValueType:
    try:
        return ValueType(Scalar(scalar), Shape(shape), list_size)
    except ValueError as error:
        raise malformed(f"unknown type {scalar}") from error
