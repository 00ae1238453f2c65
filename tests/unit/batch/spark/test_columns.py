"""Columns of files in the types of the kernels."""

from typing import Any

import pyarrow as pa
import pytest

from batch.spark.columns import converted, history_types, match_types, row_bytes
from headrace.types import parse_type
from tests.unit.batch.historical import samples

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


def stored(kind: pa.DataType) -> pa.DataType:
    """As Iceberg has it."""
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind):
        return pa.list_(pa.field("element", kind.value_type))
    return pa.large_string() if kind == pa.string() else kind


@pytest.mark.parametrize("kind", VALUES)
def test_column_of_a_table_comes_in_the_type_of_the_kernels(kind: str) -> None:
    wanted = parse_type(kind).arrow
    array = pa.array(VALUES[kind], stored(wanted))
    for part, expected in ((array, VALUES[kind]), (array.slice(1), VALUES[kind][1:]), (array.slice(3), [])):
        found = converted(part, wanted)
        assert found.type == wanted
        assert found.to_pylist() == expected


def test_dictionaries_and_unsigned_numbers_are_converted_or_refused() -> None:
    assert converted(pa.array(["a", "b", "a"]).dictionary_encode(), pa.string()).to_pylist() == ["a", "b", "a"]
    assert converted(pa.array([2**32 - 1], pa.int64()), pa.uint32()).to_pylist() == [2**32 - 1]
    with pytest.raises(pa.ArrowInvalid):
        converted(pa.array([-1], pa.int64()), pa.uint32())


def test_only_what_decides_a_match_travels() -> None:
    view = samples.view(())
    names = [name for name, _ in match_types(view)]
    assert names == view.match_columns()
    assert row_bytes(match_types(view)) < row_bytes(history_types(view))
    assert {name for name, _ in history_types(view)} == {*names, *view.value_columns()}
