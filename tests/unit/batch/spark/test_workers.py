"""What crosses between driver and workers: types and back again, slot ranges, and errors by their text."""

from typing import Any

import pyarrow as pa
import pytest
from pyspark.errors import PythonException

from batch.spark.columns import back, carried_arrow, ddl, spark_type
from batch.spark.inputs import group_numbers
from batch.spark.workers import of_group, of_pair, require_kernel, streamed, translated
from core_ext.arrow import arrow_column
from core_ext.keys import encode_key, encode_keys, slot_of_key
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.types import Scalar, parse_type

VALUES: dict[str, list[Any]] = {
    "bool": [True, None, False],
    "i32": [-(2**31), None, 1],
    "i64": [2**63 - 1, None, 1],
    "f32": [1.5, None, -0.0],
    "f64": [0.1, None, float("inf")],
    "string": ["é", None, ""],
    "bytes": [b"\0", None, b""],
    "list<i64,2>": [[1, 2], None, [3, 4]],
    "list<string>": [["a", "b"], None, []],
    "list<f32>": [[1.5], None, []],
}


@pytest.mark.parametrize("kind", VALUES)
def test_column_comes_back_from_spark_in_its_own_type(kind: str) -> None:
    value_type = parse_type(kind)
    array = pa.array(VALUES[kind], value_type.arrow)
    carried = array.cast(carried_arrow(value_type))
    for part, expected in ((carried, VALUES[kind]), (carried.slice(1), VALUES[kind][1:])):
        found = back(pa.chunked_array([part]), value_type.arrow)
        assert found.type == value_type.arrow
        assert found.to_pylist() == expected
    assert back(pa.chunked_array([], carried.type), value_type.arrow).to_pylist() == []


def test_schema_in_sparks_words_quotes_names() -> None:
    columns = [("a`b", spark_type(parse_type("list<i64,2>"))), ("c", spark_type(parse_type("timestamp_us")))]
    assert ddl(columns) == "`a``b` array<bigint>, `c` timestamp"


def test_slot_range_is_that_of_the_online_slot() -> None:
    names = [f"user-{i}" for i in range(500)]
    keys = encode_keys([int(Scalar.STRING)], [arrow_column(pa.array(names))])
    expected = [slot_of_key(encode_key([int(Scalar.STRING)], [name])) * 16 // 1024 for name in names]
    assert group_numbers(keys, 16).to_pylist() == expected


def refuse(*_: object) -> pa.Table:
    raise InvalidArgument("spine: key column 'a' holds a null", reason="NULL_KEY", field="spine")


@pytest.mark.parametrize("run", [lambda: of_pair(refuse)(None, None), lambda: of_group(refuse)(None)])
def test_refusal_in_a_worker_comes_back_as_itself(run: object) -> None:
    with pytest.raises(InvalidArgument) as caught:
        run()  # type: ignore[operator]
    text = f"Traceback (most recent call last):\n  File x\nheadrace.errors.InvalidArgument: {caught.value}\n"
    error = translated(PythonException(text))
    assert isinstance(error, InvalidArgument)
    assert (error.message, error.reason) == ("spine: key column 'a' holds a null", "NULL_KEY")


def test_missing_package_in_a_worker_is_its_environment() -> None:
    error = translated(PythonException("ModuleNotFoundError: No module named 'batch'\n"))
    assert isinstance(error, FailedPrecondition)
    assert error.field == "worker_python"


def test_other_failures_stay_what_they_are() -> None:
    failure = PythonException("ZeroDivisionError: division by zero")
    assert translated(failure) is failure
    odd = PythonException("headrace.errors.Final: x [REASON]")
    assert translated(odd) is odd


def test_other_kernel_is_refused_before_any_row() -> None:
    with pytest.raises(FailedPrecondition, match="install the same headrace"):
        require_kernel(-1)
    with pytest.raises(FailedPrecondition):
        list(streamed(iter, kernel=-1)([]))
