"""Table `served`: a sample of what online servers answered, one row a value, in the offline store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table import Table
from pyiceberg.transforms import DayTransform
from pyiceberg.types import BinaryType, IcebergType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from batch.offline.catalogue import OWN_NAMESPACE, Catalogue
from batch.offline.positions import LogRange, moved, position_of
from batch.skew.served import Answer, Served
from headrace.errors import Aborted, DataLoss, InvalidArgument, NotFound
from headrace.names import parse_feature_ref
from headrace.served import COLUMNS

IDENTIFIER: Final = (*OWN_NAMESPACE, "served")
BATCH_ROWS: Final = 20_000
COMMIT_TRIES_MAX: Final = 16
_DAY_FIELD_ID: Final = 1_000

_TYPES: Final[Mapping[pa.DataType, IcebergType]] = {
    pa.timestamp("us", tz="UTC"): TimestamptzType(),
    pa.binary(): BinaryType(),
    pa.string(): StringType(),
    pa.int32(): IntegerType(),
    pa.int64(): LongType(),
}
_ICEBERG: Final = Schema(
    *(
        NestedField(number, column.name, _TYPES[column.type], required=not column.nullable)
        for number, column in enumerate(COLUMNS, start=1)
    )
)
_BY_DAY: Final = PartitionSpec(PartitionField(1, _DAY_FIELD_ID, DayTransform(), "served_day"))


@dataclass(frozen=True, slots=True)
class ServedFilter:
    """Which answers: served in [since, until), of some features; None and empty mean all."""

    since_us: int | None = None
    until_us: int | None = None
    features: tuple[str, ...] = ()

    @property
    def expression(self) -> BooleanExpression:
        """For Iceberg, which prunes days by it."""
        # Any: mypy sees the fields of these pydantic classes, not the constructors that they define.
        limits: Sequence[tuple[Any, int | None]] = ((GreaterThanOrEqual, self.since_us), (LessThan, self.until_us))
        result: BooleanExpression = AlwaysTrue()
        for compare, time_us in limits:
            if time_us is not None:
                result = And(result, compare("served_time", time_us))
        return result


class ServedLog:
    """Appends and reads answers."""

    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def append(self, rows: pa.Table, part: LogRange | None = None) -> int:
        """Adds rows of the schema COLUMNS in one commit, and returns how many.

        Of a range of a log, whose rows come one per offset, those that the table has taken are left out.
        """
        try:
            given = rows.select(COLUMNS.names).cast(COLUMNS)
            given.validate()
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise InvalidArgument(
                f"the rows are no served answers: {error}", reason="BAD_SERVED_ROWS", field="rows"
            ) from error
        if part is not None and part.next_offset - part.first_offset != given.num_rows:
            raise InvalidArgument(
                f"{given.num_rows} rows are given for {part.text}; give one per offset",
                reason="ROWS_OUTSIDE_RANGES",
                field="rows",
            )
        for _ in range(COMMIT_TRIES_MAX):
            table = self._table()
            kept = given if part is None else given.slice(_taken(table, part))
            if not kept.num_rows:
                return 0
            try:
                with table.transaction() as transaction:
                    transaction.append(kept)
                    if part is not None:
                        transaction.set_properties(moved([part]))
            except CommitFailedException:
                continue
            return int(kept.num_rows)
        raise Aborted("the table of served answers is busy; try again", reason="TABLE_BUSY")

    def _table(self) -> Table:
        table = self._catalogue.table(IDENTIFIER, _ICEBERG, _BY_DAY)
        names = {column.name for column in table.schema().fields}
        missing = [column for column in _ICEBERG.fields if column.name not in names]
        if missing:  # it was made by an earlier release
            with table.update_schema() as update:
                for column in missing:
                    update.add_column(column.name, column.field_type)
        return table

    def batches(self, wanted: ServedFilter) -> Iterator[list[Served]]:
        """Answers in batches of at most BATCH_ROWS; nothing where no server has logged."""
        try:
            table = self._catalogue.load(IDENTIFIER)
        except NotFound:
            return
        only = set(wanted.features)
        for batch in table.scan(wanted.expression).to_arrow_batch_reader():
            rows = _completed(pa.Table.from_batches([batch])).select(COLUMNS.names).cast(COLUMNS)
            for first in range(0, rows.num_rows, BATCH_ROWS):
                found = _answers(rows.slice(first, BATCH_ROWS), only)
                if found:
                    yield found


def _taken(table: Table, part: LogRange) -> int:
    """How many of the first rows of a range the table has."""
    epoch, next_offset = position_of(table.properties, part)
    if part.epoch != epoch:
        return part.next_offset - part.first_offset if part.epoch < epoch else 0
    return min(max(next_offset - part.first_offset, 0), part.next_offset - part.first_offset)


def rows_of(served: Sequence[Served]) -> pa.Table:
    """Answers as rows of the table."""
    columns = {
        "served_time": [one.time_us for one in served],
        "entity_key": [one.entity_key for one in served],
        "feature": [str(one.feature) for one in served],
        "status": [one.answer.status for one in served],
        "value": [one.answer.value for one in served],
        "row_event_time_us": [one.answer.event_time_us for one in served],
        "shard": [one.shard for one in served],
        "shard_epoch": [one.shard_epoch for one in served],
        "applied_offset": [one.applied_offset for one in served],
        "registry_revision": [one.registry_revision for one in served],
        "transform_digest": [one.transform_digest for one in served],
        "feature_service": [one.feature_service or None for one in served],
        "trace_id": [one.trace_id or None for one in served],
    }
    return pa.table(columns, COLUMNS)


def _completed(rows: pa.Table) -> pa.Table:
    """Rows with the columns that a table of an earlier release lacks, all null."""
    for column in COLUMNS:
        if column.nullable and column.name not in rows.column_names:
            rows = rows.append_column(column, pa.nulls(rows.num_rows, column.type))
    return rows


def _answers(rows: pa.Table, only: set[str]) -> list[Served]:
    times = rows["served_time"].cast(pa.int64()).to_pylist()
    columns = [rows[name].to_pylist() for name in COLUMNS.names[1:]]
    found = []
    try:
        for time_us, row in zip(times, zip(*columns, strict=True), strict=True):
            key, feature, status, value, event_us, shard, epoch, offset, revision, digest, service, trace_id = row
            if only and feature not in only:
                continue
            answer = Answer(status, value, event_us)
            reference = parse_feature_ref(feature)
            place = (time_us, shard, epoch, offset, revision)
            found.append(Served(key, reference, answer, *place, digest, service or "", trace_id or b""))
    except InvalidArgument as error:
        raise DataLoss(
            f"the table of served answers holds what no server writes: {error.message}", reason="SERVED_LOG_CORRUPT"
        ) from error
    return found
