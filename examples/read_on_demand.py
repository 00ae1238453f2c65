"""Reads features that are computed at the read: `python examples/read_on_demand.py HOST:PORT`."""

import sys

from headrace.client import Client


def main(target: str) -> None:
    """Prints one line a user."""
    with Client(target) as client:
        service = client.prepare("shop.ranking.offers")  # once, when the model server starts
        print("needs", ", ".join(f"{name} ({kind})" for name, kind in service.request_fields.items()))
        batch = client.get_online_features(
            service,
            entities={"user_id": [1, 3]},
            request_data={"price": [21.25, 14.5], "in_country": ["DE", "DE"]},
            timeout_s=0.5,
        )
        for row in batch.to_arrow().to_pylist():
            print(row)


if __name__ == "__main__":
    main(sys.argv[1])
