"""Joins events with a view that nobody has registered, by the kernel that will serve it."""

from collections.abc import Sequence
from typing import Any, Final

import pyarrow as pa

from batch.historical import FeatureColumn, HistoryInput, KeyColumn
from batch.historical.computation import computation_of
from batch.notebook.columns import column_of, present
from batch.notebook.lookups import with_looked_up
from batch.notebook.tables import join_tables, to_arrow
from headrace.computed import event_program, passed
from headrace.definitions import Entity, FeatureView, Source
from headrace.definitions.entities import EVENT_TIME
from headrace.definitions.plans import ViewPlan, compile_plan
from headrace.definitions.transforms import Latest
from headrace.history import LookedUp

PREVIEW_TIME: Final = "event_time"
_EVENT_TIME: Final = "event\ttime"  # no column of a source has a tab


def preview(
    view: FeatureView,
    events: Any,  # Any: pandas, polars or Arrow rows
    entity: Entity,
    source: Source,
    *,
    entities: Any = None,  # Any: as above
    time_column: str = PREVIEW_TIME,
    looked_up: Sequence[LookedUp] = (),
) -> pa.Table:
    """Features of the view for entity rows; without them one row per entity of the events, at the newest event time."""
    history = history_of(LookedUp(view, events, entity, source, looked_up))
    spine = newest_of(history, PREVIEW_TIME) if entities is None else to_arrow(entities, "entities")
    return join_tables(spine, [history], time_column=PREVIEW_TIME if entities is None else time_column)


def history_of(given: LookedUp) -> HistoryInput:
    """The events as the history of their view, with the view's own TTL, defaults and fallback."""
    view, entity, source = given.view, given.entity, given.source
    rows = to_arrow(given.events, "events")
    if view.lookups or view.functions:
        view, source, rows = with_looked_up(given, rows, history_of)
    plan = compile_plan(view, entity, source)  # what registration would refuse is refused here
    keys = tuple(KeyColumn(key.name, key.name, key.type.scalar) for key in entity.join_keys)
    held = {_EVENT_TIME: present(rows, source.event_time_column)}
    held |= {key.name: column_of(rows, key.name, key.type) for key in entity.join_keys}
    columns = []
    computation = None
    if not view.is_plain:
        columns = [FeatureColumn(one.name, one.type, one.default, one.name) for one in view.features]
        names = [feature.name for feature in view.features]
        computation = computation_of(plan, source, names, view.name, _EVENT_TIME)
        held |= _source_columns(rows, plan, source)
    for feature in view.features if view.is_plain else ():
        assert isinstance(feature.transform, Latest), "a plain view has no other"
        columns.append(FeatureColumn(f"feature {feature.name}", feature.type, feature.default, feature.name))
        held[f"feature {feature.name}"] = column_of(rows, feature.transform.column, feature.type)
    limits = (view.ttl, view.freshness_sla)
    ttl_us, stale_us = (0 if limit is None else round(limit.total_seconds() * 1_000_000) for limit in limits)
    return HistoryInput(
        name=view.name,
        columns=tuple(columns),
        keys=keys,
        event_time=_EVENT_TIME,
        rows=_filtered(pa.table(held), plan),
        ttl_us=ttl_us,
        stale_us=stale_us,
        fallback=int(view.fallback),
        computation=computation,
    )


def _source_columns(rows: pa.Table, plan: ViewPlan, source: Source) -> dict[str, pa.ChunkedArray]:
    """What the plan reads beside the event time, as the source declares it."""
    types = {column.name: column.type for column in source.columns}
    return {name: column_of(rows, name, types[name]) for name in sorted(plan.columns - {EVENT_TIME})}


def _filtered(rows: pa.Table, plan: ViewPlan) -> pa.Table:
    """The events that the filter of the view lets through."""
    if plan.filter is None:
        return rows
    one = event_program(plan.filter)
    columns = {name: rows[_EVENT_TIME if name == EVENT_TIME else name] for name in one.columns}
    whole = {name: pa.concat_arrays([pa.array([], column.type), *column.chunks]) for name, column in columns.items()}
    return rows.filter(passed(one, whole, rows.num_rows, "events"))


def newest_of(history: HistoryInput, time_column: str) -> pa.Table:
    """One row per entity of a history, at its newest event time."""
    rows = history.rows
    assert isinstance(rows, pa.Table), "made by history_of"
    names = [key.history for key in history.keys]
    found = rows.select(names).group_by(names, use_threads=False).aggregate([])
    times = rows[history.event_time].combine_chunks()
    newest = max(times.drop_null().to_pylist(), default=None)
    return found.append_column(time_column, pa.array([newest] * found.num_rows, times.type))
