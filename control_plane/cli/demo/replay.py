"""The replay: write what happened until a checkpoint, read the flights that follow it, compare, go on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from control_plane.cli.demo.events import KEYS, Year
from control_plane.cli.demo.expected import Expected, Lookup
from headrace.client import Client, FeatureBatch, PreparedFeatures
from headrace.definitions import DefinitionSet, FeatureService, FeatureView

CHECKPOINT: Final = pd.Timedelta(days=1)
FIRST_CHECKPOINT: Final = pd.Timestamp("2013-01-01T08:00Z")  # between the last arrival and the first departure of a day
READ_TIMEOUT_S: Final = 30.0  # of a whole day's flights in one call
DIFFERENCES_SHOWN: Final = 5
FLIGHT_KEYS: Final[Mapping[str, str]] = {
    "origin": "origin", "dest": "dest", "carrier": "carrier", "plane": "tail_number"
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is served otherwise than pandas computes it."""

    flight: int
    column: str
    served: str
    expected: str


@dataclass(slots=True)
class Totals:
    """What the replay did so far."""

    flight_count: int = 0
    value_count: int = 0
    row_count: int = 0
    write_s: float = 0.0
    read_s: float = 0.0
    state_counts: "np.ndarray[tuple[int], np.dtype[np.int64]]" = field(default_factory=lambda: np.zeros(16, np.int64))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The time until which events are written, and the flights (first, past the last) that follow before the next."""

    time: pd.Timestamp
    first: int
    end: int


def checkpoints(year: Year) -> list[Checkpoint]:
    """One per day, each with the flights scheduled from then on; all flights stand in exactly one."""
    scheduled = year.flights["scheduled_time"]
    times = pd.date_range(FIRST_CHECKPOINT, scheduled.iloc[-1], freq=CHECKPOINT)
    bounds = [int(bound) for bound in scheduled.searchsorted(times)]
    ends = [*bounds[1:], len(scheduled)]
    return [Checkpoint(time, first, end) for time, first, end in zip(times, bounds, ends, strict=True)]


def as_of_times(stops: Sequence[Checkpoint]) -> "pd.Series[pd.Timestamp]":
    """The checkpoint that each flight is read at."""
    counts = [stop.end - stop.first for stop in stops]
    return pd.Series(pd.DatetimeIndex([stop.time for stop in stops]).repeat(counts))


def lookups(year: Year, definitions: DefinitionSet) -> list[Lookup]:
    """What pandas looks up for each entry of the service, in the order of the answer."""
    views = {view.name: view for view in definitions.feature_views}
    (service,) = definitions.feature_services
    return [_lookup(year, views[entry.view.name], service, index) for index, entry in enumerate(service.entries)]


def write_tables(year: Year, definitions: DefinitionSet) -> dict[str, pa.Table]:
    """All rows of the year by view version, typed as the view declares them."""
    entities = {entity.name: entity for entity in definitions.entities}
    tables = {}
    for view in definitions.feature_views:
        (key,) = entities[view.entity].join_keys
        types = {key.name: key.type.arrow, "event_time": pa.timestamp("us", tz="UTC")}
        types |= {feature.name: feature.type.arrow for feature in view.features}
        rows = year.events[view.name]
        columns = {name: pa.Array.from_pandas(rows[name], type=kind) for name, kind in types.items()}
        tables[f"{view.name}@v1"] = pa.table(columns)
    return tables


def typed(expected: Expected, prepared: PreparedFeatures) -> pa.RecordBatch:
    """Pandas' values in the types of the answer."""
    arrays = [pa.Array.from_pandas(expected.values[c.name], type=c.value_type.arrow) for c in prepared.columns]
    return pa.RecordBatch.from_arrays(arrays, names=[column.name for column in prepared.columns])


