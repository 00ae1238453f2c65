"""What plain pandas says each flight's features were; imports nothing of Headrace."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

PRESENT, NULL, MISSING, EXPIRED = 1, 2, 3, 4


@dataclass(frozen=True, slots=True)
class Lookup:
    """Features of one view for one key of the flight: {feature: output name}, from its events."""

    events: pd.DataFrame
    key: str
    flight_key: str
    features: Mapping[str, str]
    ttl: pd.Timedelta | None = None


@dataclass(frozen=True, slots=True)
class Expected:
    """Values (missing where there is none) and states by output name, one row per flight."""

    values: Mapping[str, "pd.Series[Any]"]
    states: Mapping[str, "pd.Series[int]"]


def latest(
    flights: pd.DataFrame, as_of: "pd.Series[pd.Timestamp]", lookups: Sequence[Lookup], now: pd.Timestamp
) -> Expected:
    """The newest event at or before each flight's time, the last of equal times; as_of must be ascending.

    An event that is as old as its time to live `now` is withheld.
    """
    values: dict[str, pd.Series[Any]] = {}
    states: dict[str, pd.Series[int]] = {}
    for lookup in lookups:
        found = _newest(flights[lookup.flight_key], as_of, lookup)
        is_found = found["_found"].notna()
        for feature, output in lookup.features.items():
            column = found[feature]
            state = column.notna().map({True: PRESENT, False: NULL}).where(is_found, MISSING)
            if lookup.ttl is not None:
                is_old = found["event_time"] + lookup.ttl <= now  # false where there is none
                column, state = column.where(~is_old), state.where(~is_old, EXPIRED)
            values[output] = column
            states[output] = state
    return Expected(values, states)


def _newest(keys: "pd.Series[str]", as_of: "pd.Series[pd.Timestamp]", lookup: Lookup) -> pd.DataFrame:
    """merge_asof looks backward and takes the last of the rows equal in time; events stand in the order of arrival."""
    asked = pd.DataFrame({"_as_of": as_of, "_key": keys.fillna("")})  # no event has an empty key
    events = lookup.events[[lookup.key, "event_time", *lookup.features]].assign(_found=1.0)
    return pd.merge_asof(
        asked,
        events,
        left_on="_as_of",
        right_on="event_time",
        left_by="_key",
        right_by=lookup.key,
        direction="backward",
    )
