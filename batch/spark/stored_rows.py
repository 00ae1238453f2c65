"""Rows of a computed view made on Spark, one slot range of its history at a time, to be brought online from files."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import Table
from pyspark.errors import PythonException
from pyspark.sql import SparkSession

from batch.historical.failures import writing
from batch.historical.tables import ParquetRows, located
from batch.materialize.computed import Part, Seen, Way
from batch.materialize.computed_rows import ROW, RowMaker, row_maker
from batch.offline import columns as system
from batch.offline.columns import ViewColumns
from batch.spark.columns import back, ddl, spark_type
from batch.spark.inputs import GROUP, group_numbers
from batch.spark.workers import Grouped, Streamed, of_group, streamed, translated
from headrace.definitions.registered import RegisteredEntity, RegisteredSource, RegisteredView
from headrace.errors import FailedPrecondition
from headrace.types import ValueType

RUNS: Final = UUID("5b4a6d0a-3f0f-4f0e-8a51-0c6f2f6f3d11")  # a name space: the same rows have the same run id
DONE: Final = "_rows.json"
_SYSTEM: Final = {
    system.EVENT_TIME: "timestamp",
    system.WRITE_TIME: "timestamp",
    system.AVAILABLE_TIME: "timestamp",
    system.SOURCE_ID: "bigint",
    system.PARTITION: "int",
    system.OFFSET: "bigint",
    system.TOMBSTONE: "boolean",
}


@dataclass(frozen=True, slots=True)
class StoredRowsPlan:
    """The job as it will be run; workers open the kernels from the definitions."""

    record: RegisteredView
    entity: RegisteredEntity
    source: RegisteredSource
    columns: ViewColumns
    table: str
    snapshot_id: int
    covered: tuple[int, ...]
    part_count: int
    first_part: int
    output: str

    def maker(self) -> RowMaker:
        """What makes the rows, with the kernels of this process."""
        return row_maker(self.record, self.entity, self.source)

    @property
    def run_id(self) -> UUID:
        """The same for the same rows, so that a run that is repeated finds them made."""
        told = (str(self.record.ref), self.record.transform_digest.hex(), self.snapshot_id, self.covered)
        return uuid5(RUNS, hashlib.sha256(repr((*told, self.part_count, self.first_part)).encode()).hexdigest())

    @property
    def folder(self) -> str:
        """Where its files lie."""
        return f"{self.output.rstrip('/')}/{self.run_id}"

    def file_of(self, part: int) -> str:
        """Rows of one slot range."""
        return f"{self.folder}/part-{part:07d}.parquet"


def stored_rows(session: SparkSession, plan: StoredRowsPlan) -> list[int]:
    """Makes the rows, and gives the parts that have any; what an earlier run of the plan has made is taken as it is."""
    filesystem, path = located(f"{plan.folder}/{DONE}")
    try:
        with filesystem.open_input_stream(path) as stream:
            found: list[int] = json.loads(stream.read())
            return found
    except FileNotFoundError:
        filesystem.create_dir(located(plan.folder)[1], recursive=True)
    names = plan.columns.arrow.names
    table = session.read.option("versionAsOf", str(plan.snapshot_id)).table(plan.table).select(*names)
    types = [*_types(plan.columns), (GROUP, "int")]
    try:
        frame = table.mapInArrow(streamed(_numbered(plan)), ddl(types)).where(f"{GROUP} >= {plan.first_part}")
        parts = sorted(row[0] for row in frame.groupBy(GROUP).applyInArrow(_writer(plan), f"{GROUP} int").collect())
    except PythonException as exc:
        raise translated(exc) from exc
    with writing(path), filesystem.open_output_stream(path) as stream:
        stream.write(json.dumps(parts).encode())
    return parts


class SparkParts:
    """What ComputedMaterialization takes to have its rows made on Spark."""

    def __init__(
        self,
        session: SparkSession,
        definitions: tuple[RegisteredView, RegisteredEntity, RegisteredSource],
        output: str,
    ) -> None:
        self._session = session
        self._definitions = definitions
        self._output = output

    def __call__(self, table: Table, way: Way, seen: Seen, folder: Path) -> Iterator[Part]:
        """Parts from `mark.file_count` on; only the wanted entities of them are sent."""
        snapshot = table.current_snapshot()
        if snapshot is None:
            message = f"the table of {way.columns.ref} has no rows"
            raise FailedPrecondition(message, reason="NO_HISTORY", field="feature_view")
        plan = StoredRowsPlan(
            *self._definitions,
            columns=way.columns,
            table=".".join(f"`{step}`" for step in way.columns.identifier),
            snapshot_id=snapshot.snapshot_id,
            covered=tuple(offset for *_, offset in seen),
            part_count=way.part_count,
            first_part=way.mark.file_count,
            output=self._output,
        )
        made = set(stored_rows(self._session, plan))
        empty = pa.table({name: pa.array([], kind) for name, kind in _fields(plan)})
        for part in range(plan.first_part, plan.part_count):
            rows = _read(plan.file_of(part)) if part in made else empty
            yield Part(_wanted(rows, way), None, part + 1 - plan.first_part, plan.part_count - plan.first_part)


def make_part(plan: StoredRowsPlan, maker: RowMaker, carried: pa.Table) -> pa.Table:
    """Rows of one slot range, from its events as Spark carries them."""
    arrow = plan.columns.arrow
    arrays = [back(carried.column(field.name), field.type) for field in arrow]
    return maker.rows(pa.Table.from_arrays(arrays, names=arrow.names), plan.covered)


def _numbered(plan: StoredRowsPlan) -> Streamed:
    def run(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        maker = plan.maker()
        for batch in batches:
            group = group_numbers(maker.keys_of(batch), plan.part_count)
            yield pa.RecordBatch.from_arrays([*batch.columns, group], names=[*batch.schema.names, GROUP])

    return run


def _writer(plan: StoredRowsPlan) -> Grouped:
    def write(carried: pa.Table) -> pa.Table:
        part = carried.column(GROUP)[0].as_py()
        rows = make_part(plan, plan.maker(), carried)
        filesystem, path = located(plan.file_of(part))
        draft = f"{path}.{uuid4().hex}.partial"  # a name of its own for every attempt of a task
        with writing(path):
            with filesystem.open_output_stream(draft) as stream:
                pq.write_table(rows, stream)
            filesystem.move(draft, path)
        return pa.table({GROUP: pa.array([part], pa.int32())})

    return of_group(write)


def _wanted(rows: pa.Table, way: Way) -> pa.Table:
    if way.wanted is None or rows.num_rows == 0:
        return rows
    return rows.filter(pa.array(way.wanted.find(way.maker.keys_of(rows)) >= 0))


def _read(file: str) -> pa.Table:
    rows = ParquetRows([file], "rows of a batch")
    batches = [batch for chunk in rows.chunks for batch in rows.read(chunk, rows.schema.names)]
    return pa.Table.from_batches(batches, rows.schema)


def _fields(plan: StoredRowsPlan) -> Sequence[tuple[str, pa.DataType]]:
    return [*((name, ValueType(kind).arrow) for name, kind in plan.columns.keys), (ROW, pa.binary())]


def _types(columns: ViewColumns) -> list[tuple[str, str]]:
    found = [(name, spark_type(ValueType(kind))) for name, kind in columns.keys]
    found += [(name, spark_type(kind)) for name, kind in columns.features]
    return [*found, *_SYSTEM.items()]
