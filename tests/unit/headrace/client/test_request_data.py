"""Request data in every form that people hold it in, as the contract wants it."""

from collections.abc import Callable
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headrace.client.request_data import encode_request_data
from headrace.errors import InvalidArgument
from headrace.types import Scalar, ValueType
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.headrace.client.online_service import Served
from tests.unit.headrace.client.test_clients import KEYS, Runner, run_async, run_sync

AT = datetime(2026, 1, 2, 3, 4, 5, 6, UTC)
AT_US = 1_767_323_045_000_006


def columns_of(data: Any, known: dict[str, ValueType] | None = None) -> dict[str, pb.RequestColumn]:
    message = pb.GetOnlineFeaturesRequest.FromString(encode_request_data(data, known or {}))
    return {column.name: column for column in message.request_columns}


def scalar_of(values: Any, known: dict[str, ValueType]) -> int:
    return int(columns_of({"x": values}, known)["x"].value_type.scalar_type)


def shown(column: pb.RequestColumn) -> tuple[int, bytes, list[int]]:
    return column.value_type.scalar_type, column.values, list(column.null_rows)


CASES: dict[str, tuple[Any, Scalar, np.typing.ArrayLike, str, list[int]]] = {
    "floats": ([1.5, None], Scalar.F64, [1.5, 0.0], "<f8", [1]),
    "numpy f32": (np.array([1.5, -2], np.float32), Scalar.F32, [1.5, -2], "<f4", []),
    "numpy big-endian": (np.array([1, -2], ">i8"), Scalar.I64, [1, -2], "<i8", []),
    "numpy bool": (np.array([True, False]), Scalar.BOOL, [1, 0], "u1", []),
    "arrow i32": (pa.array([7, None], pa.int32()), Scalar.I32, [7, 0], "<i4", [1]),
    "arrow slice": (pa.array([9, 7, None], pa.int64())[1:], Scalar.I64, [7, 0], "<i8", [1]),
    "chunks": (pa.chunked_array([[1.0], [2.0]]), Scalar.F64, [1.0, 2.0], "<f8", []),
    "pandas": (pd.Series([1.0, None]), Scalar.F64, [1.0, 0.0], "<f8", [1]),
    "times": ([AT, None], Scalar.TIMESTAMP_US, [AT_US, 0], "<i8", [1]),
    "dates": ([date(1970, 1, 3)], Scalar.DATE, [2], "<i4", []),
}


@pytest.mark.parametrize("case", CASES)
def test_values_of_fixed_width(case: str) -> None:
    values, scalar, numbers, form, nulls = CASES[case]
    if case == "times":
        values = pa.array(values, pa.timestamp("us", "UTC"))
    column = columns_of({"x": values})["x"]
    assert shown(column) == (int(scalar), np.array(numbers, form).tobytes(), nulls)
    assert column.offsets == b""


@pytest.mark.parametrize("values", [["ü", None, "a"], pa.array(["x", "ü", None, "a"])[1:], np.array(["ü", None, "a"])])
def test_texts(values: Any) -> None:
    column = columns_of({"x": values})["x"]
    assert shown(column) == (int(Scalar.STRING), "üa".encode(), [1])
    assert np.frombuffer(column.offsets, "<u4").tolist() == [0, 2, 2, 3]


def test_bytes() -> None:
    column = columns_of({"x": [b"\xff", b""]})["x"]
    assert shown(column) == (int(Scalar.BYTES), b"\xff", [])


@pytest.mark.parametrize(
    "data",
    [
        pa.table({"a": [1.0], "b": ["x"]}),
        pa.record_batch({"a": [1.0], "b": ["x"]}),
        pd.DataFrame({"a": [1.0], "b": ["x"]}),
        {"a": [1.0], "b": ["x"]},
    ],
)
def test_a_table_is_a_column_for_each_field(data: Any) -> None:
    assert {name: column.value_type.scalar_type for name, column in columns_of(data).items()} == {"a": 5, "b": 6}


def test_nothing_is_no_column() -> None:
    assert encode_request_data(None, {}) == b""


def test_a_known_field_decides_between_types_that_hold_the_value() -> None:
    known = {"x": ValueType(Scalar.F64)}
    assert columns_of({"x": [1, None]}, known)["x"].values == np.array([1.0, 0.0]).tobytes()
    assert scalar_of(np.array([1.5], np.float32), known) == int(Scalar.F64)
    assert scalar_of([None, None], known) == int(Scalar.F64)
    # What would lose something is sent as it is, for the server to refuse.
    assert scalar_of(np.array([2**60]), known) == int(Scalar.I64)


WRONG: dict[str, Callable[[], Any]] = {
    "scalar": lambda: {"x": 1.0},
    "two dimensions": lambda: {"x": np.zeros((1, 2))},
    "mixed": lambda: {"x": [1.0, "a"]},
    "naive times": lambda: {"x": [datetime(2026, 1, 1)]},
    "lists": lambda: {"x": [[1.0]]},
    "beyond 64 bits": lambda: {"x": [2**64]},
    "no columns": lambda: 3,
}


@pytest.mark.parametrize("case", WRONG)
def test_what_no_field_holds_is_refused(case: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        encode_request_data(WRONG[case](), {})
    assert caught.value.reason == "REQUEST_DATA_TYPE"


@pytest.mark.parametrize("run", [run_sync, run_async])
def test_both_clients_send_request_data(served: Served, run: Runner) -> None:
    data = {"distance_km": np.array([1.0, 2.0, 3.0])}
    run(served.target, "get_online_features", "shop.users.ranking", entities=KEYS, request_data=data)
    (column,) = served.service.requests[-1].request_columns
    assert (column.name, column.values) == ("distance_km", np.array([1.0, 2.0, 3.0]).tobytes())
