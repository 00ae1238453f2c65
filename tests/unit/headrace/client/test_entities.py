"""Join key columns from every accepted form, and the refusal of every other."""

from datetime import date
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from headrace.client.entities import encode_entities
from headrace.errors import InvalidArgument
from headrace.types import Scalar
from protos.feature.v1 import online_feature_service_pb2 as pb


def encoded(values: Any, key_type: Scalar | None = None) -> pb.EntityColumn:
    raw = encode_entities({"k": values}, {} if key_type is None else {"k": key_type})
    (column,) = pb.GetOnlineFeaturesRequest.FromString(raw).entity_columns
    assert column.join_key == "k"
    return column


@pytest.mark.parametrize(
    "values",
    [
        np.array([1, -2, 2**62]),
        np.array([1, -2, 2**62])[:, None].repeat(2, axis=1)[:, 0],
        [1, -2, 2**62],
        (1, -2, 2**62),
        pa.array([1, -2, 2**62]),
        pa.chunked_array([[1], [-2, 2**62]]),
        pa.array([0, 1, -2, 2**62])[1:],
        pd.Series([1, -2, 2**62]),
    ],
    ids=["numpy", "strided", "list", "tuple", "arrow", "chunked", "sliced", "pandas"],
)
def test_integers_of_every_form_are_the_same_column(values: Any) -> None:
    assert list(encoded(values).int64_values) == [1, -2, 2**62]


def test_narrow_integers_are_widened_without_loss() -> None:
    assert list(encoded(np.array([-1, 2], np.int16)).int64_values) == [-1, 2]
    assert list(encoded(np.array([1, 2**32 - 1], np.uint32)).int64_values) == [1, 2**32 - 1]


@pytest.mark.parametrize(
    "values",
    [
        ["a", "ß"],
        np.array(["a", "ß"]),
        np.array(["a", "ß"], object),
        pa.array(["a", "ß"]),
        pa.array(["a", "ß"], pa.large_string()),
        pa.array(["a", "ß"]).dictionary_encode(),
        pd.Series(["a", "ß"]),
    ],
    ids=["list", "numpy", "objects", "arrow", "large", "dictionary", "pandas"],
)
def test_text_of_every_form_is_the_same_column(values: Any) -> None:
    assert list(encoded(values).string_values) == ["a", "ß"]


def test_bytes_are_their_own_type() -> None:
    assert list(encoded([b"\x00", b"a"]).bytes_values) == [b"\x00", b"a"]


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ([5, None, 6], "int64_values"),
        (pa.array([5, None, 6]), "int64_values"),
        (["x", None, "y"], "string_values"),
        (pd.Series(["x", None, "y"]), "string_values"),
        ([b"x", None, b"y"], "bytes_values"),
    ],
)
def test_nulls_are_named_rows_with_placeholders(values: Any, field: str) -> None:
    column = encoded(values)
    assert list(column.null_rows) == [1]
    assert len(getattr(column, field)) == 3


def test_only_nulls_take_the_type_of_the_prepared_key() -> None:
    column = encoded([None, None], Scalar.STRING)
    assert list(column.null_rows) == [0, 1]
    assert list(column.string_values) == ["", ""]


@pytest.mark.parametrize(
    "values",
    [
        [1.5],
        [True],
        np.array([1.0]),
        np.array([True]),
        np.array([1], np.uint64),
        ["a", 1],
        ["a", b"a"],
        [None, None],
        [],
        "abc",
        b"abc",
        5,
        pa.array([1.0]),
        pa.array([date(2026, 1, 1)]),
        np.array(["2026-01-01"], "M8[us]"),
    ],
    ids=lambda values: repr(values).split(" at 0x")[0],  # an address differs between test processes
)
def test_values_that_are_no_keys_are_refused(values: Any) -> None:
    with pytest.raises(InvalidArgument, match="entity column k is") as caught:
        encoded(values)
    assert (caught.value.reason, caught.value.field) == ("ENTITY_KEY_TYPE", "entities[k]")


def test_matrix_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="2 dimensions"):
        encoded(np.zeros((2, 2), np.int64))


def test_integer_beyond_64_bits_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="beyond 64 bits"):
        encoded([2**63])


def test_no_column_at_all_is_refused() -> None:
    with pytest.raises(InvalidArgument, match="no entity column"):
        encode_entities({}, {})
