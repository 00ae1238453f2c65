"""Registered views read from the lake in a notebook, with entity rows or for every entity of a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pyarrow as pa
import pyarrow.compute as pc

from batch.historical.failures import refused
from batch.jobs.context import Context
from batch.jobs.historical import HeldTable, HistoricalRequest, held, now_us
from batch.jobs.services import WantedService, resolve_service
from batch.jobs.views import Definitions, WantedColumn, WantedView, history_names, wanted_view
from batch.notebook.tables import join_tables, to_arrow
from batch.offline import columns as system
from headrace.client import RegistryClient
from headrace.definitions.changes import DefinitionKind
from headrace.definitions.registered import RegisteredView
from headrace.names import parse_feature_ref


@dataclass(frozen=True, slots=True)
class Place:
    """The lake and the registry that say what is read."""

    lake: str
    registry: str
    token: str | None = None


Selection = str | Sequence[str]


def get_historical(
    place: Place, entities: Any, features: Selection, time_column: str, cutoff_us: int = 0
) -> pa.Table:  # Any: pandas, polars or Arrow rows
    """Features as they were known at the time of each entity row."""
    spine = to_arrow(entities, "entities")
    cutoff_us = cutoff_us or now_us()
    with _reading(place, features) as (views, tables):
        inputs = [
            view.history(tables[view.ref].read(view, cutoff_us), name)
            for view, name in zip(views, history_names(views), strict=True)
        ]
        return join_tables(spine, inputs, time_column=time_column, cutoff_us=cutoff_us)


def get_entities(
    place: Place, features: Selection, time_column: str, between: tuple[int, int], cutoff_us: int = 0
) -> pa.Table:
    """Entity rows that nobody has to bring: each entity and time of an event in [first, last], in their order.

    With first and last equal: every entity with an event up to then, at that time. Of several views every entity of
    any; they must have one entity.
    """
    if between[0] > between[1]:
        raise refused("OUT_OF_RANGE", "between", "ends before it begins")
    cutoff_us = cutoff_us or now_us()
    with _reading(place, features) as (views, tables):
        keys = [(column, kind) for _, column, kind in views[0].keys]
        parts = []
        for view in views:
            if [(column, kind) for _, column, kind in view.keys] != keys:
                raise refused("TWO_ENTITIES", "features", "are of several entities; name them with entity rows")
            parts.append(_events(view, tables[view.ref], time_column, between, cutoff_us))
    found = pa.concat_tables(parts)
    names = [*(column for column, _ in keys), time_column]
    found = found.group_by(names, use_threads=False).aggregate([]).select(names)
    return found.sort_by([(name, "ascending") for name in (time_column, *names[:-1])])


def _events(view: WantedView, table: HeldTable, time_column: str, between: tuple[int, int], cutoff_us: int) -> pa.Table:
    first_us, last_us = between
    at_one_time = first_us == last_us
    names = {name: column for name, column, _ in view.keys}
    kept = []
    empty = None
    for batch in table.read(view, cutoff_us):
        events = batch.column(system.EVENT_TIME).cast(pa.int64())
        inside = pc.less_equal(events, last_us)
        if not at_one_time:
            inside = pc.and_(inside, pc.greater_equal(events, first_us))
        rows = batch.filter(inside)
        times = pa.array([last_us] * rows.num_rows, pa.timestamp("us", "UTC"))
        columns = [rows.column(name) for name in names]
        columns.append(times if at_one_time else rows.column(system.EVENT_TIME))
        kept.append(pa.table(columns, [*names.values(), time_column]))
    if kept:
        return pa.concat_tables(kept)
    schema = view.table.arrow
    empty = [pa.array([], schema.field(name).type) for name in names]
    return pa.table([*empty, pa.array([], pa.timestamp("us", "UTC"))], [*names.values(), time_column])


@contextmanager
def _reading(place: Place, features: Selection) -> Iterator[tuple[Sequence[WantedView], dict[str, HeldTable]]]:
    with RegistryClient(place.registry, token=place.token) as client:
        service = _selected(client, features)
    if service.on_demand is not None:
        message = f"{service.name} has on-demand features, which no frame computes yet; run a historical job"
        raise refused("ON_DEMAND_FEATURES", "features", message)
    context = Context(Path(place.lake), place.registry, place.token)
    with (
        context.catalogue() as catalogue,
        held(catalogue, service.views, HistoricalRequest((), ""), uuid4()) as tables,
    ):
        yield service.views, tables


def _selected(definitions: Definitions, features: Selection) -> WantedService:
    """A service by its name, or features one by one; those come out under their references."""
    if isinstance(features, str):
        return resolve_service(definitions, features)
    if not features:
        raise refused("NO_SELECTION", "features", "are empty; name a feature service, or view@vN:feature")
    by_view: dict[str, list[str]] = {}
    for text in features:
        ref = parse_feature_ref(text)
        by_view.setdefault(text.rpartition(":")[0], []).append(ref.feature)
    views = []
    for name, wanted in by_view.items():
        record = definitions.get(DefinitionKind.FEATURE_VIEW, name)
        assert isinstance(record, RegisteredView), "the registry answers the kind that was asked for"
        views.append(_only(wanted_view(definitions, record), wanted))
    return WantedService("", tuple(views))


def _only(view: WantedView, features: Sequence[str]) -> WantedView:
    by_name = {column.feature: column for column in view.columns}
    unknown = [name for name in features if name not in by_name]
    if unknown:
        raise refused("UNKNOWN_FEATURE", "features", f"{view.ref} has no feature {unknown[0]!r}")
    columns = tuple(
        WantedColumn(name, f"{view.ref}:{name}", by_name[name].type, by_name[name].default) for name in features
    )
    return replace(view, columns=columns)
