"""The sweep of a whole lake."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from batch.jobs.context import Arguments, Context
from batch.jobs.historical import PIN_PREFIX, columns_of, now_us, runs_of
from batch.offline.catalogue import Catalogue
from batch.offline.sweep import Swept, sweep
from batch.offline.view_table import ViewTable

KIND = "sweep"


def sweep_lake(context: Context, arguments: Arguments) -> dict[str, Any]:  # Any: JSON values
    """Removes files of every table of a view or of events that no snapshot names."""
    age_s, dry_run = int(arguments["age_s"]), bool(arguments.get("dry_run"))
    with context.catalogue() as catalogue:
        if dry_run:
            found = _each(catalogue, age_s, context, dry_run=True)
        else:
            with runs_of(catalogue).run(KIND, {"age_s": str(age_s)}):
                found = _each(catalogue, age_s, context, dry_run=False)
    tables = [
        {"table": name, "file_count": len(swept.files), "byte_count": swept.byte_count, "files": list(swept.files)}
        for name, swept in found.items()
    ]
    return {"file_count": sum(len(swept.files) for swept in found.values()), "tables": tables}


def _each(catalogue: Catalogue, age_s: int, context: Context, *, dry_run: bool) -> dict[str, Swept]:
    found = {}
    views = catalogue.identifiers()
    names = [*views, *catalogue.event_identifiers()]
    for done, identifier in enumerate(names, start=1):
        swept = sweep(lambda identifier=identifier: catalogue.load(identifier), age_s, now_us(), dry_run=dry_run)  # type: ignore[misc]
        context.progress("sweep", done, len(names))
        if swept.files:
            found[".".join(identifier)] = swept
        if not dry_run and identifier in views:  # runs hold snapshots of views alone
            _release_old_runs(catalogue, identifier, age_s)
    return found


def _release_old_runs(catalogue: Catalogue, identifier: tuple[str, ...], age_s: int) -> None:
    """Lets go of snapshots that killed runs hold: their pins would keep files for ever."""
    table = ViewTable(columns_of(identifier), lambda: catalogue.load(identifier))
    pins = [name for name in table.pins() if name.startswith(PIN_PREFIX)]
    if not pins:
        return
    latest = datetime.now(UTC) - timedelta(seconds=age_s)
    began_late = [run["run_id"] for run in runs_of(catalogue).list() if run["start_time"] > latest]
    young = {f"{PIN_PREFIX}{UUID(run_id).hex}" for run_id in began_late}
    for pin in pins:
        if pin not in young:
            table.release(pin)
