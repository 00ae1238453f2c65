"""Answers as clients read them, against their twin and protobuf's own parser."""

import hypothesis.strategies as st
import numpy as np
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given

from core_ext.answers import BLOCK_ALIGNMENT, EVENT_TIMES, OFFSETS, STATUSES, VALUES, Answer, MalformedAnswerError
from core_ext.twin import rules
from core_ext.twin.answers import floats, read_answer
from protos.common.v1 import value_pb2
from protos.feature.v1.online_feature_service_pb2 import FeatureColumn, GetOnlineFeaturesResponse

BLOCKS = (VALUES, OFFSETS, STATUSES, EVENT_TIMES)
I64 = st.integers(-(2**63), 2**63 - 1)
COLUMNS = st.builds(
    FeatureColumn,
    name=st.text(max_size=5),
    values=st.binary(max_size=70),
    offsets=st.binary(max_size=12),
    statuses=st.binary(max_size=5),
    event_times=st.binary(max_size=16),
    value_type=st.none() | st.builds(value_pb2.ValueType, scalar_type=st.integers(0, 9), list_size=st.integers(0, 9)),
)
ANSWERS = st.builds(
    GetOnlineFeaturesResponse,
    columns=st.lists(COLUMNS, max_size=4),
    row_count=I64,
    registry_revision=I64,
    read_time_us=I64,
)


def blocks_of(answer: Answer, position: int) -> list[bytes]:
    places = [answer.place(position, block) for block in BLOCKS]
    return [bytes(answer.blocks[start : start + count]) for start, count in places]


def assert_read_alike(message: bytes) -> None:
    """Core, twin and protobuf read the same from it, or all refuse it."""
    try:
        expected = GetOnlineFeaturesResponse.FromString(message)
    except DecodeError:
        with pytest.raises(MalformedAnswerError):
            Answer(message)
        with pytest.raises(ValueError, match=r".*"):
            read_answer(message)
        return
    core, twin = Answer(message), read_answer(message)
    head = (expected.row_count, expected.registry_revision, expected.read_time_us)
    assert (core.row_count, core.registry_revision, core.read_time_us) == head
    assert (twin.row_count, twin.registry_revision, twin.read_time_us) == head
    assert len(core) == len(twin.columns) == len(expected.columns)
    for position, (column, other) in enumerate(zip(expected.columns, twin.columns, strict=True)):
        kind = column.value_type
        wanted = (kind.scalar_type, kind.list_shape, kind.list_size)
        assert core.value_type(position) == tuple(other.value_type) == wanted
        assert core.name(position) == other.name == column.name
        found = [column.values, column.offsets, column.statuses, column.event_times]
        assert blocks_of(core, position) == other.blocks == found


@given(ANSWERS)
def test_an_answer_reads_as_its_twin_and_protobuf_read_it(message: GetOnlineFeaturesResponse) -> None:
    assert_read_alike(message.SerializeToString())


@given(ANSWERS, ANSWERS)
def test_answers_one_after_another_are_merged(
    first: GetOnlineFeaturesResponse, more: GetOnlineFeaturesResponse
) -> None:
    assert_read_alike(first.SerializeToString() + more.SerializeToString())


@given(ANSWERS, st.data())
def test_damaged_answers_are_refused_by_all_or_by_none(message: GetOnlineFeaturesResponse, data: st.DataObject) -> None:
    raw = bytearray(message.SerializeToString())
    if raw:
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
    assert_read_alike(bytes(raw[: data.draw(st.integers(0, len(raw)))]))


@pytest.mark.parametrize(
    "message",
    [
        b"\x0a\x04\x32\x02\x08\x05\x0a\x08\x32\x02\x08\x05\x32\x02\x18\x07",  # parts of a type are merged
        b"\x0a\x03\x0a\x01\xff",  # a name that is no text
        b"\x08\x01",  # a column that is a number is a field of another release
        b"\x0a\x02\x0b\x0c",  # a group inside a column
        b"\x0a\x02\x0b\x14",  # a group that ends another
        b"\x52\x01a\xa3\x06\xa4\x06",  # unknown fields and groups
        b"\x10\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01",  # a varint of eleven bytes
    ],
)
def test_rare_forms_are_read_as_protobuf_reads_them(message: bytes) -> None:
    assert_read_alike(message)


