"""Typed values: no cast, one form, a JSON form that comes back."""

import json
import math
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.definitions.transform import canonical_json
from headrace.definitions.values import VALUE_BYTES_MAX, check_value, value_document, value_from_document
from headrace.errors import InvalidArgument
from headrace.types import ValueType, parse_type
from tests.unit.headrace.definitions.samples import value_types, values_of


@given(st.data())
def test_json_form_comes_back_to_the_same_value(data: st.DataObject) -> None:
    value_type = data.draw(value_types())
    value = check_value(data.draw(values_of(value_type)), value_type)
    text = canonical_json(value_document(value))
    assert value_from_document(json.loads(text), value_type) == value
    again = value_from_document(json.loads(text), value_type)
    assert canonical_json(value_document(again)) == text, "signs of zero are kept"


@pytest.mark.parametrize(
    ("type_text", "value", "reason"),
    [
        ("bool", 1, "WRONG_TYPE"),
        ("i32", True, "WRONG_TYPE"),
        ("i32", 1.0, "WRONG_TYPE"),
        ("i32", 2**31, "OUT_OF_RANGE"),
        ("i32", -(2**31) - 1, "OUT_OF_RANGE"),
        ("i64", 2**63, "OUT_OF_RANGE"),
        ("f32", 0, "WRONG_TYPE"),
        ("f32", True, "WRONG_TYPE"),
        ("f32", 3.5e38, "OUT_OF_RANGE"),
        ("f64", "1.0", "WRONG_TYPE"),
        ("string", b"x", "WRONG_TYPE"),
        ("string", "\ud800", "INVALID_TEXT"),
        ("string", "é" * VALUE_BYTES_MAX, "TOO_LONG"),
        ("bytes", "x", "WRONG_TYPE"),
        ("bytes", bytes(VALUE_BYTES_MAX + 1), "TOO_LONG"),
        ("timestamp_us", datetime(2013, 1, 1), "NAIVE_TIME"),
        ("timestamp_us", date(2013, 1, 1), "WRONG_TYPE"),
        ("timestamp_us", datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "OUT_OF_RANGE"),
        ("date", datetime(2013, 1, 1, tzinfo=UTC), "WRONG_TYPE"),
        ("list<f32,2>", [1.0], "WRONG_LENGTH"),
        ("list<f32,2>", [1.0, 2], "WRONG_TYPE"),
        ("list<string>", "ab", "WRONG_TYPE"),
        ("list<string>", ["a", None], "WRONG_TYPE"),
        ("list<bool>", [True] * 65_536, "TOO_MANY"),
    ],
)
def test_value_of_another_type_is_refused(type_text: str, value: Any, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_value(value, parse_type(type_text))
    assert caught.value.reason == reason
    assert caught.value.field.startswith("default")


def test_error_in_a_list_names_the_element() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_value([1.0, 2], parse_type("list<f32,2>"))
    assert caught.value.field == "default[1]"


def test_whole_number_for_a_float_is_refused_with_what_to_write() -> None:
    with pytest.raises(InvalidArgument, match=r"write 3\.0"):
        check_value(3, parse_type("f32"))


@pytest.mark.parametrize("value", [math.inf, -math.inf, 0.1, -0.0])
def test_every_float_of_the_type_is_kept(value: float) -> None:
    assert math.copysign(1, check_value(value, parse_type("f32"))) == math.copysign(1, value)  # type: ignore[arg-type]
    assert check_value(value, parse_type("f32")) == value


def test_nan_has_one_form_so_that_equal_definitions_are_equal() -> None:
    assert check_value(float("nan"), parse_type("f64")) is check_value(-float("nan"), parse_type("f64"))


def test_times_are_kept_in_utc() -> None:
    given_time = datetime(2013, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert str(check_value(given_time, parse_type("timestamp_us"))) == "2013-01-01 00:00:00+00:00"


@pytest.mark.parametrize(
    ("type_text", "document", "value"),
    [
        ("f32", "nan", math.nan),
        ("f64", "-inf", -math.inf),
        ("f64", math.inf, math.inf),
        ("bytes", "AAE=", b"\x00\x01"),
        ("bytes", b"\x00\x01", b"\x00\x01"),
        ("timestamp_us", "2013-01-01T00:00:00Z", datetime(2013, 1, 1, tzinfo=UTC)),
        ("timestamp_us", datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, tzinfo=UTC)),
        ("date", "2013-01-02", date(2013, 1, 2)),
        ("date", date(2013, 1, 2), date(2013, 1, 2)),
        ("string", "nan", "nan"),
        ("list<i32>", [], ()),
    ],
)
def test_document_form_is_read(type_text: str, document: Any, value: Any) -> None:
    found = value_from_document(document, parse_type(type_text))
    assert found == value or (found != found and value != value)


@pytest.mark.parametrize(
    ("type_text", "document"),
    [
        ("f32", "NaNs"),
        ("bytes", "not base64"),
        ("timestamp_us", "yesterday"),
        ("timestamp_us", "2013-01-01T00:00:00"),
        ("date", "2013-13-01"),
        ("i32", "1"),
        ("bool", "true"),
        ("list<i32>", 1),
        ("list<i32>", {"0": 1}),
    ],
)
def test_document_of_another_form_is_refused(type_text: str, document: Any) -> None:
    with pytest.raises(InvalidArgument) as caught:
        value_from_document(document, parse_type(type_text))
    assert caught.value.reason in {"WRONG_TYPE", "NAIVE_TIME"}


def test_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_value("x" * 100_000, ValueType(parse_type("f32").scalar))
    assert len(caught.value.message) < 300
