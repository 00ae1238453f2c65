"""Reads features with the blocking client: `python examples/read_features.py HOST:PORT`."""

import sys

import numpy as np

from headrace.client import Client, ReadOptions, ValueState


def main(target: str) -> None:
    """Prints the same batch in three forms."""
    with Client(target) as client:
        service = client.prepare("shop.ranking.homepage")  # once, when the model server starts
        users = np.array([1, 2, 3, 5])
        options = ReadOptions(include_event_times=True)
        batch = client.get_online_features(service, entities={"user_id": users}, options=options, timeout_s=0.5)

        baskets = batch.numpy("basket_value")  # a view of the bytes that came, zero where there is no value
        present = batch.states("basket_value") == ValueState.PRESENT
        print("mean basket of", int(present.sum()), "users:", float(baskets[present].mean()))
        print("newest event:", batch.event_times("basket_value").max())
        print(batch.to_arrow().to_pylist())
        print(batch.to_pandas())


if __name__ == "__main__":
    main(sys.argv[1])
