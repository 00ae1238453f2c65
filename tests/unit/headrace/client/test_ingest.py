"""Tables on their way into a write stream."""

import io
from datetime import UTC, datetime

import pandas as pd
import pyarrow as pa
import pytest

from headrace.client import Durability
from headrace.client.ingest import BATCH_ROWS_MAX, BatchedWrite, WritableTable, writable
from headrace.errors import InternalError, InvalidArgument
from protos.feature.v1 import online_feature_service_pb2 as pb

ZONED = pa.timestamp("us", tz="UTC")


def table(row_count: int) -> pa.Table:
    times = pa.array([datetime(2026, 1, 1, tzinfo=UTC)] * row_count, ZONED)
    return pa.table({"user_id": pa.array(range(row_count), pa.int64()), "event_time": times})


def write(rows: WritableTable) -> BatchedWrite:
    return BatchedWrite("shop.users.stats@v1", rows, Durability.LOG.message, None)


def sent(batch: bytes) -> pb.WriteFeaturesRequest:
    return pb.IngestFeaturesRequest.FromString(batch).write


def acknowledgement(shard: int, offset: int, rows: int) -> bytes:
    answer = pb.WriteFeaturesResponse(tokens=[pb.WriteToken(shard=shard, epoch=1, offset=offset)], row_count=rows)
    return pb.IngestFeaturesResponse(write=answer).SerializeToString()


def test_batches_hold_all_rows_in_order_within_the_bounds() -> None:
    batches = [sent(raw) for raw in write(table(25_000)).requests()]
    tables = [pa.ipc.open_stream(io.BytesIO(batch.arrow_ipc)).read_all() for batch in batches]
    assert [part.num_rows for part in tables] == [BATCH_ROWS_MAX, BATCH_ROWS_MAX, 5_000]
    assert pa.concat_tables(tables).column("user_id").to_pylist() == list(range(25_000))
    assert {batch.durability for batch in batches} == {pb.DURABILITY_LOG}
    assert len({batch.request_id for batch in batches}) == 3


def test_wide_rows_make_smaller_batches() -> None:
    wide = table(100).append_column("note", pa.array(["x" * 100_000] * 100))
    sizes = [len(raw) for raw in write(wide).requests()]
    assert len(sizes) == 10
    assert max(sizes) < 4 << 20


def test_stream_goes_on_after_the_last_acknowledged_batch_with_the_same_ids() -> None:
    pending = write(table(25_000))
    first = [sent(raw).request_id for raw in pending.requests()]
    pending.acknowledge(acknowledgement(0, 5, 10_000))
    with pytest.raises(InternalError, match="before its last batch"):
        pending.result()
    assert [sent(raw).request_id for raw in pending.requests()] == first[1:]


def test_result_keeps_the_highest_position_per_shard() -> None:
    pending = write(table(25_000))
    for shard, offset in [(0, 5), (0, 9), (1, 2)]:
        pending.acknowledge(acknowledgement(shard, offset, 10))
    result = pending.result()
    assert {(token.shard, token.offset) for token in result.tokens} == {(0, 9), (1, 2)}
    assert result.row_count == 30


def test_empty_table_is_one_empty_batch_that_the_server_still_checks() -> None:
    assert len(list(write(table(0)).requests())) == 1


def test_progress_is_told_per_batch() -> None:
    told: list[int] = []
    pending = BatchedWrite("v@v1", table(25_000), Durability.LOG.message, told.append)
    pending.acknowledge(acknowledgement(0, 1, 10_000))
    pending.acknowledge(acknowledgement(0, 2, 10_000))
    assert told == [10_000, 20_000]


def test_naive_times_are_refused_from_arrow_and_pandas() -> None:
    naive = pa.table({"event_time": pa.array([datetime(2026, 1, 1)], pa.timestamp("us"))})
    frame = pd.DataFrame({"event_time": pd.to_datetime(["2026-01-01"])})
    for rows in (naive, frame):
        with pytest.raises(InvalidArgument, match="without a zone") as caught:
            writable(rows)
        assert (caught.value.reason, caught.value.field) == ("NAIVE_TIME", "table[event_time]")


def test_other_zones_become_utc_and_keep_their_instant() -> None:
    frame = pd.DataFrame({"event_time": pd.to_datetime(["2026-07-01T12:00"]).tz_localize("America/New_York")})
    assert writable(frame)["event_time"].to_pylist() == [datetime(2026, 7, 1, 16, tzinfo=UTC)]


def test_sub_microsecond_times_are_refused_not_cut() -> None:
    fine = pa.table({"event_time": pa.array([1_700_000_000_000_000_001], pa.timestamp("ns", tz="UTC"))})
    with pytest.raises(InvalidArgument, match="whole microseconds"):
        writable(fine)


def test_alternative_arrow_layouts_become_plain_ones() -> None:
    rows = pa.table(
        {
            "a": pa.array(["x"], pa.large_string()),
            "b": pa.array(["x"]).dictionary_encode(),
            "c": pa.array([[b"x"]], pa.large_list(pa.large_binary())),
            "d": pa.array([1.5], pa.float32()),
        }
    )
    assert [str(kind) for kind in writable(rows).schema.types] == ["string", "string", "list<item: binary>", "float"]
