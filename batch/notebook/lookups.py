"""Lookups of a view that nobody has registered: what its events get of views whose events are at hand as well."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Final

import numpy as np
import pyarrow as pa

from batch.arrays import whole
from batch.historical import HistoryInput
from batch.historical.failures import refused
from batch.notebook.columns import column_of
from batch.notebook.tables import join_tables
from headrace.definitions import FeatureView, RegisteredView, Source, Stamp, State
from headrace.definitions.enrichment import enriched, resolved
from headrace.definitions.lookups import TIME, Lookup, lookups_of
from headrace.functions import loaded_functions
from headrace.history import LookedUp
from headrace.names import VersionRef

_TIME: Final = "lookup\ttime"  # no column of a source has a tab
_KEY: Final = "lookup\tkey {}"
_BEGIN: Final = datetime(1970, 1, 1, tzinfo=UTC)

HistoryOf = Callable[[LookedUp], HistoryInput]


def with_looked_up(given: LookedUp, rows: pa.Table, history_of: HistoryOf) -> tuple[FeatureView, Source, pa.Table]:
    """The view with its lookups resolved, its enriched source, and the events with what is added.

    Everything is known at its event time: each event gets the features as of its own.
    """
    view, source = given.view, given.source
    views = {one.view.name: one for one in given.looked_up}
    for entry in view.lookups:
        if entry.view.name not in views:
            message = f"have no view {entry.view.name!r}, which {view.name!r} looks up; give it as a LookedUp"
            raise refused("MISSING_VIEW", "looked_up", message)
    entities = {one.entity.name: one.entity for one in given.looked_up}

    def find(ref: VersionRef) -> RegisteredView:
        stamp = Stamp(_BEGIN, _BEGIN, "")
        return RegisteredView(views[ref.name].view, stamp, ref.version or 1, State.ACTIVE, 0, 0, b"")

    named = resolved(view, find, entities.__getitem__)
    made = enriched(named, given.entity, source, find, entities.__getitem__)
    for lookup in lookups_of(made):
        rows = _joined(rows, lookup, source.event_time_column, history_of(views[lookup.entry.view.name]))
    types = {column.name: column.type for column in made.columns}
    for one in loaded_functions(view.functions, types, None):
        columns = {name: whole(column_of(rows, name, types[name])) for name in one.definition.columns}
        rows = rows.append_column(one.definition.name, one.column(columns, rows.num_rows, "events"))
    return named, made, rows


def _joined(rows: pa.Table, lookup: Lookup, event_time: str, history: HistoryInput) -> pa.Table:
    """The events with the columns of one lookup; one whose key is null gets nulls."""
    missing = [name for name in (*lookup.keys, event_time) if name not in rows.column_names]
    if missing:
        raise refused("MISSING_COLUMN", "events", f"have no column {missing[0]!r}, which a lookup reads")
    keys = [whole(rows[name]) for name in lookup.keys]
    asked = np.flatnonzero(~np.logical_or.reduce([np.asarray(key.is_null()) for key in keys]))
    chosen = pa.array(asked)
    spine = {_KEY.format(at): key.take(chosen) for at, key in enumerate(keys)}
    spine[_TIME] = whole(rows[event_time]).take(chosen)
    wanted = replace(history, keys=tuple(replace(key, spine=_KEY.format(at)) for at, key in enumerate(history.keys)))
    joined = join_tables(pa.table(spine), [wanted], time_column=_TIME)
    back = np.full(rows.num_rows, -1, np.int64)
    back[asked] = np.arange(len(asked))
    places = pa.array(back, mask=back < 0)
    for name, output in zip(lookup.entry.features, lookup.columns, strict=True):
        rows = rows.append_column(output, whole(joined[name]).take(places))
    return rows.append_column(lookup.known_time, whole(rows[event_time]).cast(TIME.arrow))
