"""The table of one view version, or of the events of a source: appends exactly once, reads of one snapshot, pins."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple, TypeVar

import pyarrow as pa
from pyiceberg.exceptions import CommitFailedException
from pyiceberg.expressions import AlwaysTrue, And, BooleanExpression, GreaterThanOrEqual, LessThan, LessThanOrEqual
from pyiceberg.table import Table

from batch.offline.columns import EVENT_TIME, WRITE_TIME, TableColumns
from batch.offline.positions import RANGES_PROPERTY, LogRange, Position, moved, position_of, untaken
from headrace.errors import Aborted, InvalidArgument, NotFound

COMMIT_TRIES_MAX: Final = 16  # beside a compaction and a handful of other writers
PIN_PREFIX: Final = "pin-"

T = TypeVar("T")


class Appended(NamedTuple):
    """What an append did; the snapshot is that of the table after it, None where the table has none."""

    row_count: int
    skipped_count: int
    snapshot_id: int | None


@dataclass(frozen=True, slots=True)
class ReadFilter:
    """Which rows a read gives; times in microseconds since the epoch, None for no limit."""

    event_first_us: int | None = None
    event_end_us: int | None = None  # excluded
    write_last_us: int | None = None  # included: the knowledge cut-off

    @property
    def expression(self) -> BooleanExpression:
        """For Iceberg, which prunes days and files by it."""
        # Any: mypy sees the fields of these pydantic classes, not the constructors that they define.
        limits: Sequence[tuple[Any, str, int | None]] = (
            (GreaterThanOrEqual, EVENT_TIME, self.event_first_us),
            (LessThan, EVENT_TIME, self.event_end_us),
            (LessThanOrEqual, WRITE_TIME, self.write_last_us),
        )
        result: BooleanExpression = AlwaysTrue()
        for compare, name, value_us in limits:
            if value_us is not None:
                result = And(result, compare(name, value_us))
        return result


class ViewTable:
    """History of one view version or of one source. `load` gives the table as the catalogue has it now."""

    def __init__(self, columns: TableColumns, load: Callable[[], Table]) -> None:
        self.columns = columns
        self._load = load

    def reading(self, columns: TableColumns) -> "ViewTable":
        """The same table, of which other columns are read."""
        return ViewTable(columns, self._load)

    @property
    def snapshot_id(self) -> int | None:
        """The newest snapshot."""
        snapshot = self._load().current_snapshot()
        return None if snapshot is None else snapshot.snapshot_id

    def append(self, rows: pa.Table, ranges: Sequence[LogRange]) -> Appended:
        """Adds the rows of ranges of a log, without those that the table has taken before, in one commit.

        The position of each log lies in the table's properties, changed by the same commit as the rows: it outlives
        the expiry of snapshots and a rewrite by another engine. Each snapshot also names the ranges that it added.
        """
        given = self._checked(rows)

        def change(table: Table) -> Appended:
            new, parts = untaken(given, ranges, table.properties)
            if parts:
                self._commit(table, new, parts)
            return Appended(len(new), len(rows) - len(new), _snapshot_id(table))

        return self._change(change)

    def position(self, part: LogRange) -> Position:
        """How far the table has taken the partition of a range."""
        return position_of(self._load().properties, part)

    def read(
        self, rows: ReadFilter = ReadFilter(), snapshot_id: int | None = None, names: Sequence[str] = ("*",)
    ) -> pa.RecordBatchReader:
        """Rows of one snapshot, the newest by default, batch by batch; later commits change nothing in it."""
        table = self._load()
        if snapshot_id is None:
            snapshot_id = _snapshot_id(table)
        elif table.snapshot_by_id(snapshot_id) is None:
            raise self._no_snapshot(snapshot_id)
        schema = self.columns.arrow
        if tuple(names) != ("*",):
            schema = pa.schema([schema.field(name) for name in names])
        if snapshot_id is None:
            return pa.RecordBatchReader.from_batches(schema, [])
        scan = table.scan(rows.expression, selected_fields=tuple(schema.names), snapshot_id=snapshot_id)
        found = scan.to_arrow_batch_reader()
        return pa.RecordBatchReader.from_batches(schema, (shaped(batch, schema) for batch in found))

    def pin(self, name: str, snapshot_id: int) -> None:
        """Keeps a snapshot from expiring until the name is released; pinned again to the same one, nothing changes."""

        def change(table: Table) -> None:
            ref = table.refs().get(PIN_PREFIX + name)
            if ref is not None and ref.snapshot_id != snapshot_id:
                raise InvalidArgument(
                    f"pin {name!r} of table {self.columns.ref} holds another snapshot; release it first",
                    reason="PIN_TAKEN",
                    field="name",
                )
            if table.snapshot_by_id(snapshot_id) is None:
                raise self._no_snapshot(snapshot_id)
            if ref is None:
                table.manage_snapshots().create_tag(snapshot_id, PIN_PREFIX + name).commit()

        self._change(change)

    def release(self, name: str) -> None:
        """Lets go of a pin; one that is not there changes nothing."""

        def change(table: Table) -> None:
            if PIN_PREFIX + name in table.refs():
                table.manage_snapshots().remove_tag(PIN_PREFIX + name).commit()

        self._change(change)

    def pins(self) -> Mapping[str, int]:
        """Pinned snapshots by the name of the pin."""
        refs = self._load().refs().items()
        return {name.removeprefix(PIN_PREFIX): ref.snapshot_id for name, ref in refs if name.startswith(PIN_PREFIX)}

    def _change(self, change: Callable[[Table], T]) -> T:
        for _ in range(COMMIT_TRIES_MAX):
            try:
                return change(self._load())
            except CommitFailedException:
                continue  # someone else came first: what there is to do may have changed
        raise Aborted(
            f"table {self.columns.ref} was changed by others {COMMIT_TRIES_MAX} times in a row; try again",
            reason="TABLE_BUSY",
            metadata={"feature_view": str(self.columns.ref)},
        )

    def _no_snapshot(self, snapshot_id: int) -> NotFound:
        return NotFound(
            f"table {self.columns.ref} has no snapshot {snapshot_id}; it is expired or was never made",
            reason="UNKNOWN_SNAPSHOT",
            field="snapshot_id",
            metadata={"feature_view": str(self.columns.ref), "snapshot_id": str(snapshot_id)},
        )

    def _checked(self, rows: pa.Table) -> pa.Table:
        schema = self.columns.arrow
        try:
            chosen = rows.select(schema.names)
            _refuse_nulls(chosen, schema)
            given = chosen if chosen.schema.equals(schema) else chosen.cast(schema)
            given.validate()
        except (pa.ArrowInvalid, KeyError, ValueError) as error:
            raise InvalidArgument(
                f"the rows do not fit the table of {self.columns.ref}: {error}", reason="BAD_ROWS", field="rows"
            ) from error
        return given

    def _commit(self, table: Table, rows: pa.Table, parts: Sequence[LogRange]) -> None:
        with table.transaction() as transaction:
            transaction.append(_stored(rows), snapshot_properties={RANGES_PROPERTY: " ".join(p.text for p in parts)})
            transaction.set_properties(moved(parts))


def _refuse_nulls(rows: pa.Table, schema: pa.Schema) -> None:
    for field in schema:
        if not field.nullable and rows[field.name].null_count:
            raise InvalidArgument(
                f"column {field.name} holds a null; give every key, time and place a value",
                reason="NULL_VALUE",
                field=field.name,
            )


def _snapshot_id(table: Table) -> int | None:
    snapshot = table.current_snapshot()
    return None if snapshot is None else snapshot.snapshot_id


def _stored(rows: pa.Table) -> pa.Table:
    return rows.cast(pa.schema([field.with_type(_stored_type(field.type)) for field in rows.schema]))


def _stored_type(kind: pa.DataType) -> pa.DataType:
    # Iceberg has no lists of fixed size, and no unsigned integers.
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_field)
    return pa.int64() if kind == pa.uint32() else kind


def shaped(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Rows as the platform has them: fixed lists and unsigned integers, which Iceberg lacks."""
    return pa.RecordBatch.from_arrays([batch.column(field.name).cast(field.type) for field in schema], schema=schema)
