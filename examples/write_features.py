"""Writes rows and reads them back at once: `python examples/write_features.py HOST:PORT`."""

import sys
from datetime import UTC, datetime

import pyarrow as pa

from headrace.client import Client, Durability, ReadOptions


def main(target: str) -> None:
    """One row, acknowledged when it would survive the death of the server process."""
    rows = pa.table(
        {
            "user_id": [7],
            "event_time": [datetime.now(UTC)],  # a time without a zone is refused
            "country": ["SE"],
            "basket_value": [99.5],
            "visits": pa.array([1], pa.int32()),
        }
    )
    with Client(target) as client:
        written = client.write_features("shop.users.activity@v1", rows, durability=Durability.LOG)
        print("wrote", written.row_count, "row at", written.tokens)
        options = ReadOptions(min_offsets=written.tokens)  # read your own write, whichever server answers
        batch = client.get_online_features("shop.ranking.homepage", entities={"user_id": [7]}, options=options)
        print(batch.to_arrow().to_pylist())


if __name__ == "__main__":
    main(sys.argv[1])
