"""Rows of a computed view made on Spark, one slot range of its history at a time, to be brought online from files."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4, uuid5

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.table import Table
from pyspark.sql import SparkSession

from batch.historical.failures import writing
from batch.historical.inputs import KeyColumn
from batch.historical.tables import ParquetRows, located
from batch.materialize.computed import Part, Seen, Way
from batch.materialize.computed_rows import ROW, RowMaker, row_maker
from batch.offline import columns as system
from batch.offline.columns import ViewColumns
from batch.spark.columns import Types
from batch.spark.inputs import table_snapshot
from batch.spark.pieces import Piece, Pieces
from batch.spark.plan import TASK_BYTES, TableSnapshot, bundles_of, group_tasks
from batch.spark.result import scratch, sweep
from batch.spark.spread import Spreading, run_spread
from batch.spark.tasks import run_tasks
from headrace.definitions.registered import RegisteredEntity, RegisteredSource, RegisteredView
from headrace.errors import FailedPrecondition
from headrace.types import ValueType

RUNS: Final = UUID("5b4a6d0a-3f0f-4f0e-8a51-0c6f2f6f3d11")  # a name space: the same rows have the same run id
DONE: Final = "_rows.json"


@dataclass(frozen=True, slots=True)
class StoredRowsPlan:
    """The job as it will be run; workers open the kernels from the definitions."""

    record: RegisteredView
    entity: RegisteredEntity
    source: RegisteredSource
    columns: ViewColumns
    events: TableSnapshot
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
        told = (str(self.record.ref), self.record.transform_digest.hex(), self.events.snapshot_id, self.covered)
        return uuid5(RUNS, hashlib.sha256(repr((*told, self.part_count, self.first_part)).encode()).hexdigest())

    def spreading(self, folder: str) -> Spreading:
        """How the events of the table reach their slot ranges."""
        return Spreading(
            stage="events",
            folder=folder,
            what=f"events of {self.record.ref}",
            scan=self.events.scan,
            types=types_of(self.columns),
            keys=tuple(KeyColumn(name, name, kind) for name, kind in self.columns.keys),
            key_names=tuple(name for name, _ in self.columns.keys),
            times=(system.EVENT_TIME, system.WRITE_TIME, system.AVAILABLE_TIME),
            groups=self.part_count,
            memory_bytes=TASK_BYTES,
        )

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
            found = json.loads(stream.read())
            if isinstance(found, list):
                return found
    except (FileNotFoundError, ValueError):
        pass  # made anew
    with scratch(plan.folder) as folder:
        way = plan.spreading(folder)
        pieces = run_spread(session, way, bundles_of(plan.events.chunks))
        tasks = [one for one in group_tasks(plan.part_count, plan.events.row_count) if one.stop > plan.first_part]
        work = partial(write_parts, plan, pieces, way.schema)
        parts = sorted(chain.from_iterable(run_tasks(session, f"makes {way.what}", work, tasks)))
    draft = f"{path}.{uuid4().hex}.partial"
    with writing(path):
        with filesystem.open_output_stream(draft) as stream:
            stream.write(json.dumps(parts).encode())
        filesystem.move(draft, path)
    sweep(plan.folder)
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
        self._made: set[str] = set()

    def remove(self) -> None:
        """Takes away what this process had made."""
        for folder in self._made:
            filesystem, path = located(folder)
            filesystem.delete_dir(path)
        self._made.clear()

    def __call__(self, table: Table, way: Way, seen: Seen, folder: Path) -> Iterator[Part]:
        """Parts from `mark.file_count` on; only the wanted entities of them are sent."""
        if table.current_snapshot() is None:
            message = f"the table of {way.columns.ref} has no rows"
            raise FailedPrecondition(message, reason="NO_HISTORY", field="feature_view")
        plan = StoredRowsPlan(
            *self._definitions,
            columns=way.columns,
            events=table_snapshot(table, types_of(way.columns)),
            covered=tuple(offset for *_, offset in seen),
            part_count=way.part_count,
            first_part=way.mark.file_count,
            output=self._output,
        )
        self._made.add(plan.folder)
        made = set(stored_rows(self._session, plan))
        empty = pa.table({name: pa.array([], kind) for name, kind in _fields(plan)})
        for part in range(plan.first_part, plan.part_count):
            rows = _read(plan.file_of(part)) if part in made else empty
            yield Part(_wanted(rows, way), None, part + 1 - plan.first_part, plan.part_count - plan.first_part)


def write_parts(plan: StoredRowsPlan, pieces: tuple[Piece, ...], schema: pa.Schema, parts: Sequence[int]) -> list[int]:
    """Makes and writes the rows of slot ranges, one in memory at a time; those that have any."""
    maker, held = plan.maker(), Pieces(pieces, schema)
    found = [(part, held.rows(part)) for part in parts if part >= plan.first_part]
    for part, rows in found:
        if rows.row_count:
            _write(plan.file_of(part), make_part(plan, maker, rows.table()))
    return [part for part, rows in found if rows.row_count]


def make_part(plan: StoredRowsPlan, maker: RowMaker, events: pa.Table) -> pa.Table:
    """Rows of one slot range, from its events."""
    return maker.rows(events.select(plan.columns.arrow.names).cast(plan.columns.arrow), plan.covered)


def types_of(columns: ViewColumns) -> Types:
    """Columns of a view's table as they travel."""
    return tuple((field.name, field.type) for field in columns.arrow)


def _write(file: str, rows: pa.Table) -> None:
    filesystem, path = located(file)
    draft = f"{path}.{uuid4().hex}.partial"  # a name of its own for every attempt of a task
    with writing(path):
        with filesystem.open_output_stream(draft) as stream:
            pq.write_table(rows, stream)
        filesystem.move(draft, path)


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
