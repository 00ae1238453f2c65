"""The flights of 2013 moved to today: order, times, and that nothing is lost or sent early."""

import numpy as np
import pandas as pd
import pytest

from control_plane.cli.cluster.live_year import START, Clock, SourceEvents, live_year, streaming
from control_plane.cli.demo.events import YEAR_START, Year
from control_plane.cli.demo.tables import time_us
from headrace.definitions import Column, DefinitionSet, Source, SourceKind

NOW_US = 1_767_225_600_000_000
SOURCE = Source(
    "flights.carrier.registry",
    owner="flights",
    columns=[Column("carrier", "string"), Column("event_time", "timestamp_us"), Column("seats", "i32")],
)
VIEW = "flights.carrier.facts"


def year_of(*times: str) -> Year:
    rows = pd.DataFrame(
        {
            "event_time": pd.Series(pd.to_datetime(list(times), utc=True)).astype("datetime64[us, UTC]"),
            "carrier": [f"C{number}" for number in range(len(times))],
            "seats": [None if number == 1 else float(number) for number in range(len(times))],
        }
    )
    return Year(pd.DataFrame(), {VIEW: rows})


@pytest.mark.parametrize("speed", [1.0, 300.0, 7.3])
def test_flight_time_and_today_agree_both_ways(speed: float) -> None:
    clock = Clock(NOW_US, speed)
    flight_us = time_us(START) + np.array([-10_000_000, 0, 1, 59, 60_000_000, 86_400_000_000], np.int64)
    today_us = clock.today_us(flight_us)
    assert today_us[:2].tolist() == [NOW_US - 10_000_000, NOW_US]
    assert (np.diff(today_us) >= 0).all()
    for flight, today in zip(flight_us[1:].tolist(), today_us[1:].tolist(), strict=True):
        assert clock.today_us(np.array([clock.flight_us(today)]))[0] == today
        assert clock.flight_us(today) >= flight


def test_history_keeps_its_distance_and_the_live_part_is_faster() -> None:
    start = START.isoformat()
    later = (START + pd.Timedelta(minutes=10)).isoformat()
    before = (START - pd.Timedelta(days=1)).isoformat()
    old = (START - pd.Timedelta(days=60)).isoformat()
    live = live_year(year_of(YEAR_START.isoformat(), old, before, start, later), Clock(NOW_US, 60.0))
    rows = live.events[VIEW]
    assert rows["carrier"].tolist() == ["C0", "C2", "C3", "C4"], "facts stay, and what no window reaches goes"
    times = rows["event_time"].to_numpy("datetime64[us]").view(np.int64) - NOW_US
    assert times[1:].tolist() == [-86_400_000_000, 0, 10_000_000]


def test_events_are_given_once_when_they_happen_in_parts() -> None:
    times = [(START + pd.Timedelta(seconds=number)).isoformat() for number in range(5)]
    events = SourceEvents(SOURCE, live_year(year_of(*times), Clock(NOW_US, 1.0)))
    assert events.next_us() == NOW_US
    assert list(events.until(NOW_US - 1, 2)) == []
    first = list(events.until(NOW_US + 2_000_000, 2))
    assert [part["carrier"].to_pylist() for part in first] == [["C0", "C1"], ["C2"]]
    assert first[0]["seats"].to_pylist() == [0, None]
    assert events.next_us() == NOW_US + 3_000_000
    assert [len(part) for part in events.until(NOW_US + 60_000_000, 100)] == [2]
    assert events.next_us() is None


def test_definitions_read_topics_and_change_in_nothing_else() -> None:
    given = DefinitionSet(sources=[SOURCE])
    made = streaming(given, {SOURCE.name: "demo.carriers"})
    assert (made.sources[0].kind, made.sources[0].uri) == (SourceKind.STREAM, "kafka:demo.carriers?format=arrow")
    assert made.sources[0].columns == SOURCE.columns
