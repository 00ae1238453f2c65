"""Requests carry the drawn keys, and wrong answers are found."""

import numpy as np

from loadtest.calls import Calls
from loadtest.dataset import SCENARIOS
from loadtest.rows import Keys, values
from protos.feature.v1 import online_feature_service_pb2 as pb


def answer_for(users: Keys) -> pb.GetOnlineFeaturesResponse:
    answer = pb.GetOnlineFeaturesResponse(row_count=len(users))
    for view in SCENARIOS["10x200"].views:
        rows = values(view.index, users)
        for number in range(view.feature_count):
            statuses = bytes([pb.VALUE_STATE_PRESENT]) * len(users)
            answer.columns.add(values=rows[:, number].tobytes(), statuses=statuses)
    return answer


def test_request_by_handle_names_no_service() -> None:
    calls = Calls(SCENARIOS["10x200"], 100, seed=1, handle=b"h" * 32)
    users, message = next(iter(calls.stream(1)))
    request = pb.GetOnlineFeaturesRequest.FromString(message)
    assert (request.handle, request.feature_service) == (b"h" * 32, "")
    assert list(request.entity_columns[0].int64_values) == users.tolist()


def test_cross_request_has_a_column_per_join_key() -> None:
    calls = Calls(SCENARIOS["cross"], 100, seed=1)
    request = pb.GetOnlineFeaturesRequest.FromString(calls.request(calls.draw()))
    assert [column.join_key for column in request.entity_columns] == ["user_id", "item_id"]
    assert request.feature_service == "bench.online.cross_320"


def test_right_answer_has_no_faults() -> None:
    users = np.arange(10, dtype=np.int64)
    assert Calls(SCENARIOS["10x200"], 100, seed=1).faults(users, answer_for(users).SerializeToString()) == []


def test_wrong_value_is_named_by_its_column() -> None:
    users = np.arange(10, dtype=np.int64)
    answer = answer_for(users)
    answer.columns[150].values = bytes(40)
    faults = Calls(SCENARIOS["10x200"], 100, seed=1).faults(users, answer.SerializeToString())
    assert faults == ["column 150: values differ"]


def test_missing_value_is_a_fault_though_its_slot_is_right() -> None:
    users = np.arange(10, dtype=np.int64)
    answer = answer_for(users)
    answer.columns[3].statuses = bytes([1] * 9 + [3])
    faults = Calls(SCENARIOS["10x200"], 100, seed=1).faults(users, answer.SerializeToString())
    assert faults == ["column 3: statuses 01010101010101010103"]


def test_answer_without_columns_is_a_fault() -> None:
    users = np.arange(10, dtype=np.int64)
    assert Calls(SCENARIOS["10x200"], 100, seed=1).faults(users, b"") == ["0 columns instead of 200"]
