"""The definitions as the demonstration uses them: tables to write, and what pandas and NumPy have to look up."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from control_plane.cli.demo.events import KEYS, WINDOW_EVENTS_FROM, Year
from control_plane.cli.demo.expected import Expected, Lookup
from control_plane.cli.demo.expected_windows import Aggregate, Share, WindowLookup
from headrace.client import PreparedFeatures
from headrace.definitions import DefinitionSet, Derived, Entity, FeatureService, FeatureView, ServiceEntry, Window
from headrace.definitions.plans import compile_plan
from headrace.types import ValueType

FLIGHT_KEYS: Final[Mapping[str, str]] = {
    "origin": "origin", "dest": "dest", "carrier": "carrier", "plane": "tail_number"
}  # fmt: skip
_TIME: Final = pa.timestamp("us", tz="UTC")
_US: Final = pd.Timedelta(microseconds=1)

# What the expressions of the definitions mean, said a second time in pandas.
_FILTERS: Final[Mapping[str, Callable[[pd.DataFrame], "pd.Series[bool]"]]] = {
    "": lambda events: pd.Series(True, index=events.index),
    "not cancelled": lambda events: ~events["cancelled"],
}
_COLUMNS: Final[Mapping[str, Callable[[pd.DataFrame], "pd.Series[float]"]]] = {
    "dep_delay": lambda events: events["dep_delay"],
    "arr_delay": lambda events: events["arr_delay"],
    "if(dep_delay > 15.0, 1, 0)": lambda events: (events["dep_delay"] > 15).astype("float64"),
    "if(cancelled, 1, 0)": lambda events: events["cancelled"].astype("float64"),
}


def service_of(definitions: DefinitionSet, name: str) -> FeatureService:
    """A feature service by its name."""
    return next(service for service in definitions.feature_services if service.name == name)


def write_tables(year: Year, definitions: DefinitionSet, shift_us: int) -> dict[str, pa.Table]:
    """The rows to write by view version, typed as the view takes them, their event times moved.

    Reads are as of now, so that no window reaches the events before WINDOW_EVENTS_FROM: they are left out.
    """
    tables = {}
    for view in definitions.feature_views:
        rows = year.events[view.name]
        if not view.is_plain:
            rows = rows[rows["event_time"] >= WINDOW_EVENTS_FROM]
        tables[f"{view.name}@v1"] = _table(rows, _written(view, definitions), shift_us)
    return tables


def lookups(year: Year, definitions: DefinitionSet, service: FeatureService) -> list[Lookup]:
    """What pandas looks up for each entry of plain views, in the order of the answer."""
    views = {view.name: view for view in definitions.feature_views}
    return [
        _lookup(year, views[entry.view.name], entry) for entry in service.entries if views[entry.view.name].is_plain
    ]


def window_lookups(
    year: Year, definitions: DefinitionSet, service: FeatureService, shift_us: int
) -> list[WindowLookup]:
    """What NumPy computes for each entry of views with windows, in the order of the answer."""
    views = {view.name: view for view in definitions.feature_views}
    entities = {entity.name: entity for entity in definitions.entities}
    found = []
    for entry in service.entries:
        view = views[entry.view.name]
        if not view.is_plain:
            found.append(_window_lookup(year.events[view.name], view, entities[view.entity], entry, shift_us))
    return found


def window_names(lookups: Sequence[WindowLookup]) -> list[str]:
    """Outputs of all lookups."""
    return [one.output for lookup in lookups for one in lookup.outputs]


def typed(expected: Expected, prepared: PreparedFeatures) -> pa.RecordBatch:
    """Pandas' values in the types of the answer."""
    arrays = [pa.Array.from_pandas(expected.values[c.name], type=c.value_type.arrow) for c in prepared.columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in prepared.columns])


def time_us(time: pd.Timestamp) -> int:
    """Microseconds since the epoch."""
    return int(time.value) // 1_000


def times_us(times: "pd.Series[pd.Timestamp]", shift_us: int) -> NDArray[np.int64]:
    """Moved times in microseconds since the epoch."""
    return times.to_numpy("datetime64[us]").view(np.int64) + shift_us


def _written(view: FeatureView, definitions: DefinitionSet) -> dict[str, ValueType]:
    """Columns of a write to a view, besides the event time."""
    (entity,) = (entity for entity in definitions.entities if entity.name == view.entity)
    (source,) = (source for source in definitions.sources if source.name == view.source)
    keys = {key.name: key.type for key in entity.join_keys}
    if view.is_plain:
        return keys | {feature.name: feature.type for feature in view.features}
    types = {column.name: column.type for column in source.columns}
    return keys | {name: types[name] for name in sorted(compile_plan(view, entity, source).columns)}


def _table(rows: pd.DataFrame, types: Mapping[str, ValueType], shift_us: int) -> pa.Table:
    columns = {name: pa.Array.from_pandas(rows[name], type=kind.arrow) for name, kind in types.items()}
    return pa.table(columns | {"event_time": pa.array(times_us(rows["event_time"], shift_us)).cast(_TIME)})


def _lookup(year: Year, view: FeatureView, entry: ServiceEntry) -> Lookup:
    key = KEYS[view.entity.rpartition(".")[2]]
    return Lookup(
        events=year.events[view.name],
        key=key,
        flight_key=FLIGHT_KEYS[entry.request_column(key)],
        features={feature.name: f"{entry.output_prefix}{feature.name}" for feature in view.features},
        ttl=None if view.ttl is None else pd.Timedelta(view.ttl),
    )


def _window_lookup(
    events: pd.DataFrame, view: FeatureView, entity: Entity, entry: ServiceEntry, shift_us: int
) -> WindowLookup:
    names = [key.name for key in entity.join_keys]
    taken = events[_FILTERS[view.filter](events)]
    outputs = list(_outputs(view, entry.output_prefix))
    columns = {one.column for one in outputs if isinstance(one, Aggregate) and one.column}
    return WindowLookup(
        keys=taken[names],
        flight_keys=[FLIGHT_KEYS[entry.request_column(name)] for name in names],
        times_us=times_us(taken["event_time"], shift_us),
        columns={column: np.asarray(_COLUMNS[column](taken), np.float64) for column in columns},
        outputs=outputs,
    )


def _outputs(view: FeatureView, prefix: str) -> Iterator[Aggregate | Share]:
    for feature in view.features:
        output, made = f"{prefix}{feature.name}", feature.transform
        if isinstance(made, Window):
            yield Aggregate(
                output, made.aggregate, made.expression, made.over // _US, made.hop // _US, made.quantile or 0.0
            )
        elif isinstance(made, Derived):
            above, below = (f"{prefix}{part.split(' ')[0]}" for part in made.expression.split("cast(")[1:])
            yield Share(output, above, below)
