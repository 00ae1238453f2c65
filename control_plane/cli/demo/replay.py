"""The replay: write what happened until a checkpoint, read the flights that follow it, compare, go on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Final

import numpy as np
import pandas as pd
import pyarrow as pa

from control_plane.cli.demo.events import LAST_MOMENT, Year
from control_plane.cli.demo.tables import FLIGHT_KEYS
from headrace.client import Client, FeatureBatch, PreparedFeatures

CHECKPOINT: Final = pd.Timedelta(days=1)
FIRST_CHECKPOINT: Final = pd.Timestamp("2013-01-01T08:00Z")  # between the last arrival and the first departure of a day
SAMPLE_FLIGHTS: Final = 10  # of each checkpoint, read with every feature and derived again from history
READ_TIMEOUT_S: Final = 30.0  # of a whole day's flights in one call
DIFFERENCES_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Difference:
    """One value that is served otherwise than it was computed."""

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


@dataclass(frozen=True, slots=True)
class Wanted:
    """Values and states that answers should hold, row by row."""

    values: pa.RecordBatch
    states: Mapping[str, "np.ndarray[Any, Any]"]

    def rows(self, first: int, end: int) -> "Wanted":
        """Some of the rows."""
        states = {name: column[first:end] for name, column in self.states.items()}
        return Wanted(self.values.slice(first, end - first), states)


@dataclass(frozen=True, slots=True)
class Sample:
    """What was served for some flights, every feature of them."""

    flights: "np.ndarray[Any, Any]"
    batch: FeatureBatch


def checkpoints(year: Year) -> list[Checkpoint]:
    """One per day, and the last moment; all flights stand in exactly one."""
    scheduled = year.flights["scheduled_time"]
    days = pd.date_range(FIRST_CHECKPOINT, LAST_MOMENT, freq=CHECKPOINT)
    times = days.append(pd.DatetimeIndex([LAST_MOMENT]))
    bounds = [int(bound) for bound in scheduled.searchsorted(times)]
    ends = [*bounds[1:], len(scheduled)]
    return [Checkpoint(time, first, end) for time, first, end in zip(times, bounds, ends, strict=True)]


def as_of_times(stops: Sequence[Checkpoint]) -> "pd.Series[pd.Timestamp]":
    """The checkpoint that each flight is read at."""
    counts = [stop.end - stop.first for stop in stops]
    return pd.Series(pd.DatetimeIndex([stop.time for stop in stops]).repeat(counts))


class Replay:
    """One replay against a running server. `after_write` is told each checkpoint once its rows are written.

    `newest` is read for every flight, `every` feature for some. Event times of the tables are moved by `shift_us`.
    """

    def __init__(  # noqa: PLR0917 - every one is a different thing
        self,
        client: Client,
        newest: PreparedFeatures,
        every: PreparedFeatures,
        year: Year,
        tables: Mapping[str, pa.Table],
        shift_us: int,
        after_write: Callable[[Checkpoint], None],
    ) -> None:
        self.totals = Totals()
        self.samples: list[Sample] = []
        self._client = client
        self._newest = newest
        self._every = every
        self._tables = tables
        self._shift = np.timedelta64(shift_us, "us")
        self._times = {view: table.column("event_time").to_numpy() for view, table in tables.items()}
        self._written = dict.fromkeys(tables, 0)
        self._after_write = after_write
        self._keys = {name: pa.array(year.flights[column]) for name, column in FLIGHT_KEYS.items()}
        self._is_named = year.flights["tail_number"].notna().to_numpy()  # history takes no row whose key is null

    def run(self, stops: Sequence[Checkpoint], wanted: Wanted) -> Iterator[list[Difference]]:
        """Per checkpoint the differences, which should be none."""
        for stop in stops:
            self.write_until(stop)
            self._after_write(stop)
            if stop.end > stop.first:
                started = perf_counter()
                batch = self._read(self._newest, self.keys(np.arange(stop.first, stop.end)))
                self.totals.read_s += perf_counter() - started
                self._count(batch)
                self._sample(stop)
                yield compare(batch, range(stop.first, stop.end), wanted.rows(stop.first, stop.end))

    def write_until(self, stop: Checkpoint) -> None:
        """Writes the rows whose event time is not after the checkpoint and that are not written yet."""
        limit = np.datetime64(stop.time.tz_localize(None), "us") + self._shift
        started = perf_counter()
        for view, table in self._tables.items():
            first, end = self._written[view], int(np.searchsorted(self._times[view], limit, side="right"))
            if end > first:
                self._client.write_features(view, table.slice(first, end - first))
                self._written[view] = end
                self.totals.row_count += end - first
        self.totals.write_s += perf_counter() - started

    def read(self, first: int, end: int) -> FeatureBatch:
        """Every feature of consecutive flights in one call."""
        return self._read(self._every, self.keys(np.arange(first, end)))

    def keys(self, flights: "np.ndarray[Any, Any]") -> dict[str, pa.Array]:
        """Join keys of some flights, as a read sends them."""
        return {name: self._keys[name].take(pa.array(flights)) for name in self._every.join_keys}

    def _read(self, prepared: PreparedFeatures, keys: Mapping[str, pa.Array]) -> FeatureBatch:
        return self._client.get_online_features(prepared, entities=keys, timeout_s=READ_TIMEOUT_S)

    def _sample(self, stop: Checkpoint) -> None:
        flights = stop.first + np.flatnonzero(self._is_named[stop.first : stop.end])[:SAMPLE_FLIGHTS]
        self.samples.append(Sample(flights, self._read(self._every, self.keys(flights))))

    def _count(self, batch: FeatureBatch) -> None:
        self.totals.flight_count += batch.row_count
        self.totals.value_count += batch.row_count * len(batch.columns)
        for name in batch.columns:
            self.totals.state_counts += np.bincount(batch.states(name), minlength=16)


def compare(batch: FeatureBatch, flights: "Sequence[int] | np.ndarray[Any, Any]", wanted: Wanted) -> list[Difference]:
    """The first differences between an answer and what it should hold for its flights; values and states alike."""
    served = batch.to_arrow()
    found: list[Difference] = []
    for name in wanted.values.schema.names:
        column, value = served.column(name), wanted.values.column(name)
        state, wanted_state = batch.states(name), wanted.states[name]
        if column.equals(value) and np.array_equal(state, wanted_state):
            continue
        pairs = zip(column.to_pylist(), state, value.to_pylist(), wanted_state, strict=True)
        for row, (has, has_state, want, want_state) in enumerate(pairs):
            if (has, has_state) != (want, want_state):
                found.append(Difference(int(flights[row]), name, shown(has, has_state), shown(want, want_state)))
            if len(found) >= DIFFERENCES_SHOWN:
                return found
    return found


def shown(value: object, state: int) -> str:
    """A value with its state."""
    names = {1: "PRESENT", 2: "NULL", 3: "MISSING", 4: "EXPIRED", 5: "UNAVAILABLE"}
    return f"{value!r} ({names.get(state, state)})"
