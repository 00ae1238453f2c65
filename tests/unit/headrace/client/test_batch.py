"""Answers as numpy and Arrow: right for every type, over the received bytes, and refused when malformed."""

import struct
from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client import FeatureBatch, OutputColumn, ValueState
from headrace.client.batch import Outputs
from headrace.errors import InternalError, InvalidArgument
from headrace.types import Scalar, Shape, ValueType, parse_type
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb

PRESENT, NULL, MISSING, EXPIRED = ValueState.PRESENT, ValueState.NULL, ValueState.MISSING, ValueState.EXPIRED
DEFAULTED = 0x10
WITHHELD = 0x40
MICROS = 1_700_000_000_000_000


def wire_type(kind: ValueType) -> value_pb2.ValueType:
    return value_pb2.ValueType(
        scalar_type=value_pb2.ScalarType.ValueType(kind.scalar),
        list_shape=value_pb2.ListShape.ValueType(kind.shape),
        list_size=kind.list_size,
    )


def packed(values: list[bytes]) -> tuple[bytes, bytes]:
    ends = np.concatenate([[0], np.cumsum([len(value) for value in values])]).astype("<u4")
    return b"".join(values), ends.tobytes()


def text_list(items: list[bytes]) -> bytes:
    ends = np.cumsum([len(item) for item in items]).astype("<u4")
    return struct.pack("<I", len(items)) + ends.tobytes() + b"".join(items)


def column(
    name: str, kind: str, values: bytes, statuses: list[int], offsets: bytes = b"", event_times: bytes = b""
) -> pb.FeatureColumn:
    return pb.FeatureColumn(
        name=name,
        values=values,
        offsets=offsets,
        statuses=bytes(statuses),
        event_times=event_times,
        value_type=wire_type(parse_type(kind)),
    )


def batch(*columns: pb.FeatureColumn) -> FeatureBatch:
    count = len(columns[0].statuses)
    message = pb.GetOnlineFeaturesResponse(columns=columns, row_count=count, registry_revision=8, read_time_us=MICROS)
    return FeatureBatch(message.SerializeToString())


def test_head_and_names_are_those_of_the_answer() -> None:
    answer = batch(column("b", "i32", b"\0" * 8, [PRESENT] * 2), column("a", "i32", b"\0" * 8, [PRESENT] * 2))
    assert (answer.columns, answer.row_count, answer.registry_revision) == (("b", "a"), 2, 8)
    assert answer.read_time_us == MICROS


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("bool", np.array([1, 0], "?"), [True, False]),
        ("i32", np.array([-5, 7], "<i4"), [-5, 7]),
        ("i64", np.array([-(2**62), 7], "<i8"), [-(2**62), 7]),
        ("f32", np.array([0.5, -0.0], "<f4"), [0.5, -0.0]),
        ("f64", np.array([0.1, float("inf")], "<f8"), [0.1, float("inf")]),
        (
            "timestamp_us",
            np.array([0, MICROS], "<i8"),
            [datetime(1970, 1, 1, tzinfo=UTC), datetime.fromtimestamp(MICROS // 1_000_000, UTC)],
        ),
        ("date", np.array([0, 1], "<i4"), [date(1970, 1, 1), date(1970, 1, 2)]),
        ("list<f32,2>", np.array([[1, 2], [3, 4]], "<f4"), [[1, 2], [3, 4]]),
        ("list<bool,3>", np.array([[1, 0, 1], [0, 0, 1]], "?"), [[True, False, True], [False, False, True]]),
    ],
)
def test_fixed_width_types_read_in_both_forms(kind: str, values: "np.ndarray[Any, Any]", expected: list[Any]) -> None:
    answer = batch(column("x", kind, values.tobytes(), [PRESENT, PRESENT]))
    assert answer.to_arrow().column("x").to_pylist() == expected
    assert answer.to_arrow().schema.field("x").type == parse_type(kind).arrow
    assert np.array_equal(answer.numpy("x").astype(values.dtype), values)


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("string", ["ß".encode(), b""], ["ß", ""]),
        ("bytes", [b"\xff", b""], [b"\xff", b""]),
        ("list<i64>", [np.array([1, -1], "<i8").tobytes(), b""], [[1, -1], []]),
        ("list<bool>", [b"\x01\x00\x01", b"\x01"], [[True, False, True], [True]]),
        ("list<string>", [text_list([b"a", b"", b"cd"]), text_list([])], [["a", "", "cd"], []]),
        ("list<bytes>", [b"", text_list([b"z"])], [[], [b"z"]]),
    ],
)
def test_variable_types_read_in_both_forms(kind: str, values: list[bytes], expected: list[Any]) -> None:
    answer = batch(column("x", kind, packed(values)[0], [PRESENT, PRESENT], packed(values)[1]))
    array = answer.to_arrow().column("x")
    array.validate(full=True)
    assert array.to_pylist() == expected
    assert [value if isinstance(value, str | bytes) else list(value) for value in answer.numpy("x")] == expected


