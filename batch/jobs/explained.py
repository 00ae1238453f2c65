"""What the offline store knows of one value: what it was at a time, from which row, and which jobs wrote it."""

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from batch.historical import join_to_parquet
from batch.historical.checks import names_of
from batch.jobs.context import Arguments, Context
from batch.jobs.historical import NO_SNAPSHOT, HeldTable, HistoricalRequest, held, now_us, runs_of
from batch.jobs.services import WantedService, resolve_service
from batch.jobs.views import Definitions, WantedView, history_names
from batch.offline import columns as system
from batch.offline.catalogue import Catalogue
from batch.offline.view_table import ReadFilter
from core_ext import rules
from headrace.client import RegistryClient
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import Registered, RegisteredService, Stamp, State
from headrace.definitions.services import FeatureService, ServiceEntry
from headrace.definitions.values import value_document, value_from_document
from headrace.errors import HeadraceError
from headrace.names import parse_feature_ref
from headrace.types import Scalar, parse_type

TIME: Final = "event_time"  # of the one entity row
RUN_KINDS: Final = ("drain", "materialize")  # that bring rows offline, and back online
_SERVICE: Final = "explained.one.feature"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATES: Final = {
    rules.PRESENT: "PRESENT",
    rules.NULL: "NULL",
    rules.MISSING: "MISSING",
    rules.EXPIRED: "EXPIRED",
    rules.UNAVAILABLE: "UNAVAILABLE",
}

Document = dict[str, Any]  # Any: JSON values


def explain(context: Context, arguments: Arguments) -> Document:
    """The last runs that wrote the view, and with `time_us` the value of "view@v3:feature" then.

    `keys` are plain values by join key, `request_data` documents by request field.
    """
    ref = parse_feature_ref(arguments["feature"])
    view = f"{ref.view}@v{ref.version}"
    with context.catalogue() as catalogue:
        found: Document = {"runs": _last_runs(catalogue, view), "historical": None}
        if "time_us" in arguments:
            found["historical"] = _at(context, catalogue, arguments, view, ref.feature)
    return found


def _at(context: Context, catalogue: Catalogue, arguments: Arguments, view: str, feature: str) -> Document:
    try:
        with RegistryClient(context.registry, token=context.token) as client:
            service = resolve_service(_OneFeature(client, view, feature), _SERVICE)
        return _historical(catalogue, service, arguments, feature)
    except HeadraceError as error:
        return {"problem": error.message, "reason": error.reason}


class _OneFeature:
    """Definitions in which one feature is a service."""

    def __init__(self, definitions: Definitions, view: str, feature: str) -> None:
        self._definitions = definitions
        self._entry = ServiceEntry(view, [feature])

    def get(self, kind: DefinitionKind, name: str) -> Registered:
        """One definition by name."""
        if kind is not DefinitionKind.FEATURE_SERVICE:
            return self._definitions.get(kind, name)
        service = FeatureService(name=_SERVICE, owner=_SERVICE.partition(".")[0], entries=[self._entry])
        return RegisteredService(service, Stamp(_EPOCH, _EPOCH, ""), 1, State.ACTIVE)


def _historical(catalogue: Catalogue, service: WantedService, arguments: Arguments, feature: str) -> Document:
    time_us, cutoff_us = int(arguments["time_us"]), now_us()
    spine = _spine(service, arguments["keys"], arguments.get("request_data") or {}, time_us)
    with held(catalogue, service.views, HistoricalRequest((), ""), uuid4()) as tables:
        rows = [_rows(view, tables[view.ref], spine, time_us, cutoff_us) for view in service.views]
    inputs = [
        view.history(table, name)
        for view, table, name in zip(service.views, rows, history_names(service.views), strict=True)
    ]
    with tempfile.TemporaryDirectory(prefix="headrace-explain-") as folder:
        output = str(Path(folder) / "one.parquet")
        on_demand = None if service.on_demand is None else service.on_demand.join()
        join_to_parquet(
            spine, inputs, output, time_column=TIME, cutoff_us=cutoff_us, temp_folder=folder, on_demand=on_demand
        )
        row = pq.read_table(output).slice(0, 1)
    value_name, status_name = names_of(feature)
    value, status = row[value_name].to_pylist()[0], int(row[status_name].to_pylist()[0])
    found: Document = {
        "value": None if value is None else value_document(tuple(value) if isinstance(value, list) else value),
        "status": status,
        "state": _STATES[status & rules.STATE_MASK],
        "cutoff_us": cutoff_us,
    }
    if service.on_demand is None:
        found |= _row_facts(rows[0], time_us)
    return found


