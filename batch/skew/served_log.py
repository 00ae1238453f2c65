"""Table `served`: a sample of what online servers answered, one row a value, in the offline store."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.transforms import DayTransform
from pyiceberg.types import BinaryType, IcebergType, IntegerType, LongType, NestedField, StringType, TimestamptzType

from batch.offline.catalogue import OWN_NAMESPACE, Catalogue
from batch.skew.served import Answer, Served
from headrace.errors import Aborted, DataLoss, InvalidArgument, NotFound
from headrace.names import parse_feature_ref

IDENTIFIER: Final = (*OWN_NAMESPACE, "served")
BATCH_ROWS: Final = 20_000
COMMIT_TRIES_MAX: Final = 16
_DAY_FIELD_ID: Final = 1_000
_UTC: Final = pa.timestamp("us", tz="UTC")

# name, Iceberg type, Arrow type, whether it must be there
_COLUMNS: Final[tuple[tuple[str, IcebergType, pa.DataType, bool], ...]] = (
    ("served_time", TimestamptzType(), _UTC, True),
    ("entity_key", BinaryType(), pa.binary(), True),
    ("feature", StringType(), pa.string(), True),  # view@vN:feature
    ("status", IntegerType(), pa.int32(), True),
    ("value", BinaryType(), pa.binary(), True),  # canonical bytes, empty in an empty slot
    ("row_event_time_us", LongType(), pa.int64(), False),  # of the row that gave it; null where it was not logged
    ("shard", IntegerType(), pa.int32(), True),
    ("shard_epoch", LongType(), pa.int64(), True),
    ("applied_offset", LongType(), pa.int64(), True),
    ("registry_revision", LongType(), pa.int64(), True),
    ("transform_digest", BinaryType(), pa.binary(), True),
)
ARROW: Final = pa.schema([pa.field(name, kind, nullable=not required) for name, _, kind, required in _COLUMNS])
_ICEBERG: Final = Schema(
    *(
        NestedField(number, name, kind, required=required)
        for number, (name, kind, _, required) in enumerate(_COLUMNS, start=1)
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

    def append(self, rows: pa.Table) -> None:
        """Adds rows of the schema ARROW in one commit; the caller keeps its segments from being added twice."""
        try:
            given = rows.select(ARROW.names).cast(ARROW)
            given.validate()
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise InvalidArgument(
                f"the rows are no served answers: {error}", reason="BAD_SERVED_ROWS", field="rows"
            ) from error
        for _ in range(COMMIT_TRIES_MAX):
            try:
                self._catalogue.table(IDENTIFIER, _ICEBERG, _BY_DAY).append(given)
            except CommitFailedException:
                continue
            return
        raise Aborted("the table of served answers is busy; try again", reason="TABLE_BUSY")

    def batches(self, wanted: ServedFilter) -> Iterator[list[Served]]:
        """Answers in batches of at most BATCH_ROWS; nothing where no server has logged."""
        try:
            table = self._catalogue.load(IDENTIFIER)
        except NotFound:
            return
        only = set(wanted.features)
        for batch in table.scan(wanted.expression).to_arrow_batch_reader():
            rows = pa.Table.from_batches([batch]).select(ARROW.names).cast(ARROW)
            for first in range(0, rows.num_rows, BATCH_ROWS):
                found = _answers(rows.slice(first, BATCH_ROWS), only)
                if found:
                    yield found


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
    }
    return pa.table(columns, ARROW)


def _answers(rows: pa.Table, only: set[str]) -> list[Served]:
    times = rows["served_time"].cast(pa.int64()).to_pylist()
    columns = [rows[name].to_pylist() for name in ARROW.names[1:]]
    found = []
    try:
        for time_us, row in zip(times, zip(*columns, strict=True), strict=True):
            key, feature, status, value, event_us, shard, epoch, offset, revision, digest = row
            if only and feature not in only:
                continue
            answer = Answer(status, value, event_us)
            found.append(
                Served(key, parse_feature_ref(feature), answer, time_us, shard, epoch, offset, revision, digest)
            )
    except InvalidArgument as error:
        raise DataLoss(
            f"the table of served answers holds what no server writes: {error.message}", reason="SERVED_LOG_CORRUPT"
        ) from error
    return found