@given(st.lists(st.lists(st.binary(max_size=5), max_size=4), min_size=1, max_size=6))
def test_lists_of_bytes_survive_the_wire_form(rows: list[list[bytes]]) -> None:
    values, offsets = packed([text_list(row) for row in rows])
    answer = batch(column("x", "list<bytes>", values, [PRESENT] * len(rows), offsets))
    assert answer.to_arrow().column("x").to_pylist() == rows


def test_arrays_share_the_bytes_of_their_column_and_are_read_only() -> None:
    answer = batch(column("x", "f64", np.arange(4.0).tobytes(), [PRESENT] * 4))
    first, again, arrow = answer.numpy("x"), answer.numpy("x"), answer.to_arrow().column("x")
    assert np.shares_memory(first, again)
    assert arrow.buffers()[1].address == first.ctypes.data
    assert not first.flags.writeable
    assert not answer.statuses("x").flags.writeable


@pytest.mark.parametrize("answer", [b"\x0a\x05ab", b"\xff", b"\x0b"])
def test_bytes_that_are_no_answer_are_refused(answer: bytes) -> None:
    with pytest.raises(InternalError, match="malformed"):
        FeatureBatch(answer)


def test_arrow_is_null_exactly_where_there_is_no_value() -> None:
    statuses = [
        PRESENT,
        NULL,
        MISSING,
        EXPIRED | WITHHELD,
        MISSING | DEFAULTED,
        PRESENT | 0x20,
        ValueState.UNAVAILABLE | 0x40,
    ]
    answer = batch(column("x", "i64", np.arange(7, dtype="<i8").tobytes(), list(statuses)))
    assert answer.to_arrow().column("x").to_pylist() == [0, None, None, None, 4, 5, None]
    assert list(answer.states("x")) == [PRESENT, NULL, MISSING, EXPIRED, MISSING, PRESENT, ValueState.UNAVAILABLE]


def test_expired_values_count_unless_they_are_withheld() -> None:
    expired = column("x", "i64", np.array([5, 0], "<i8").tobytes(), [EXPIRED, EXPIRED | WITHHELD])
    assert batch(expired).to_arrow().column("x").to_pylist() == [5, None]


def test_event_times_come_only_when_asked_for() -> None:
    times = np.array([MICROS], "<i8").tobytes()
    asked = batch(column("x", "i32", b"\0" * 4, [PRESENT], event_times=times))
    assert asked.event_times("x")[0] == np.datetime64(MICROS, "us")
    with pytest.raises(InvalidArgument, match="include_event_times"):
        batch(column("x", "i32", b"\0" * 4, [PRESENT])).event_times("x")


STATUSES = st.sampled_from([PRESENT, NULL, MISSING, EXPIRED, EXPIRED | WITHHELD, MISSING | DEFAULTED])


@given(st.data(), st.sampled_from(["f32", "f64"]), st.integers(1, 5), st.integers(1, 130), st.booleans())
def test_frame_of_one_float_type_is_that_of_arrow(
    data: st.DataObject, kind: str, columns: int, rows: int, has_times: bool
) -> None:
    width = {"f32": 4, "f64": 8}[kind]
    made = [
        column(
            f"c{at}", kind, data.draw(st.binary(min_size=width * rows, max_size=width * rows)),
            data.draw(st.lists(STATUSES, min_size=rows, max_size=rows)),
            event_times=bytes(8 * rows) if has_times and at != data.draw(st.integers(0, 9)) else b"",
        )
        for at in range(columns)
    ]  # fmt: skip
    found = batch(*made)
    pd.testing.assert_frame_equal(found.to_pandas(), found.to_arrow().to_pandas())


def test_frame_may_be_written_to() -> None:
    frame = batch(column("x", "f64", np.array([1.5, 0]).tobytes(), [PRESENT, PRESENT])).to_pandas()
    frame.loc[0, "x"] = 2.5
    assert frame["x"].tolist() == [2.5, 0]


