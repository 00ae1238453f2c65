"""The request core answers what its twin answers, byte for byte, whatever the plan, the rows and their place."""

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from core_ext.request_core import Misses, Overlay, RequestCore
from core_ext.row_codec import check_row
from core_ext.row_table import RowTable
from core_ext.twin import request_core as twin
from protos.feature.v1.online_feature_service_pb2 import GetOnlineFeaturesResponse
from tests.unit.core_ext.request_plans import READ_TIME_US, SHARD_COUNT, Case, cases
from tests.unit.core_ext.request_samples import request_bytes, scrambled_request

FEW_ROWS = st.sampled_from([1, 2, 3, 63, 64, 65, 130])
RELAXED = settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


def answer(case: Case, request: bytes, table: RowTable, overlay: Overlay) -> bytes:
    response = RequestCore(table, SHARD_COUNT).serve(request, READ_TIME_US, case.core_plan(), overlay)
    assert isinstance(response, bytes)
    return response


@RELAXED
@given(cases(FEW_ROWS), st.sampled_from([0.0, 0.5, 1.0]))
def test_answers_equal_the_twins(case: Case, share: float) -> None:
    request = request_bytes(case.sample)
    response = answer(case, request, *case.loaded(share))
    assert response == twin.serve(request, case.plan, case.rows, READ_TIME_US)


@settings(RELAXED, max_examples=60)
@given(cases(FEW_ROWS))
def test_answers_are_what_protobuf_would_write(case: Case) -> None:
    response = answer(case, request_bytes(case.sample), *case.loaded(0.5))
    assert GetOnlineFeaturesResponse.FromString(response).SerializeToString() == response


@settings(RELAXED, max_examples=60)
@given(cases(FEW_ROWS), st.integers(0, 2**32))
def test_any_encoding_of_a_request_gets_the_same_answer(case: Case, order: int) -> None:
    table, overlay = case.loaded(0.5)
    straight = answer(case, request_bytes(case.sample), table, overlay)
    assert answer(case, scrambled_request(random.Random(order), case.sample), table, overlay) == straight


@settings(RELAXED, max_examples=4)
@given(cases(st.sampled_from([300, 10_000])))
def test_long_batches_equal_the_twins(case: Case) -> None:
    request = request_bytes(case.sample)
    response = answer(case, request, *case.loaded(0.8))
    assert response == twin.serve(request, case.plan, case.rows, READ_TIME_US)


@settings(RELAXED, max_examples=60)
@given(cases(FEW_ROWS), st.sampled_from([0.0, 0.5]))
def test_misses_name_each_row_beside_the_table_once(case: Case, share: float) -> None:
    table, _ = case.loaded(share)
    missing = [key for key in case.rows if table.lookup([key])[0] == 0 or isinstance(case.rows[key], int)]
    found = RequestCore(table, SHARD_COUNT).serve(request_bytes(case.sample), READ_TIME_US, case.core_plan())
    if missing:
        assert isinstance(found, Misses)
        assert sorted(found.storage_keys) == sorted(missing)
        assert all(0 <= shard < SHARD_COUNT for shard in found.shards) and len(found.shards) == len(missing)
    else:
        assert isinstance(found, bytes)


@settings(RELAXED, max_examples=30)
@given(cases(FEW_ROWS))
def test_samples_pass_the_codec(case: Case) -> None:
    for row in case.rows.values():
        if isinstance(row, bytes):
            check_row(row)
