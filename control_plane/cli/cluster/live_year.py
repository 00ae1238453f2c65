"""The flights of 2013 as a stream of today: event times moved so that what is replayed happens now, faster.

Until a moment, the start, events lie as far in the past as they lay before it. From there on they follow in their
order at `speed` flight seconds a second.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from control_plane.cli.demo.events import LAST_MOMENT, YEAR_START, Year
from control_plane.cli.demo.tables import time_us
from headrace.definitions import DefinitionSet, Source, SourceKind

START: Final = pd.Timestamp("2013-12-30T09:00Z")  # four in the morning in New York: two days of flights follow
HISTORY: Final = pd.Timedelta(days=38)  # the longest window and a week
DURATION: Final = LAST_MOMENT - START
# Source -> the view whose events are whole rows of it.
SOURCES: Final[Mapping[str, str]] = {
    "flights.airport.registry": "flights.airport.facts",
    "flights.carrier.registry": "flights.carrier.facts",
    "flights.plane.registry": "flights.plane.facts",
    "flights.weather.observations": "flights.weather.hourly",
    "flights.ops.departures": "flights.airport.last_departure",
    "flights.ops.arrivals": "flights.airport.last_arrival",
}


@dataclass(frozen=True, slots=True)
class Clock:
    """Flight time to time of today and back, in microseconds; the two meet at the start."""

    start_us: int
    speed: float

    def today_us(self, flight_us: NDArray[np.int64]) -> NDArray[np.int64]:
        """When events of flight times happen."""
        ahead = flight_us - time_us(START)
        moved = np.where(ahead > 0, np.floor(ahead / self.speed), ahead)
        return self.start_us + moved.astype(np.int64)

    def flight_us(self, today_us: int) -> int:
        """The last flight time that has happened; from the start on alone."""
        return time_us(START) + math.ceil((today_us - self.start_us + 1) * self.speed) - 1

    @property
    def end_us(self) -> int:
        """When the last event happens."""
        return int(self.today_us(np.array([time_us(LAST_MOMENT)], np.int64))[0])


def live_year(year: Year, clock: Clock) -> Year:
    """The year without what nobody reads any more, its event times those of today."""
    first = START - HISTORY
    events = {}
    for view, rows in year.events.items():
        kept = rows[(rows["event_time"] >= first) | (rows["event_time"] == YEAR_START)].reset_index(drop=True)
        moved = clock.today_us(kept["event_time"].to_numpy("datetime64[us]").view(np.int64))
        times = pd.Series(moved.view("datetime64[us]"), index=kept.index).dt.tz_localize("UTC")
        events[view] = kept.assign(event_time=times)
    return replace(year, events=events)


def streaming(definitions: DefinitionSet, topics: Mapping[str, str]) -> DefinitionSet:
    """The same definitions over topics, by the name of the source."""
    sources = [
        replace(source, kind=SourceKind.STREAM, uri=f"kafka:{topics[source.name]}?format=arrow")
        for source in definitions.sources
    ]
    return replace(definitions, sources=sources)


class SourceEvents:
    """Events of one source in the order in which they happen."""

    def __init__(self, source: Source, year: Year) -> None:
        rows = year.events[SOURCES[source.name]]
        arrays = [pa.Array.from_pandas(rows[column.name], type=column.type.arrow) for column in source.columns]
        self.source = source
        self._table = pa.Table.from_arrays(arrays, names=[column.name for column in source.columns])
        self.times_us: NDArray[np.int64] = rows["event_time"].to_numpy("datetime64[us]").view(np.int64)
        self._sent = 0

    def until(self, today_us: int, rows_max: int) -> Iterator[pa.Table]:
        """What has happened since the last call, in parts of few enough rows for one message."""
        end = int(np.searchsorted(self.times_us, today_us, side="right"))
        while self._sent < end:
            count = min(rows_max, end - self._sent)
            yield self._table.slice(self._sent, count)
            self._sent += count

    def next_us(self) -> int | None:
        """When the next event happens; None after the last."""
        return int(self.times_us[self._sent]) if self._sent < len(self.times_us) else None
