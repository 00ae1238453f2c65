"""Columns of the table of a source's events: what an event holds, and where in its topic it stood."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import pyarrow as pa
from pyiceberg.schema import Schema
from pyiceberg.types import IntegerType, LongType, TimestamptzType

from batch.offline.columns import EVENT_TIME, OFFSET, PARTITION, WRITE_TIME, arrow_type, iceberg_type, numbered
from headrace.types import ValueType

ROW: Final = "_row"  # in its message
NAMESPACE: Final = ("_headrace", "events")  # no team begins with an underscore, and lists of views leave it out
_TIME: Final = pa.timestamp("us", tz="UTC")
# Name, types, and whether every event has one: one without a time, or of a topic without a clock, is kept.
PLACE_COLUMNS: Final = (
    (EVENT_TIME, TimestamptzType(), _TIME, False),
    (WRITE_TIME, TimestamptzType(), _TIME, False),
    (PARTITION, IntegerType(), pa.int32(), True),
    (OFFSET, LongType(), pa.int64(), True),
    (ROW, IntegerType(), pa.int32(), True),
)
PLACE_NAMES: Final = frozenset(name for name, *_ in PLACE_COLUMNS)


@dataclass(frozen=True, slots=True)
class EventColumns:
    """Name and columns of a source; its event time stands twice, in its own column and in `_event_time`."""

    source: str
    types: Mapping[str, ValueType]

    @property
    def ref(self) -> str:
        """The source, for messages."""
        return self.source

    @property
    def identifier(self) -> tuple[str, ...]:
        """Namespaces and name of its table."""
        return (*NAMESPACE, *self.source.split("."))

    @property
    def iceberg(self) -> Schema:
        """Schema of its table; only places are required."""
        fields = [(name, iceberg_type(kind), False) for name, kind in self.types.items()]
        return numbered([*fields, *((name, kind, required) for name, kind, _, required in PLACE_COLUMNS)])

    @property
    def arrow(self) -> pa.Schema:
        """What an append takes and a read gives."""
        fields = [pa.field(name, arrow_type(kind)) for name, kind in self.types.items()]
        fields += [pa.field(name, kind, nullable=not required) for name, _, kind, required in PLACE_COLUMNS]
        return pa.schema(fields)
