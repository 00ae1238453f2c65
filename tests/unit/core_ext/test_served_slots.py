"""Values of answers as the log keeps them, against the plain twin: all kinds, all statuses, and bytes that are none."""

import struct
from itertools import accumulate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext.answers import MalformedAnswerError
from core_ext.served_slots import TEXTS, VARIABLE, read_slots
from core_ext.twin import served_slots as twin
from protos.feature.v1 import online_feature_service_pb2 as pb

KINDS = st.sampled_from([1, 4, 8, 24, VARIABLE, TEXTS])


def packed(parts: list[bytes]) -> tuple[bytes, bytes]:
    """Values and offsets of a column of different sizes."""
    return b"".join(parts), struct.pack(f"<{len(parts) + 1}I", 0, *accumulate(map(len, parts)))


def texts(items: list[bytes]) -> bytes:
    """A list of texts as an answer has it."""
    return struct.pack(f"<{len(items) + 1}I", len(items), *accumulate(map(len, items))) + b"".join(items)


@st.composite
def answers(draw: st.DrawFn) -> tuple[bytes, list[int]]:
    rows = draw(st.integers(0, 5))
    kinds = draw(st.lists(KINDS, min_size=1, max_size=4))
    answer = pb.GetOnlineFeaturesResponse(row_count=rows, registry_revision=7, read_time_us=draw(st.integers(0, 2**62)))
    for kind in kinds:
        statuses = bytes(draw(st.lists(st.integers(0, 255), min_size=rows, max_size=rows)))
        if kind > 0:
            values, offsets = draw(st.binary(min_size=kind * rows, max_size=kind * rows)), b""
        else:
            one = st.binary(max_size=5)
            if kind == TEXTS:
                one = st.just(b"") | st.lists(one, max_size=3).map(texts)
            values, offsets = packed(draw(st.lists(one, min_size=rows, max_size=rows)))
        answer.columns.add(values=values, offsets=offsets, statuses=statuses)
    return answer.SerializeToString(), kinds


@given(answers())
def test_values_are_those_of_the_twin(given_answer: tuple[bytes, list[int]]) -> None:
    message, kinds = given_answer
    assert read_slots(message, np.array(kinds, np.int32)) == twin.read_slots(message, kinds)


@given(answers(), st.data())
def test_damaged_answers_are_refused_as_the_twin_refuses_them(
    given_answer: tuple[bytes, list[int]], data: st.DataObject
) -> None:
    message, kinds = given_answer
    at = data.draw(st.integers(0, max(len(message) - 1, 0)))
    damaged = message[:at] + bytes([data.draw(st.integers(0, 255))]) + message[at + 1 :]
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    try:
        wanted = twin.read_slots(damaged, kinds)
    except ValueError:
        with pytest.raises(MalformedAnswerError):
            read_slots(damaged, np.array(kinds, np.int32))
    else:
        assert read_slots(damaged, np.array(kinds, np.int32)) == wanted


@pytest.mark.parametrize(
    "value",
    [b"abc", struct.pack("<I", 1), struct.pack("<II", 1, 9) + b"ab", struct.pack("<III", 2, 2, 1) + b"ab", b"\xff" * 4],
)
def test_lists_of_texts_that_are_none_are_refused(value: bytes) -> None:
    values, offsets = packed([value])
    answer = pb.GetOnlineFeaturesResponse(row_count=1)
    answer.columns.add(values=values, offsets=offsets, statuses=b"\x01")
    with pytest.raises(MalformedAnswerError, match="list of texts"):
        read_slots(answer.SerializeToString(), np.array([TEXTS], np.int32))


@pytest.mark.parametrize("kinds", [[], [4, 4]])
def test_other_columns_than_were_selected_are_refused(kinds: list[int]) -> None:
    answer = pb.GetOnlineFeaturesResponse(row_count=1)
    answer.columns.add(values=b"1234", statuses=b"\x01")
    with pytest.raises(MalformedAnswerError, match="were selected"):
        read_slots(answer.SerializeToString(), np.array(kinds, np.int32))
