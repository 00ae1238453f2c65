"""The wire walk finds exactly what protobuf wrote."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.wire import delimited, fields, varint_bytes
from headrace.errors import InternalError
from protos.feature.v1 import online_feature_service_pb2 as pb


@given(st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=5)), max_size=4), st.integers(0, 2**63 - 1))
def test_fields_are_those_that_protobuf_wrote(blocks: list[tuple[bytes, bytes]], revision: int) -> None:
    columns = [pb.FeatureColumn(values=values, statuses=statuses) for values, statuses in blocks]
    raw = pb.GetOnlineFeaturesResponse(columns=columns, registry_revision=revision).SerializeToString()
    found = list(fields(raw, 0, len(raw)))
    assert [raw[start:end] for number, start, end in found if number == 1] == [c.SerializeToString() for c in columns]
    assert [start for number, start, end in found if number == 3 and end == -1] == ([revision] if revision else [])


@given(st.binary(max_size=64))
def test_any_bytes_end_in_fields_or_a_refusal(raw: bytes) -> None:
    try:
        spans = list(fields(raw, 0, len(raw)))
    except InternalError:
        return
    assert all(end <= len(raw) for _, _, end in spans)


@pytest.mark.parametrize("raw", [b"\x0a", b"\x0a\x05abcd", b"\x09abc", b"\x0d\x00", b"\x08" + b"\xff" * 11, b"\x0b"])
def test_truncated_or_unknown_fields_are_refused(raw: bytes) -> None:
    with pytest.raises(InternalError, match="malformed"):
        list(fields(raw, 0, len(raw)))


@given(st.integers(0, 2**63 - 1))
def test_varints_are_those_of_protobuf(value: int) -> None:
    written = pb.GetOnlineFeaturesResponse(row_count=value).SerializeToString()
    assert (b"\x10" + varint_bytes(value) if value else b"") == written


def test_delimited_field_is_that_of_protobuf() -> None:
    assert delimited(2, b"x" * 200) == pb.FeatureColumn(values=b"x" * 200).SerializeToString()
