"""Types, values, times and durations from and to their messages."""

from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf import duration_pb2, timestamp_pb2
from hypothesis import given
from hypothesis import strategies as st

from headrace.convert.values import (
    duration_from_pb,
    duration_to_pb,
    timestamp_from_pb,
    timestamp_to_pb,
    type_from_pb,
    type_to_pb,
    value_from_pb,
    value_to_pb,
)
from headrace.definitions.values import check_value
from headrace.errors import InvalidArgument
from headrace.types import Scalar, Shape, ValueType, parse_type
from protos.common.v1 import value_pb2 as pb
from tests.unit.headrace.definitions.samples import DURATIONS, VALUES, value_types, values_of


@given(value_types())
def test_type_comes_back(value_type: ValueType) -> None:
    assert type_from_pb(type_to_pb(value_type)) == value_type


def test_numbers_of_types_are_those_of_the_contract() -> None:
    assert {scalar.name: int(scalar) for scalar in Scalar} == {
        name.removeprefix("SCALAR_TYPE_"): number for name, number in pb.ScalarType.items() if number
    }
    shapes = {name.removeprefix("LIST_SHAPE_"): number for name, number in pb.ListShape.items() if number}
    assert {shape.name: int(shape) for shape in Shape if shape} == shapes


@given(st.data())
def test_value_comes_back_through_its_wire_bytes(data: st.DataObject) -> None:
    value_type = data.draw(value_types())
    value = check_value(data.draw(values_of(value_type)), value_type)
    message = pb.Value.FromString(value_to_pb(value, value_type).SerializeToString())
    # In lists, which find the one NaN equal to itself.
    assert [value_from_pb(message, value_type)] == [value]


def test_null_is_an_unset_kind() -> None:
    value_type = parse_type("f32")
    assert value_from_pb(value_to_pb(None, value_type), value_type) is None


@given(VALUES[Scalar.TIMESTAMP_US])
def test_time_comes_back(time: datetime) -> None:
    assert timestamp_from_pb(timestamp_to_pb(time), "event_time") == time


@given(DURATIONS)
def test_duration_comes_back(duration: timedelta) -> None:
    assert duration_from_pb(duration_to_pb(duration), "ttl") == duration


def test_time_before_the_epoch_has_positive_nanos() -> None:
    message = timestamp_to_pb(datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
    assert (message.seconds, message.nanos) == (-1, 999_999_000)


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (timestamp_pb2.Timestamp(seconds=1, nanos=1), "TOO_PRECISE"),
        (timestamp_pb2.Timestamp(seconds=2**62), "OUT_OF_RANGE"),
        (timestamp_pb2.Timestamp(seconds=253_402_300_800), "OUT_OF_RANGE"),
        (timestamp_pb2.Timestamp(seconds=0, nanos=2_000_000_000), "OUT_OF_RANGE"),
    ],
)
def test_time_out_of_range_is_refused(message: timestamp_pb2.Timestamp, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        timestamp_from_pb(message, "event_time")
    assert (caught.value.reason, caught.value.field) == (reason, "event_time")


def test_duration_below_the_microsecond_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        duration_from_pb(duration_pb2.Duration(nanos=1_500), "ttl")
    assert caught.value.reason == "TOO_PRECISE"


@pytest.mark.parametrize(
    ("type_text", "message", "reason"),
    [
        ("i64", pb.Value(float_value=1.0), "WRONG_TYPE"),
        ("f32", pb.Value(int_value=1), "WRONG_TYPE"),
        ("bool", pb.Value(int_value=1), "WRONG_TYPE"),
        ("i32", pb.Value(int_value=2**31), "OUT_OF_RANGE"),
        ("string", pb.Value(bytes_value=b"x"), "WRONG_TYPE"),
        ("timestamp_us", pb.Value(int_value=1), "WRONG_TYPE"),
        ("date", pb.Value(int_value=2**40), "OUT_OF_RANGE"),
        ("date", pb.Value(int_value=2**63 - 1), "OUT_OF_RANGE"),
        ("list<i64>", pb.Value(int_value=1), "WRONG_TYPE"),
        ("list<i64>", pb.Value(list_value=pb.ValueList(values=[pb.Value()])), "NULL_ELEMENT"),
        ("list<f32,2>", pb.Value(list_value=pb.ValueList(values=[pb.Value(float_value=1)])), "WRONG_LENGTH"),
        ("f32", pb.Value(list_value=pb.ValueList()), "WRONG_TYPE"),
    ],
)
def test_value_of_another_kind_is_refused(type_text: str, message: pb.Value, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        value_from_pb(message, parse_type(type_text), "values")
    assert caught.value.reason == reason
    assert caught.value.field.startswith("values")


@pytest.mark.parametrize(
    "message",
    [
        pb.ValueType(),
        pb.ValueType(scalar_type=99),  # type: ignore[arg-type]
        pb.ValueType(scalar_type=pb.SCALAR_TYPE_F32, list_shape=9),  # type: ignore[arg-type]
        pb.ValueType(scalar_type=pb.SCALAR_TYPE_F32, list_shape=pb.LIST_SHAPE_FIXED),
        pb.ValueType(scalar_type=pb.SCALAR_TYPE_F32, list_size=3),
        pb.ValueType(scalar_type=pb.SCALAR_TYPE_STRING, list_shape=pb.LIST_SHAPE_FIXED, list_size=3),
        pb.ValueType(scalar_type=pb.SCALAR_TYPE_F32, list_shape=pb.LIST_SHAPE_FIXED, list_size=-1),
    ],
)
def test_unknown_type_is_refused(message: pb.ValueType) -> None:
    with pytest.raises(InvalidArgument) as caught:
        type_from_pb(message)
    assert (caught.value.reason, caught.value.field) == ("UNKNOWN_TYPE", "value_type")
