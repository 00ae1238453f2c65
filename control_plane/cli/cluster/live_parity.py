"""What pandas and NumPy compute as a batch over the events that were sent, against what is served for flights."""

import time
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa

from control_plane.cli.cluster.live_year import Clock
from control_plane.cli.demo.batch_step import window_wanted
from control_plane.cli.demo.events import Year
from control_plane.cli.demo.expected import latest
from control_plane.cli.demo.replay import Difference, Wanted, compare
from control_plane.cli.demo.tables import FLIGHT_KEYS, lookups, service_of, typed, window_lookups
from headrace.client import Client, FeatureBatch
from headrace.definitions import DefinitionSet

FLIGHTS: Final = 50  # of a comparison: the next to be scheduled
# For events on their way, on a busy small machine; a wrong value stays wrong. A server asks a partition without a
# leader, as those of new topics are, again after half a minute.
SETTLE_S: Final = 75.0
POLL_S: Final = 0.05
READ_TIMEOUT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Compared:
    """One comparison; `settle_s` is how long the last events took to be in every value."""

    flights: pd.DataFrame
    value_count: int
    differences: list[Difference]
    settle_s: float


class LiveParity:
    """`year` has the times of today."""

    def __init__(self, client: Client, definitions: DefinitionSet, year: Year, clock: Clock) -> None:
        self._client = client
        self._flights = year.flights
        self._clock = clock
        self._every = client.prepare("flights.delay.departure@v1")
        self._newest = client.prepare("flights.delay.newest_values@v1")
        self._lookups = lookups(year, definitions, service_of(definitions, "flights.delay.newest_values"))
        self._windows = window_lookups(year, definitions, service_of(definitions, "flights.delay.departure"), 0)
        self._scheduled_us = year.flights["scheduled_time"].to_numpy("datetime64[us]").view(np.int64)

    @property
    def feature_count(self) -> int:
        """Features of one flight."""
        return len(self._every.columns)

    def compare(self, sent_us: int) -> Compared:
        """Compares while nothing is sent; `sent_us` is the time until which all events were."""
        first = int(np.searchsorted(self._scheduled_us, self._clock.flight_us(sent_us)))
        flights = self._flights.iloc[first : first + FLIGHTS].reset_index(drop=True)
        started = time.monotonic()
        while True:
            batch = self._read(flights)
            differences = self._differences(batch, flights, sent_us)
            settle_s = time.monotonic() - started
            if not differences or settle_s > SETTLE_S:
                return Compared(flights, batch.row_count * len(batch.columns), differences, settle_s)
            time.sleep(POLL_S)

    def _read(self, flights: pd.DataFrame) -> FeatureBatch:
        keys = {name: pa.array(flights[column]) for name, column in FLIGHT_KEYS.items()}
        return self._client.get_online_features(self._every, entities=keys, timeout_s=READ_TIMEOUT_S)

    def _differences(self, batch: FeatureBatch, flights: pd.DataFrame, sent_us: int) -> list[Difference]:
        places = range(len(flights))
        as_of = pd.Series(pd.to_datetime(np.full(len(flights), sent_us), unit="us", utc=True).as_unit("us"))
        expected = latest(flights, as_of, self._lookups, pd.Timestamp(batch.read_time_us, unit="us", tz="UTC"))
        states = {name: column.to_numpy(np.uint8) for name, column in expected.states.items()}
        found = compare(batch, places, Wanted(typed(expected, self._newest), states))
        return found or compare(
            batch, places, window_wanted(self._every, flights, batch.read_time_us, sent_us, self._windows)
        )
