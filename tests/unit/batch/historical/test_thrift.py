"""Trees of Thrift structs: the footers of Arrow come back byte for byte, and damage is refused."""

import io
from typing import Any

import hypothesis.strategies as st
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given

from batch.historical.thrift import (
    BINARY,
    BYTE,
    FALSE,
    I16,
    I32,
    I64,
    LIST,
    STRUCT,
    TRUE,
    Items,
    Struct,
    read_struct,
    struct_bytes,
)


def footer(table: pa.Table, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    data = sink.getvalue()
    return data[-8 - int.from_bytes(data[-8:-4], "little") : -8]


TABLES = {
    "numbers": pa.table({f"column {i}": pa.array([1, None, 3]) for i in range(20)}),
    "nested": pa.table({"lists": [[1, 2], None, []], "structs": [{"a": "x", "b": None}] * 3}),
    "empty": pa.table({"time": pa.array([], pa.timestamp("us", "UTC"))}),
}


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("options", [{}, {"write_page_index": True}, {"write_statistics": False}])
def test_a_footer_of_arrow_comes_back_as_it_was(name: str, options: dict[str, Any]) -> None:
    data = footer(TABLES[name], row_group_size=1, **options)
    assert struct_bytes(read_struct(data)) == data


def values(kind: int) -> st.SearchStrategy[Any]:
    if kind in (I16, I32, I64):
        return st.integers(-(2**63), 2**63 - 1)
    return {BINARY: st.binary(max_size=300), BYTE: st.integers(0, 255), TRUE: st.just(1), FALSE: st.just(0)}[kind]


def fields(inner: st.SearchStrategy[Struct]) -> st.SearchStrategy[Struct]:
    flat = st.sampled_from([I16, I32, I64, BINARY, BYTE, TRUE, FALSE]).flatmap(
        lambda kind: values(kind).map(lambda value: (kind, value))
    )
    lists = st.sampled_from([I64, BINARY]).flatmap(
        lambda kind: st.lists(values(kind), max_size=20).map(lambda found: (LIST, Items(kind, found)))
    )
    structs = st.lists(inner, max_size=3).map(lambda found: (LIST, Items(STRUCT, list(found))))
    one = flat | lists | structs | inner.map(lambda struct: (STRUCT, struct))
    return st.dictionaries(st.integers(1, 2**15 - 1), one, max_size=8)


@given(st.recursive(st.just({}), fields, max_leaves=10))
def test_any_struct_is_read_as_it_was_written(struct: Struct) -> None:
    assert read_struct(struct_bytes(struct)) == struct


def test_a_struct_may_stand_as_its_bytes() -> None:
    inner: Struct = {1: (I64, -7), 40: (BINARY, b"name")}
    whole: Struct = {4: (LIST, Items(STRUCT, [inner, inner]))}
    assert struct_bytes({4: (LIST, Items(STRUCT, [struct_bytes(inner), inner]))}) == struct_bytes(whole)


def test_what_is_not_whole_is_refused() -> None:
    data = footer(TABLES["nested"])
    for size in range(0, len(data), 7):
        with pytest.raises(ValueError, match="does not end"):
            read_struct(data[:size])
    with pytest.raises(ValueError, match="type 7 is not used"):
        read_struct(b"\x17" + bytes(8) + b"\0")
    with pytest.raises(ValueError, match="too deep"):
        read_struct(b"\x1c" * 100)
