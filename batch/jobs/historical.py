"""One historical join over the lake: snapshots held while it runs, a row in the table of runs, one result file."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final
from uuid import UUID, uuid4

import pyarrow as pa

from batch.historical import MEMORY_LIMIT_BYTES, HistoryInput, JoinReport, join_to_parquet
from batch.historical.join import Progress
from batch.historical.on_demand import OnDemandJoin
from batch.jobs.entities import Entities, read_entities
from batch.jobs.services import WantedService
from batch.jobs.views import WantedView, history_names
from batch.offline.catalogue import Catalogue
from batch.offline.columns import ViewColumns
from batch.offline.runs import Provenance, Runs
from batch.offline.view_table import ReadFilter, ViewTable
from headrace.definitions.transform import KERNEL_SEMANTICS_VERSION
from headrace.errors import FailedPrecondition, NotFound
from headrace.names import VersionRef

KIND: Final = "get_historical"
EVENT_TIME: Final = "event_time"  # of the entity rows, unless they call it otherwise
PIN_PREFIX: Final = "run_"
NO_SNAPSHOT: Final = -1  # of a view that has no history yet


@dataclass(frozen=True, slots=True)
class HistoricalRequest:
    """What to join. `cutoff_us` 0 is the time when the job begins; `snapshots` pins views to older states.

    A view without history gives MISSING alone, and is refused with `every_view`.
    """

    entities: tuple[str, ...]
    output: str
    time_column: str = EVENT_TIME
    cutoff_us: int = 0
    memory_limit_bytes: int = MEMORY_LIMIT_BYTES
    temp_folder: str | None = None
    snapshots: Mapping[str, int] = field(default_factory=dict)
    every_view: bool = False


@dataclass(frozen=True, slots=True)
class HistoricalResult:
    """What a job left. `empty_views` had no history, so all of their features are MISSING."""

    run_id: str
    feature_service: str
    output: str
    row_count: int
    cutoff_us: int
    digest: str
    column_hashes: Mapping[str, int]
    snapshots: Mapping[str, int]
    empty_views: tuple[str, ...]
    spilled_bytes: int
    duration_ms: int

    def document(self) -> dict[str, Any]:  # Any: JSON values
        """JSON form."""
        return asdict(self) | {"empty_views": list(self.empty_views), "snapshots": dict(self.snapshots)}


def silent(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def run_historical(
    catalogue: Catalogue,
    service: WantedService,
    request: HistoricalRequest,
    *,
    progress: Progress = silent,
    run_id: UUID | None = None,
    kind: str = KIND,
) -> HistoricalResult:
    """Joins and writes; the output is there when this returns, and not before."""
    run_id = run_id or uuid4()
    began = time.monotonic()
    cutoff_us = request.cutoff_us or now_us()
    entities = read_entities(request.entities)
    inputs = {"feature_service": service.name, "entities": ",".join(request.entities), "cutoff_us": str(cutoff_us)}
    with (
        runs_of(catalogue).run(kind, inputs, str(run_id)) as run,
        held(catalogue, service.views, request, run_id) as tables,
    ):
        snapshots = {ref: table.snapshot_id for ref, table in tables.items()}
        run.snapshots |= snapshots
        histories = _histories(service.views, tables, cutoff_us, progress)
        on_demand = None if service.on_demand is None else service.on_demand.join()
        request = replace(request, cutoff_us=cutoff_us)
        report = _join(entities, histories, request, progress, run_id=run_id, on_demand=on_demand)
    return HistoricalResult(
        run_id=str(run_id),
        feature_service=service.name,
        output=request.output,
        row_count=report.rows,
        cutoff_us=cutoff_us,
        digest=report.digest.sha256,
        column_hashes=report.digest.columns,
        snapshots=snapshots,
        empty_views=tuple(ref for ref, snapshot in snapshots.items() if snapshot == NO_SNAPSHOT),
        spilled_bytes=report.spilled_bytes,
        duration_ms=round((time.monotonic() - began) * 1000),
    )


def runs_of(catalogue: Catalogue) -> Runs:
    """The table of runs, written by this installation."""
    return Runs(catalogue, Provenance(str(KERNEL_SEMANTICS_VERSION)), now_us)


def now_us() -> int:
    """UTC microseconds."""
    return time.time_ns() // 1_000


def _join(
    entities: Entities,
    histories: Sequence[HistoryInput],
    request: HistoricalRequest,
    progress: Progress,
    *,
    run_id: UUID,
    on_demand: OnDemandJoin | None,
) -> JoinReport:
    return join_to_parquet(
        entities,
        histories,
        request.output,
        time_column=request.time_column,
        cutoff_us=request.cutoff_us,
        memory_limit_bytes=request.memory_limit_bytes,
        progress=progress,
        temp_folder=request.temp_folder,
        run_id=run_id,
        on_demand=on_demand,
    )


# ---- the histories ----


@dataclass(frozen=True, slots=True)
class HeldTable:
    """One view's table at the snapshot that the job reads; `table` is None where there is none."""

    table: ViewTable | None
    snapshot_id: int
    row_count: int

    def read(self, view: WantedView, cutoff_us: int) -> pa.RecordBatchReader:
        """Rows with the view's keys and wanted features, written up to the cut-off."""
        columns = view.table
        if self.table is None or self.snapshot_id == NO_SNAPSHOT:
            return pa.RecordBatchReader.from_batches(columns.arrow, [])
        return self.table.reading(columns).read(ReadFilter(write_last_us=cutoff_us), self.snapshot_id)