def _spine(service: WantedService, keys: Mapping[str, Any], data: Mapping[str, Any], time_us: int) -> pa.Table:
    columns = {}
    for view in service.views:
        for _, column, kind in view.keys:
            value = keys.get(column)
            if value is not None and Scalar[kind.upper()] is Scalar.BYTES:
                value = bytes.fromhex(value)
            columns[column] = pa.array([value], parse_type(kind).arrow)
    for name, kind in service.on_demand.fields if service.on_demand is not None else ():
        wanted, given = parse_type(kind), data.get(name)
        value = None if given is None else value_from_document(given, wanted)
        columns[name] = pa.array([value], wanted.arrow)
    columns[TIME] = pa.array([time_us], pa.timestamp("us", "UTC"))
    return pa.table(columns)


def _rows(view: WantedView, held_table: HeldTable, spine: pa.Table, time_us: int, cutoff_us: int) -> pa.Table:
    """Rows of the entity whose events are not after the time, whenever they became known."""
    columns = view.table
    if held_table.table is None or held_table.snapshot_id == NO_SNAPSHOT:
        return columns.arrow.empty_table()
    wanted = ReadFilter(event_end_us=time_us + 1, write_last_us=cutoff_us)
    reader = held_table.table.reading(columns).read(wanted, held_table.snapshot_id)
    return pa.Table.from_batches(list(_of_entity(reader, view, spine)), columns.arrow)


def _of_entity(reader: pa.RecordBatchReader, view: WantedView, spine: pa.Table) -> Iterator[pa.RecordBatch]:
    for batch in reader:
        chosen = batch
        for name, column, _ in view.keys:
            chosen = chosen.filter(pc.fill_null(pc.equal(chosen.column(name), spine[column][0]), False))
        if chosen.num_rows:
            yield chosen


def _row_facts(rows: pa.Table, time_us: int) -> Document:
    """The greatest row that was known at the time, and how many became known after it."""
    names = [name for name, _, _ in system.SYSTEM_COLUMNS]
    known, late = [], 0
    for row in rows.select(names).to_pylist():
        facts = {name: _plain(value) for name, value in row.items()}
        if facts[system.AVAILABLE_TIME] <= time_us:
            known.append(facts)
        else:
            late += 1
    order = (system.EVENT_TIME, system.WRITE_TIME, system.SOURCE_ID, system.PARTITION, system.OFFSET)
    newest = max(known, key=lambda facts: tuple(facts[name] for name in order), default=None)
    row_facts = None if newest is None else {f"{name.lstrip('_')}": value for name, value in newest.items()}
    return {"row": row_facts, "known_row_count": len(known), "late_row_count": late}


def _plain(value: Any) -> Any:  # Any: a time, a number or a flag
    return (value - _EPOCH) // timedelta(microseconds=1) if isinstance(value, datetime) else value


def _last_runs(catalogue: Catalogue, view: str) -> Sequence[Document]:
    """The newest run of each kind that wrote rows of the view."""
    newest: dict[str, Document] = {}
    for run in runs_of(catalogue).list():
        if run["kind"] in RUN_KINDS and (view in run["snapshots"] or run["inputs"].get("feature_view") == view):
            newest[run["kind"]] = {
                name: run[name].isoformat() if isinstance(run[name], datetime) else run[name]
                for name in ("run_id", "kind", "state", "detail", "start_time", "end_time")
            }
    return list(newest.values())