def test_frames_of_one_selection_share_nothing_that_can_be_changed() -> None:
    bare = pb.FeatureColumn(values=np.array([2.5]).tobytes(), statuses=bytes([PRESENT]))
    raw = pb.GetOnlineFeaturesResponse(columns=[bare], row_count=1).SerializeToString()
    outputs = Outputs([OutputColumn("x", "a.b.c@v1:x", ValueType(Scalar.F64, Shape.SINGLE))])
    first, second = FeatureBatch(raw, outputs).to_pandas(), FeatureBatch(raw, outputs).to_pandas()
    first.columns.name = "features"
    first.loc[0, "x"] = 7.0
    pd.testing.assert_frame_equal(second, pd.DataFrame({"x": [2.5]}))
    assert second.columns.name is None


def test_a_frame_names_the_column_that_is_malformed() -> None:
    columns = [column("good", "f64", b"\0" * 16, [PRESENT] * 2), column("bad", "f64", b"\0" * 15, [PRESENT] * 2)]
    raw = pb.GetOnlineFeaturesResponse(columns=columns, row_count=2).SerializeToString()
    kinds = ValueType(Scalar.F64, Shape.SINGLE)
    outputs = Outputs(OutputColumn(name, f"a.b.c@v1:{name}", kinds) for name in ("good", "bad"))
    for found in (FeatureBatch(raw), FeatureBatch(raw, outputs)):
        with pytest.raises(InternalError, match="column bad: 2 rows"):
            found.to_pandas()


def test_pandas_has_a_column_per_feature() -> None:
    frame = batch(column("x", "f64", np.array([1.5, 0]).tobytes(), [PRESENT, MISSING])).to_pandas()
    assert frame["x"][0] == 1.5
    assert frame["x"].isna().tolist() == [False, True]


def test_unknown_column_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidArgument, match="no column y in this batch; it has x") as caught:
        batch(column("x", "i32", b"\0" * 4, [PRESENT])).numpy("y")
    assert caught.value.reason == "COLUMN_UNKNOWN"


def test_read_by_handle_takes_names_and_types_from_the_handle() -> None:
    bare = pb.FeatureColumn(values=np.array([2.5]).tobytes(), statuses=bytes([PRESENT]))
    raw = pb.GetOnlineFeaturesResponse(columns=[bare], row_count=1).SerializeToString()
    output = OutputColumn("x", "a.b.c@v1:x", ValueType(Scalar.F64, Shape.SINGLE))
    assert FeatureBatch(raw, [output]).numpy("x").tolist() == [2.5]
    with pytest.raises(InternalError, match="1 columns where the handle has 2"):
        FeatureBatch(raw, [output, output])


@pytest.mark.parametrize(
    "broken",
    [
        column("x", "f64", b"\0" * 15, [PRESENT] * 2),
        column("x", "f64", b"\0" * 16, [PRESENT] * 2, event_times=b"\0" * 8),
        column("x", "f64", b"\0" * 16, [PRESENT] * 2, offsets=b"\0" * 12),
        column("x", "string", b"ab", [PRESENT] * 2, np.array([0, 1], "<u4").tobytes()),
        column("x", "string", b"ab", [PRESENT] * 2, np.array([0, 3, 2], "<u4").tobytes()),
        column("x", "string", b"ab", [PRESENT] * 2, np.array([0, 1, 1], "<u4").tobytes()),
        pb.FeatureColumn(name="x", values=b"\0" * 16, statuses=bytes([1, 1])),
    ],
    ids=["values", "times", "stray-offsets", "few-offsets", "backwards", "short-end", "no-type"],
)
def test_blocks_of_a_wrong_size_are_refused(broken: pb.FeatureColumn) -> None:
    raw = pb.GetOnlineFeaturesResponse(columns=[broken], row_count=2).SerializeToString()
    with pytest.raises(InternalError, match="malformed"):
        FeatureBatch(raw).numpy("x")


@pytest.mark.parametrize(
    "value", [struct.pack("<I", 2), struct.pack("<II", 1, 9) + b"a", struct.pack("<III", 2, 3, 1) + b"abc", b"\1"]
)
def test_lists_with_wrong_positions_are_refused(value: bytes) -> None:
    answer = batch(column("x", "list<string>", value, [PRESENT], packed([value])[1]))
    with pytest.raises(InternalError, match="malformed"):
        answer.to_arrow()
