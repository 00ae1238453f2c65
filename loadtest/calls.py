"""Requests of a scenario as bytes for Zipf keys, and the check of an answer against the rows that were loaded."""

from collections.abc import Iterator, Mapping
from typing import Final

import numpy as np

from loadtest.dataset import Scenario, item_count_of, item_of, key_columns
from loadtest.rows import Keys, ZipfKeys, values
from protos.feature.v1 import online_feature_service_pb2 as pb

READ_METHOD: Final = "/headrace.feature.v1.OnlineFeatureService/GetOnlineFeatures"
ROWS_METHOD: Final = "/headrace.feature.v1.ShardService/BatchGetRows"
PRESENT: Final = int(pb.VALUE_STATE_PRESENT)


class Calls:
    """Draws batches of keys for one scenario and makes their requests; same seed, same calls."""

    def __init__(self, scenario: Scenario, user_count: int, seed: int, handle: bytes = b"") -> None:
        self.scenario = scenario
        self._user_count = user_count
        self._handle = handle
        self._zipf = ZipfKeys(user_count, seed)

    def draw(self) -> Keys:
        """Users of one call, all different."""
        return self._zipf.draw_distinct(self.scenario.row_count)

    def request(self, users: Keys) -> bytes:
        """The request for these users, by handle where one was given and else by service."""
        message = pb.GetOnlineFeaturesRequest(handle=self._handle)
        if not self._handle:
            message.feature_service = self.scenario.service
        for name, column in self._columns(users).items():
            message.entity_columns.add(join_key=name).int64_values.extend(column.tolist())
        return message.SerializeToString()

    def stream(self, count: int) -> Iterator[tuple[Keys, bytes]]:
        """`count` calls with their users."""
        for _ in range(count):
            users = self.draw()
            yield users, self.request(users)

    def faults(self, users: Keys, answer: bytes) -> list[str]:
        """What is wrong with an answer, by column; empty when every value and status is right."""
        message = pb.GetOnlineFeaturesResponse.FromString(answer)
        if len(message.columns) != self.scenario.feature_count:
            return [f"{len(message.columns)} columns instead of {self.scenario.feature_count}"]
        found, at = [], 0
        for view in self.scenario.views:
            keys = self._view_keys(view.entity, users)
            expected = values(view.index, keys, view.feature_count)
            for number in range(view.feature_count):
                column = message.columns[at]
                at += 1
                if column.statuses != bytes([PRESENT]) * len(users):
                    found.append(f"column {at - 1}: statuses {column.statuses.hex()}")
                elif column.values != expected[:, number].astype("<f4").tobytes():
                    found.append(f"column {at - 1}: values differ")
        return found

    def _columns(self, users: Keys) -> Mapping[str, Keys]:
        out: dict[str, Keys] = {}
        for view in self.scenario.views:
            keys = self._view_keys(view.entity, users)
            out |= key_columns(view, keys, self._user_count)
        return {name: out[name] for name in self.scenario.join_keys}

    def _view_keys(self, entity: str, users: Keys) -> Keys:
        if entity.endswith(".item"):
            return item_of(users, item_count_of(self._user_count))
        return np.asarray(users, dtype=np.int64)
