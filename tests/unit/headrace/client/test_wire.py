"""Fields written by hand are those that protobuf writes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.client.wire import delimited, varint_bytes
from protos.feature.v1 import online_feature_service_pb2 as pb


@given(st.integers(1, 2**63 - 1))
def test_varints_are_those_of_protobuf(value: int) -> None:
    written = pb.GetOnlineFeaturesResponse(row_count=value).SerializeToString()
    assert b"\x10" + varint_bytes(value) == written


@pytest.mark.parametrize("size", [1, 127, 128, 20_000])
def test_delimited_field_is_that_of_protobuf(size: int) -> None:
    assert delimited(2, b"x" * size) == pb.FeatureColumn(values=b"x" * size).SerializeToString()
