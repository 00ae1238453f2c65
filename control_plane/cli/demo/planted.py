"""Wrong rows that tests have the demonstration write, to see that it finds them."""

from enum import StrEnum
from typing import Final

import pyarrow as pa

from headrace.client import Client

_CARRIER: Final = "UA"  # flies every hour
_TIME: Final = pa.timestamp("us", tz="UTC")


class Planted(StrEnum):
    """Which of the comparisons has to fail."""

    NEWEST = "newest"
    WINDOW = "window"
    HISTORY = "history"


def plant(client: Client, planted: Planted, time_us: int) -> None:
    """Writes one wrong row through the server."""
    row = {"carrier": [_CARRIER], "event_time": pa.array([time_us]).cast(_TIME)}
    if planted is Planted.NEWEST:
        client.write_features("flights.carrier.facts@v1", pa.table(row | {"name": ["planted by --plant"]}))
    else:
        flight = row | {"dep_delay": [1.0], "cancelled": [False]}
        client.write_features("flights.carrier.departure_delays@v1", pa.table(flight))
