"""What a historical join reads: the spine and the histories of the views, as values that are checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from batch.historical.computation import Computation
from core_ext import rules
from headrace.types import ENTITY_KEY_SCALARS, Scalar, ValueType

Files = str | Sequence[str]


@dataclass(frozen=True, slots=True)
class KeyColumn:
    """One part of the entity key: its column in the history, in the spine, and its type."""

    history: str
    spine: str
    scalar: Scalar

    def __post_init__(self) -> None:
        if self.scalar not in ENTITY_KEY_SCALARS:
            raise ValueError(f"key {self.history!r} has type {self.scalar.name}: keys are i64, string or bytes")


@dataclass(frozen=True, slots=True)
class FeatureColumn:
    """One column to look up; `default` None means that there is none. It comes out as `output`, or view__name."""

    name: str
    type: ValueType
    default: object = None
    output: str = ""


@dataclass(frozen=True, slots=True)
class HistoryInput:
    """The history of one view: Parquet files in the order that decides between equal rows, a table, or a reader.

    Without a write time it is the event time; without an available time that is the write time. ttl_us and stale_us
    of 0 mean no limit; `fallback` is one of core_ext.rules. A null in `tombstone` counts as false.

    With a computation the rows are events, and the columns are its features.
    """

    name: str
    columns: tuple[FeatureColumn, ...]
    keys: tuple[KeyColumn, ...]
    event_time: str
    rows: Files | pa.Table | pa.RecordBatchReader
    write_time: str | None = None
    available_time: str | None = None
    source_id: str | None = None
    partition: str | None = None
    offset: str | None = None
    tombstone: str | None = None
    ttl_us: int = 0
    stale_us: int = 0
    fallback: int = field(default=rules.FALLBACK_NONE)
    include_expired: bool = False
    computation: Computation | None = None

    def output_of(self, column: FeatureColumn) -> str:
        """Name of a feature in the result."""
        return column.output or f"{self.name}__{column.name}"

    def times(self) -> list[str]:
        """Time columns that the history has."""
        return [name for name in (self.event_time, self.write_time, self.available_time) if name]

    def order(self) -> dict[str, tuple[str, pa.DataType]]:
        """Parameter of the kernel -> column of the history and its type, for what else decides between rows."""
        wanted = {
            "source_ids": (self.source_id, pa.uint32()),
            "partitions": (self.partition, pa.int32()),
            "offsets": (self.offset, pa.int64()),
            "tombstones": (self.tombstone, pa.bool_()),
        }
        return {parameter: (name, kind) for parameter, (name, kind) in wanted.items() if name}

    def match_columns(self) -> list[str]:
        """Columns that decide which rows match."""
        names = [*(key.history for key in self.keys), *self.times(), *(name for name, _ in self.order().values())]
        return list(dict.fromkeys(names))

    def value_columns(self) -> dict[str, ValueType]:
        """Columns of the history that values come from, with their types."""
        if self.computation is not None:
            return dict(self.computation.columns)
        return {column.name: column.type for column in self.columns}


def kind_of(value_type: ValueType) -> tuple[int, int, int, int]:
    """A type as the cores take it."""
    return int(value_type.scalar), int(value_type.shape), value_type.list_size, value_type.element_bytes
