"""Columns of the table of a view version: join keys, features, and what the platform adds, as Iceberg and Arrow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import pyarrow as pa
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    TimestamptzType,
)

from headrace.names import VersionRef
from headrace.types import Scalar, Shape, ValueType

# No name of a key or a feature begins with an underscore.
EVENT_TIME: Final = "_event_time"
WRITE_TIME: Final = "_write_time"
AVAILABLE_TIME: Final = "_available_time"
SOURCE_ID: Final = "_source_id"
PARTITION: Final = "_log_partition"  # `_partition` is a column of Iceberg itself: Spark refuses tables that have it
OFFSET: Final = "_offset"
TOMBSTONE: Final = "_tombstone"
EVENT_DAY: Final = "_event_day"  # the hidden partition
_DAY_FIELD_ID: Final = 1_000  # where Iceberg begins to count partition fields

_TIME: Final = pa.timestamp("us", tz="UTC")
SYSTEM_COLUMNS: Final = (
    (EVENT_TIME, TimestamptzType(), _TIME),
    (WRITE_TIME, TimestamptzType(), _TIME),
    (AVAILABLE_TIME, TimestamptzType(), _TIME),
    (SOURCE_ID, LongType(), pa.uint32()),  # Iceberg has no u32
    (PARTITION, IntegerType(), pa.int32()),
    (OFFSET, LongType(), pa.int64()),
    (TOMBSTONE, BooleanType(), pa.bool_()),
)

_ICEBERG: Final[dict[Scalar, IcebergType]] = {
    Scalar.BOOL: BooleanType(),
    Scalar.I32: IntegerType(),
    Scalar.I64: LongType(),
    Scalar.F32: FloatType(),
    Scalar.F64: DoubleType(),
    Scalar.STRING: StringType(),
    Scalar.BYTES: BinaryType(),
    Scalar.TIMESTAMP_US: TimestamptzType(),
    Scalar.DATE: DateType(),
}


class TableColumns(Protocol):
    """Name and columns of a table that takes ranges of logs."""

    @property
    def ref(self) -> VersionRef | str:
        """What it holds, for messages."""

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespaces and name."""

    @property
    def iceberg(self) -> Schema:
        """What is stored."""

    @property
    def arrow(self) -> pa.Schema:
        """What an append takes and a read gives."""


@dataclass(frozen=True, slots=True)
class ViewColumns:
    """Name, keys and features of one view version, in the order of its rows."""

    ref: VersionRef
    keys: Sequence[tuple[str, Scalar]]
    features: Sequence[tuple[str, ValueType]]

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespace and name of its table: team.domain.name_vN."""
        *namespace, name = self.ref.name.split(".")
        return (*namespace, f"{name}_v{self.ref.version}")

    @property
    def iceberg(self) -> Schema:
        """Schema of its table. Only what the platform itself always writes is required."""
        fields = [(name, _ICEBERG[scalar], True) for name, scalar in self.keys]
        fields += [(name, iceberg_type(kind), False) for name, kind in self.features]
        fields += [(name, kind, True) for name, kind, _ in SYSTEM_COLUMNS]
        return numbered(fields)

    @property
    def arrow(self) -> pa.Schema:
        """What an append takes and a read gives; fixed lists keep their size here alone."""
        fields = [pa.field(name, ValueType(scalar).arrow, nullable=False) for name, scalar in self.keys]
        fields += [pa.field(name, arrow_type(kind)) for name, kind in self.features]
        fields += [pa.field(name, kind, nullable=False) for name, _, kind in SYSTEM_COLUMNS]
        return pa.schema(fields)


def day_partition(schema: Schema) -> PartitionSpec:
    """Hidden partition by the UTC day of the event time."""
    source_id = schema.find_field(EVENT_TIME).field_id
    return PartitionSpec(PartitionField(source_id, _DAY_FIELD_ID, DayTransform(), EVENT_DAY))


def numbered(fields: Sequence[tuple[str, IcebergType, bool]]) -> Schema:
    """A schema of names, types and whether a value is required."""
    # Ids of list elements follow those of the columns, as Iceberg itself numbers them.
    found = []
    element_id = len(fields)
    for number, (name, kind, required) in enumerate(fields, start=1):
        held = kind
        if isinstance(kind, ListType):
            element_id += 1
            held = ListType(element_id, kind.element_type, element_required=False)
        found.append(NestedField(number, name, held, required=required))
    return Schema(*found)


def arrow_type(kind: ValueType) -> pa.DataType:
    """What an append takes and a read gives for a type of ours."""
    # Elements are never null, and declared as if they could be: Arrow fills the place of a null list with nulls.
    element = ValueType(kind.scalar).arrow
    if kind.shape is Shape.FIXED:
        return pa.list_(element, kind.list_size)
    return element if kind.shape is Shape.SINGLE else pa.list_(element)


def iceberg_type(kind: ValueType) -> IcebergType:
    """What a table holds for a type of ours."""
    element = _ICEBERG[kind.scalar]
    # The id is given when the columns are numbered.
    return element if kind.shape is Shape.SINGLE else ListType(0, element, element_required=False)