class Replay:
    """One replay against a running server. `after_write` is told each checkpoint once its rows are written."""

    def __init__(
        self,
        client: Client,
        prepared: PreparedFeatures,
        year: Year,
        tables: Mapping[str, pa.Table],
        after_write: Callable[[Checkpoint], None],
    ) -> None:
        self.totals = Totals()
        self._client = client
        self._prepared = prepared
        self._tables = tables
        self._times = {view: table.column("event_time").to_numpy() for view, table in tables.items()}
        self._written = dict.fromkeys(tables, 0)
        self._after_write = after_write
        self._keys = {name: pa.array(year.flights[column]) for name, column in FLIGHT_KEYS.items()}

    def run(
        self, stops: Sequence[Checkpoint], values: pa.RecordBatch, states: Mapping[str, "pd.Series[int]"]
    ) -> Iterator[list[Difference]]:
        """Per checkpoint the differences, which should be none."""
        wanted = {name: column.to_numpy(np.uint8) for name, column in states.items()}
        for stop in stops:
            self.write_until(stop)
            self._after_write(stop)
            if stop.end > stop.first:
                batch = self.read(stop.first, stop.end)
                self._count(batch)
                yield compare(batch, stop.first, values, wanted)

    def write_until(self, stop: Checkpoint) -> None:
        """Writes the rows whose event time is not after the checkpoint and that are not written yet."""
        limit = np.datetime64(stop.time.tz_localize(None), "us")
        started = perf_counter()
        for view, table in self._tables.items():
            first, end = self._written[view], int(np.searchsorted(self._times[view], limit, side="right"))
            if end > first:
                self._client.write_features(view, table.slice(first, end - first))
                self._written[view] = end
                self.totals.row_count += end - first
        self.totals.write_s += perf_counter() - started

    def read(self, first: int, end: int) -> FeatureBatch:
        """Features of consecutive flights in one call."""
        keys = {name: column.slice(first, end - first) for name, column in self._keys.items()}
        started = perf_counter()
        batch = self._client.get_online_features(self._prepared, entities=keys, timeout_s=READ_TIMEOUT_S)
        self.totals.read_s += perf_counter() - started
        return batch

    def _count(self, batch: FeatureBatch) -> None:
        self.totals.flight_count += batch.row_count
        self.totals.value_count += batch.row_count * len(batch.columns)
        for name in batch.columns:
            self.totals.state_counts += np.bincount(batch.states(name), minlength=16)


def compare(
    batch: FeatureBatch, first: int, values: pa.RecordBatch, states: Mapping[str, "np.ndarray[Any, Any]"]
) -> list[Difference]:
    """The first differences between an answer and the expected rows from `first` on; values and states alike."""
    served = batch.to_arrow()
    found: list[Difference] = []
    for name in batch.columns:
        column, wanted = served.column(name), values.column(name).slice(first, batch.row_count)
        state, wanted_state = batch.states(name), states[name][first : first + batch.row_count]
        if column.equals(wanted) and np.array_equal(state, wanted_state):
            continue
        pairs = zip(column.to_pylist(), state, wanted.to_pylist(), wanted_state, strict=True)
        for row, (has, has_state, want, want_state) in enumerate(pairs):
            if (has, has_state) != (want, want_state):
                found.append(Difference(first + row, name, _shown(has, has_state), _shown(want, want_state)))
            if len(found) >= DIFFERENCES_SHOWN:
                return found
    return found


def _lookup(year: Year, view: FeatureView, service: FeatureService, index: int) -> Lookup:
    entry = service.entries[index]
    key = KEYS[view.entity.rpartition(".")[2]]
    return Lookup(
        events=year.events[view.name],
        key=key,
        flight_key=FLIGHT_KEYS[entry.request_column(key)],
        features={feature.name: f"{entry.output_prefix}{feature.name}" for feature in view.features},
        ttl_passed=view.ttl is not None,
    )


def _shown(value: object, state: int) -> str:
    names = {1: "PRESENT", 2: "NULL", 3: "MISSING", 4: "EXPIRED", 5: "UNAVAILABLE"}
    return f"{value!r} ({names.get(state, state)})"