@contextmanager
def held(
    catalogue: Catalogue, views: Sequence[WantedView], request: HistoricalRequest, run_id: UUID
) -> Iterator[dict[str, HeldTable]]:
    """Snapshots of the views' tables, which no expiry takes inside the block."""
    pin = f"{PIN_PREFIX}{run_id.hex}"
    with ExitStack() as stack:
        found: dict[str, HeldTable] = {}
        for view in views:
            if view.ref in found:
                continue
            found[view.ref] = table = _table(catalogue, view, request.snapshots.get(view.ref))
            if table.table is not None and table.snapshot_id != NO_SNAPSHOT:
                table.table.pin(pin, table.snapshot_id)
                stack.callback(table.table.release, pin)
        empty = [ref for ref, table in found.items() if table.snapshot_id == NO_SNAPSHOT]
        if len(empty) == len(found) or (empty and request.every_view):
            raise FailedPrecondition(
                f"the lake holds no history of {', '.join(empty)} yet; write rows and wait until they are drained, "
                "or name another lake",
                reason="NO_HISTORY",
                field="lake",
                metadata={"feature_views": ",".join(empty)},
            )
        yield found


def release_run(catalogue: Catalogue, run_id: UUID) -> None:
    """Lets go of what a killed run held."""
    for identifier in catalogue.identifiers():
        table = ViewTable(columns_of(identifier), lambda identifier=identifier: catalogue.load(identifier))  # type: ignore[misc]
        table.release(f"{PIN_PREFIX}{run_id.hex}")


def columns_of(identifier: tuple[str, ...]) -> ViewColumns:
    """The view version that a table belongs to, without its columns."""
    *namespace, last = identifier
    name, _, version = last.rpartition("_v")
    return ViewColumns(VersionRef(".".join([*namespace, name]), int(version)), (), ())


def _table(catalogue: Catalogue, view: WantedView, wanted: int | None) -> HeldTable:
    columns = view.table
    try:
        loaded = catalogue.load(columns.identifier)
    except NotFound:
        if wanted is not None:
            raise
        return HeldTable(None, NO_SNAPSHOT, 0)
    table = ViewTable(columns, lambda: catalogue.load(columns.identifier))
    snapshot = loaded.current_snapshot() if wanted is None else loaded.snapshot_by_id(wanted)
    if snapshot is None:
        if wanted is not None:
            raise NotFound(
                f"table {view.ref} has no snapshot {wanted}; it is expired or belongs to another lake",
                reason="UNKNOWN_SNAPSHOT",
                field="snapshot_id",
                metadata={"feature_view": view.ref, "snapshot_id": str(wanted)},
            )
        return HeldTable(table, NO_SNAPSHOT, 0)
    told = snapshot.summary["total-records"] if snapshot.summary is not None else None
    return HeldTable(table, snapshot.snapshot_id, int(told or 0))


def _histories(
    views: Sequence[WantedView], tables: Mapping[str, HeldTable], cutoff_us: int, progress: Progress
) -> list[HistoryInput]:
    found = []
    for view, name in zip(views, history_names(views), strict=True):
        held_table = tables[view.ref]
        rows = held_table.read(view, cutoff_us)
        found.append(view.history(_counted(rows, f"read {name}", held_table.row_count, progress), name))
    return found


def _counted(rows: pa.RecordBatchReader, stage: str, total: int, progress: Progress) -> pa.RecordBatchReader:
    def batches() -> Iterator[pa.RecordBatch]:
        done = 0
        for batch in rows:
            yield batch
            done += batch.num_rows
            progress(stage, min(done, total), total)
        progress(stage, total, total)

    return pa.RecordBatchReader.from_batches(rows.schema, batches())