@given(ANSWERS)
def test_every_block_is_aligned_and_read_only(message: GetOnlineFeaturesResponse) -> None:
    answer = Answer(message.SerializeToString())
    whole = np.frombuffer(answer.blocks, np.uint8)
    assert not whole.size or whole.ctypes.data % BLOCK_ALIGNMENT == 0
    assert answer.blocks.readonly
    starts = [answer.place(position, block)[0] for position in range(len(answer)) for block in BLOCKS]
    assert [start % BLOCK_ALIGNMENT for start in starts] == [0] * len(starts)


@given(ANSWERS, st.integers(0, 16))
def test_sizes_are_judged_as_the_twin_judges_them(message: GetOnlineFeaturesResponse, slot_bytes: int) -> None:
    for column in message.columns:
        message.row_count = len(column.statuses)
        core, twin = Answer(message.SerializeToString()), read_answer(message.SerializeToString())
        for position, other in enumerate(twin.columns):
            assert is_accepted(core, position, slot_bytes) == other.fits(message.row_count, slot_bytes)


@given(st.lists(st.integers(0, 6), max_size=4), st.integers(0, 7))
def test_offsets_are_judged_as_the_twin_judges_them(ends: list[int], byte_count: int) -> None:
    offsets = np.array([0, *ends], "<u4").tobytes()
    column = FeatureColumn(values=bytes(byte_count), offsets=offsets, statuses=bytes(len(ends)))
    message = GetOnlineFeaturesResponse(columns=[column], row_count=len(ends)).SerializeToString()
    expected = [0, *ends] == sorted([0, *ends]) and max(ends, default=0) == byte_count
    assert is_accepted(Answer(message), 0, 0) == read_answer(message).columns[0].fits(len(ends), 0) == expected


@given(st.data(), st.sampled_from([4, 8]), st.integers(0, 21), st.integers(0, 4))
def test_floats_are_those_of_the_twin(data: st.DataObject, slot_bytes: int, rows: int, columns: int) -> None:
    whole = st.just(bytes([rules.PRESENT] * rows))
    made = [
        FeatureColumn(
            values=data.draw(st.binary(min_size=rows * slot_bytes, max_size=rows * slot_bytes)),
            statuses=data.draw(whole | st.binary(min_size=rows, max_size=rows)),
        )
        for _ in range(columns)
    ]
    message = GetOnlineFeaturesResponse(columns=made, row_count=rows).SerializeToString()
    assert Answer(message).floats(slot_bytes) == floats(read_answer(message), slot_bytes)


@given(ANSWERS, st.sampled_from([4, 8]))
def test_floats_are_refused_where_a_column_does_not_fit(message: GetOnlineFeaturesResponse, slot_bytes: int) -> None:
    answer, twin = Answer(message.SerializeToString()), read_answer(message.SerializeToString())
    if all(column.fits(message.row_count, slot_bytes) for column in twin.columns):
        assert answer.floats(slot_bytes) == floats(twin, slot_bytes)
    else:
        with pytest.raises(MalformedAnswerError):
            answer.floats(slot_bytes)


@pytest.mark.parametrize("slot_bytes", [0, 1, 16])
def test_floats_of_another_width_are_refused(slot_bytes: int) -> None:
    with pytest.raises(ValueError, match="4 or 8 bytes"):
        Answer(b"").floats(slot_bytes)


def is_accepted(answer: Answer, position: int, slot_bytes: int) -> bool:
    try:
        answer.check(position, slot_bytes)
    except MalformedAnswerError:
        return False
    return True


def test_a_negative_row_count_fits_no_block() -> None:
    message = GetOnlineFeaturesResponse(columns=[FeatureColumn()], row_count=-1).SerializeToString()
    assert not is_accepted(Answer(message), 0, 4)


@pytest.mark.parametrize("position", [-1, 1])
def test_a_column_that_is_not_there_is_refused(position: int) -> None:
    answer = Answer(GetOnlineFeaturesResponse(columns=[FeatureColumn()]).SerializeToString())
    for call in (answer.name, answer.value_type, lambda at: answer.check(at, 4), lambda at: answer.place(at, 0)):
        with pytest.raises(IndexError, match="no column"):
            call(position)
    with pytest.raises(IndexError, match="no block 4"):
        answer.place(0, 4)
