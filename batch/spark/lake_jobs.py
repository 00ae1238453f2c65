"""Jobs over the lake on Spark, as commands give them: JSON in, JSON out."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final
from uuid import uuid4

from pyspark.sql import SparkSession

from batch.historical.failures import refused
from batch.jobs.context import Arguments, Context, request_of, run_id_of
from batch.jobs.historical import (
    KIND,
    NO_SNAPSHOT,
    HeldTable,
    HistoricalRequest,
    HistoricalResult,
    held,
    now_us,
    runs_of,
)
from batch.jobs.services import WantedService
from batch.jobs.views import WantedView, history_names
from batch.offline.catalogue import Catalogue
from batch.spark.computed import CarriedView
from batch.spark.historical import run_historical
from batch.spark.inputs import file_rows, history_of_table
from batch.spark.plan import TASK_BYTES, History, TableSnapshot, plan_historical
from batch.spark.result import JobResult
from batch.spark.session import open_session
from batch.spark.window_history import plan_window_history, run_window_history

MASTER: Final = "local[2]"
WINDOW_KIND: Final = "window_history"
Document = dict[str, Any]  # Any: JSON values


def get_historical(context: Context, arguments: Arguments) -> Document:
    """Features of a service for entity rows, at each row's time; the output is a folder that holds the run's."""
    service = context.service(arguments["service"])
    request = request_of(context, arguments, arguments["output"])
    run_id, began_s = run_id_of(arguments) or uuid4(), time.monotonic()
    cutoff_us = request.cutoff_us or now_us()
    inputs = {"feature_service": service.name, "entities": ",".join(request.entities), "cutoff_us": str(cutoff_us)}
    with (
        context.catalogue() as catalogue,
        runs_of(catalogue).run(KIND, inputs, str(run_id)) as run,
        held(catalogue, service.views, request, run_id) as tables,
        session_of(arguments, "get-historical") as session,
    ):
        run.snapshots |= {ref: table.snapshot_id for ref, table in tables.items()}
        plan = plan_historical(
            file_rows(request.entities, "entities"),
            _histories(catalogue, service.views, tables),
            run_id=run_id,
            time_column=request.time_column,
            cutoff_us=cutoff_us,
            output=request.output,
            memory_bytes=_memory(arguments),
            on_demand=None if service.on_demand is None else service.on_demand.join(),
        )
        result = run_historical(session, plan)
    return _told(service, result, cutoff_us, tables, began_s).document()


def window_history(context: Context, arguments: Arguments) -> Document:
    """Features of a view for every entity of its history at given times."""
    view, run_id = context.view(arguments["view"]), run_id_of(arguments) or uuid4()
    cutoff_us = int(arguments.get("cutoff_us") or 0) or now_us()
    request = HistoricalRequest(entities=(), output=context.place(arguments["output"], "output"), every_view=True)
    times_us = [int(one) for one in arguments["times_us"]]
    with (
        context.catalogue() as catalogue,
        runs_of(catalogue).run(WINDOW_KIND, {"feature_view": view.ref}, str(run_id)) as run,
        held(catalogue, [view], request, run_id) as tables,
        session_of(arguments, "window-history") as session,
    ):
        run.snapshots |= {ref: table.snapshot_id for ref, table in tables.items()}
        plan = plan_window_history(
            _histories(catalogue, [view], tables)[0],
            run_id=run_id,
            times_us=times_us,
            cutoff_us=cutoff_us,
            output=request.output,
            memory_bytes=_memory(arguments),
        )
        result = run_window_history(session, plan)
    return {
        "run_id": str(run_id),
        "feature_view": view.ref,
        "output": result.folder,
        "row_count": result.row_count,
        "cutoff_us": cutoff_us,
        "digest": result.digest.sha256,
    }


@contextmanager
def session_of(arguments: Mapping[str, Any], application: str) -> Iterator[SparkSession]:  # Any: JSON values
    """A session on the master that the arguments name, without jars: workers read and write files themselves."""
    master = arguments.get("master") or MASTER
    session = open_session(master, None, jars=(), application=application, loopback="://" not in master)
    try:
        yield session
    finally:
        session.stop()


def _histories(catalogue: Catalogue, views: Sequence[WantedView], tables: Mapping[str, HeldTable]) -> list[History]:
    found = []
    for view, name in zip(views, history_names(views), strict=True):
        snapshot_id = tables[view.ref].snapshot_id
        wanted = view.history((), name)
        if snapshot_id == NO_SNAPSHOT:
            found.append(History(CarriedView.of(wanted), TableSnapshot(view.ref, NO_SNAPSHOT, 0)))
        else:
            found.append(history_of_table(wanted, catalogue.load(view.table.identifier), snapshot_id))
    return found


def _memory(arguments: Arguments) -> int:
    limit = int(arguments.get("memory_limit_bytes") or TASK_BYTES)
    if limit <= 0:
        raise refused("OUT_OF_RANGE", "memory_limit", f"of {limit} bytes is none")
    return limit


def _told(
    service: WantedService, result: JobResult, cutoff_us: int, tables: Mapping[str, HeldTable], began_s: float
) -> HistoricalResult:
    snapshots = {ref: table.snapshot_id for ref, table in tables.items()}
    return HistoricalResult(
        run_id=result.run_id,
        feature_service=service.name,
        output=result.folder,
        row_count=result.row_count,
        cutoff_us=cutoff_us,
        digest=result.digest.sha256,
        column_hashes=result.digest.columns,
        snapshots=snapshots,
        empty_views=tuple(ref for ref, snapshot in snapshots.items() if snapshot == NO_SNAPSHOT),
        spilled_bytes=0,
        duration_ms=round((time.monotonic() - began_s) * 1_000),
    )
