"""One call for a hundred flights: what comes, how fast, and every window of it computed a second time by NumPy."""

from collections import Counter
from time import perf_counter
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from control_plane.cli.demo.expected_windows import WindowLookup, window_values
from control_plane.cli.demo.replay import Checkpoint, Difference, Replay, Wanted, compare
from control_plane.cli.demo.screen import Screen
from control_plane.cli.output import plain
from headrace.client import FeatureBatch, PreparedFeatures, ValueState

BATCH_FLIGHTS: Final = 100
BATCH_REPEATS: Final = 300  # of the batch, for percentiles up to the 99th
SHOWN_FLIGHTS: Final = 3
SHOWN_FEATURES: Final = (
    "origin_weather_temp", "origin_last_dep_delay", "dest_name", "carrier_name", "plane_seats", "plane_last_dest",
    "origin_departures_1h", "origin_dep_delay_mean_6h", "carrier_dep_delay_max_1d", "carrier_dep_delay_p90_7d",
    "carrier_cancelled_share_30d", "plane_departures_7d", "plane_late_share_30d", "route_dep_delay_stddev_7d",
    "route_arr_delay_p90_30d",
)  # fmt: skip


class BatchStep:
    """The call after the last checkpoint."""

    def __init__(self, screen: Screen, replay: Replay, flights: pd.DataFrame, stop: Checkpoint) -> None:
        self._screen = screen
        self._replay = replay
        self._first, self._end = stop.first, stop.first + BATCH_FLIGHTS
        self._flights = flights.iloc[self._first : self._end]

    def run(
        self, prepared: PreparedFeatures, newest: Wanted, lookups: list[WindowLookup], written_us: int
    ) -> list[Difference]:
        """Differences to pandas and NumPy, which should be none."""
        batch = self._replay.read(self._first, self._end)
        self._show(batch)
        differences = compare(batch, range(self._first, self._end), newest.rows(self._first, self._end))
        windows = window_wanted(prepared, self._flights, batch.read_time_us, written_us, lookups)
        differences += compare(batch, range(self._first, self._end), windows)
        if differences:
            return differences
        newest_count, window_count = len(newest.values.schema.names), len(windows.values.schema.names)
        counts = Counter(int(state) for column in windows.states.values() for state in column)
        told = ", ".join(f"{ValueState(state).name} {count:,}" for state, count in counts.most_common())
        newest_of, window_of = (f"{n:,} of {n:,}" for n in (BATCH_FLIGHTS * newest_count, BATCH_FLIGHTS * window_count))
        self._screen.say(
            f"pandas agrees with {newest_of} newest values, NumPy with {window_of} values of windows ({told})"
        )
        self._time()
        return []

    def _show(self, batch: FeatureBatch) -> None:
        served = batch.to_arrow().slice(0, SHOWN_FLIGHTS).to_pydict()
        heads = [
            f"{flight.carrier}{flight.flight} {flight.origin}-{flight.dest}"
            for flight in self._flights[:SHOWN_FLIGHTS].itertuples()
        ]
        rows = []
        for name in SHOWN_FEATURES:
            states = batch.states(name)[:SHOWN_FLIGHTS]
            texts = [
                ValueState(state).name if value is None else _short(value)
                for value, state in zip(served[name], states, strict=True)
            ]
            rows.append((name, *texts))
        self._screen.say(
            f"one call for {BATCH_FLIGHTS} flights gives {len(batch.columns)} features of each; some of the first "
            f"{SHOWN_FLIGHTS}:"
        )
        self._screen.table(("feature", *heads), rows)

    def _time(self) -> None:
        times_ms = np.empty(BATCH_REPEATS)
        for number in range(BATCH_REPEATS):
            started = perf_counter()
            self._replay.read(self._first, self._end)
            times_ms[number] = (perf_counter() - started) * 1_000
        p50, p95, p99 = np.percentile(times_ms, (50, 95, 99))
        self._screen.say(
            f"{BATCH_REPEATS:,} such calls, one after another from this Python process: p50 {p50:.2f} ms, "
            f"p95 {p95:.2f} ms, p99 {p99:.2f} ms"
        )


def window_wanted(
    prepared: PreparedFeatures, flights: pd.DataFrame, read_us: int, written_us: int, lookups: list[WindowLookup]
) -> Wanted:
    """What NumPy computes for a read at a time, in the types of the answer."""
    found = window_values(flights, read_us, written_us, lookups)
    types = {column.name: column.value_type.arrow for column in prepared.columns}
    arrays = [pa.array([value for value, _ in pairs], types[name]) for name, pairs in found.items()]
    states = {name: np.array([state for _, state in pairs], np.uint8) for name, pairs in found.items()}
    return Wanted(pa.RecordBatch.from_arrays(arrays, names=list(found)), states)


def _short(value: object) -> str:
    return f"{value:.3f}".rstrip("0").rstrip(".") if isinstance(value, float) else plain(value)
