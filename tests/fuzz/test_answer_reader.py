"""Damaged answers: each is read as its twin reads it, or refused by both."""

import numpy as np
import pytest

from core_ext.answers import Answer, MalformedAnswerError
from core_ext.twin.answers import read_answer
from protos.common.v1 import value_pb2
from protos.feature.v1.online_feature_service_pb2 import FeatureColumn, GetOnlineFeaturesResponse
from tests.fuzz.mutations import mutations

READ_SHARE_MIN = 0.05  # of inputs that must be read to their end, else the fuzz stops at the door
NUMBERS = FeatureColumn(values=np.arange(3.0).tobytes(), statuses=b"\1\1\2", event_times=bytes(24))
TEXTS = FeatureColumn(
    name="city",
    values=b"abc",
    offsets=np.array([0, 1, 1, 3], "<u4").tobytes(),
    statuses=b"\1\1\3",
    value_type=value_pb2.ValueType(scalar_type=value_pb2.SCALAR_TYPE_STRING),
)
CORPUS = [
    GetOnlineFeaturesResponse(columns=columns, row_count=3, registry_revision=5, read_time_us=7).SerializeToString()
    for columns in ([NUMBERS], [TEXTS], [NUMBERS, TEXTS, NUMBERS], [])
]


@pytest.mark.parametrize("count", [100_000, pytest.param(1_000_000, marks=pytest.mark.slow)])
def test_damaged_answers_are_read_as_the_twin_reads_them(seed: int, count: int) -> None:
    read_count = 0
    for _, message in mutations(CORPUS, seed, count):
        try:
            expected = read_answer(message)
        except ValueError:
            with pytest.raises(MalformedAnswerError):
                Answer(message)
            continue
        read_count += 1
        answer = Answer(message)
        assert (answer.row_count, len(answer)) == (expected.row_count, len(expected.columns))
        for position, column in enumerate(expected.columns):
            for slot_bytes in (0, 8):
                assert accepts(answer, position, slot_bytes) == column.fits(expected.row_count, slot_bytes)
    assert read_count > READ_SHARE_MIN * count


def accepts(answer: Answer, position: int, slot_bytes: int) -> bool:
    try:
        answer.check(position, slot_bytes)
    except MalformedAnswerError:
        return False
    return True
