"""Row log and replays by gRPC, and a shard whose store fails behind the log."""

from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pytest

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import check_row, decode_row
from core_ext.row_log import split_records
from feature_server.domain.replays import ORDER_COLUMNS
from feature_server.domain.shard import ShardState
from feature_server.domain.shard_writes import Durability
from headrace.errors import HeadraceError, Unavailable
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as online_pb
from protos.feature.v1 import shard_service_pb2 as pb
from protos.feature.v1 import shard_service_pb2_grpc as pb_grpc
from tests.unit.feature_server.parts import NOW_US, PRINCIPAL, VIEW, Parts, ipc, shop_batch

TIMEOUT_S = 10.0


@pytest.fixture
def logged(tmp_path: Path) -> Iterator[Parts]:
    opened = Parts(tmp_path / "store", row_log_bytes=16 << 20)
    yield opened
    opened.close()


@pytest.fixture
def peer(logged: Parts) -> Iterator[pb_grpc.ShardServiceStub]:
    with logged.serve() as channel:
        yield pb_grpc.ShardServiceStub(channel)


def refused(call: Callable[[], object]) -> HeadraceError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def write(parts: Parts, keys: list[int], event_us: int = NOW_US, age: int = 30) -> None:
    parts.writes.write(VIEW, lambda _: [shop_batch(keys, event_us, age)], Durability.LOG, ("", 0), PRINCIPAL)


def position(epoch: int, offset: int) -> pb.RowLogPosition:
    return pb.RowLogPosition(epoch=epoch, next_offset=offset)


def log_of(peer: pb_grpc.ShardServiceStub, shard: int = 0, **fields: object) -> list[pb.ReadRowLogResponse]:
    request = pb.ReadRowLogRequest(shard=shard, **fields)  # type: ignore[arg-type]
    return list(peer.ReadRowLog(request, timeout=TIMEOUT_S))


def row_count(chunks: list[pb.ReadRowLogResponse]) -> int:
    return sum(len(split_records(chunk.records).view_ids) for chunk in chunks)


def replayed(
    keys: list[int], offset: int, event_us: int = NOW_US, age: int = 40, *, erased: bool = False
) -> pa.RecordBatch:
    rows = pa.Table.from_batches([shop_batch(keys, event_us, age)])
    count = len(keys)
    values = (
        [NOW_US - 5] * count, [NOW_US - 5] * count, [0] * count, [0] * count,
        list(range(offset, offset + count)), [erased] * count,
    )  # fmt: skip
    for (name, kind), column in zip(ORDER_COLUMNS.items(), values, strict=True):
        rows = rows.append_column(
            name, pa.array(column, pa.int64()).cast(kind) if kind != pa.bool_() else pa.array(column)
        )
    return rows.combine_chunks().to_batches()[0]


def replay(peer: pb_grpc.ShardServiceStub, batch: pa.RecordBatch) -> pb.ReplayRowsResponse:
    request = pb.ReplayRowsRequest(feature_view=VIEW, arrow_ipc=ipc(batch), durability=online_pb.DURABILITY_FSYNC)
    return peer.ReplayRows(request, timeout=TIMEOUT_S)


def stored_age(parts: Parts, key: int) -> int | None:
    shard = parts.shards[parts.shard_of(key)]
    view = parts.catalogue.view(VIEW)
    row = shard.read([storage_key(view.entity.entity_id, encode_key([3], [key]), view.view_id)])[0]
    if row is None:
        return None
    values = decode_row(view.schema, row)[1]
    return values[0] if values else None


def test_log_is_read_and_acknowledged(logged: Parts, peer: pb_grpc.ShardServiceStub) -> None:
    keys = logged.keys_on(0, 30)
    for start in range(0, 30, 10):
        write(logged, keys[start : start + 10])
    chunks = log_of(peer, max_chunk_bytes=1)
    assert [(c.epoch, c.first_offset, c.next_offset) for c in chunks] == [(1, 0, 10), (1, 10, 20), (1, 20, 30)]
    assert row_count(chunks) == 30
    assert row_count(log_of(peer, start=position(1, 10))) == 20
    assert log_of(peer, shard=1) == []
    answer = peer.AcknowledgeRowLog(pb.AcknowledgeRowLogRequest(shard=0, position=position(1, 20)), timeout=TIMEOUT_S)
    assert (answer.state.acknowledged, answer.state.end) == (position(1, 20), position(1, 30))
    assert row_count(log_of(peer)) == 10
    shards = peer.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S)
    assert shards.store_id == "store"
    assert shards.shards[0].row_log == answer.state
    assert shards.shards[1].row_log.max_bytes == 16 << 20


def test_calls_that_ask_for_what_is_not_there_are_refused(logged: Parts, peer: pb_grpc.ShardServiceStub) -> None:
    assert refused(lambda: log_of(peer, shard=2)).reason == "UNKNOWN_SHARD"
    assert refused(lambda: log_of(peer, max_chunk_bytes=-1)).reason == "BAD_CHUNK_BYTES"
    for request, reason in (
        (pb.AcknowledgeRowLogRequest(shard=-1, position=position(1, 0)), "UNKNOWN_SHARD"),
        (pb.AcknowledgeRowLogRequest(shard=0), "NO_POSITION"),
        (pb.AcknowledgeRowLogRequest(shard=0, position=position(1, 1)), "NOT_COMMITTED"),
    ):
        assert refused(lambda sent=request: peer.AcknowledgeRowLog(sent, timeout=TIMEOUT_S)).reason == reason  # type: ignore[misc]


def test_server_without_a_log_says_so(parts: Parts) -> None:
    with parts.serve() as channel:
        stub = pb_grpc.ShardServiceStub(channel)
        assert refused(lambda: log_of(stub)).reason == "NO_ROW_LOG"
        assert not stub.ListShards(pb.ListShardsRequest(), timeout=TIMEOUT_S).shards[0].HasField("row_log")


def test_replayed_rows_win_only_by_their_order_and_are_not_logged(
    logged: Parts, peer: pb_grpc.ShardServiceStub
) -> None:
    old, new, erased = logged.keys_on(0, 3)
    write(logged, [new], NOW_US, age=30)
    answer = replay(peer, replayed([old, new], 100, NOW_US - 10, age=40))
    assert (answer.row_count, answer.stale_count, answer.tokens[0].offset) == (2, 1, 2)
    assert (stored_age(logged, old), stored_age(logged, new)) == (40, 30)
    assert replay(peer, replayed([old, new], 100, NOW_US - 10, age=40)).stale_count == 2
    assert replay(peer, replayed([new], 200, NOW_US + 10, age=50)).stale_count == 0
    assert stored_age(logged, new) == 50
    write(logged, [erased], NOW_US - 50)
    assert replay(peer, replayed([erased], 300, NOW_US - 20, erased=True)).stale_count == 0
    assert stored_age(logged, erased) is None
    chunks = log_of(peer)
    assert (row_count(chunks), chunks[-1].next_offset) == (2, 8)


def test_replay_without_its_order_is_refused(logged: Parts, peer: pb_grpc.ShardServiceStub) -> None:
    batch = replayed([1], 0)
    for name in ORDER_COLUMNS:
        error = refused(lambda name=name: replay(peer, batch.drop_columns([name])))  # type: ignore[misc]
        assert (error.reason, error.metadata["column"]) == ("BAD_ORDER_COLUMN", name)
    assert refused(lambda: replay(peer, batch.drop_columns(["age"]))).reason == "MISSING_COLUMN"


@pytest.mark.parametrize("durability", [Durability.MEMORY, Durability.LOG, Durability.FSYNC])
def test_rows_of_a_commit_that_failed_are_logged_once_when_it_is_repeated(
    logged: Parts, durability: Durability
) -> None:
    shard, faults = logged.shards[0], logged.faults[0]
    keys = logged.keys_on(0, 4)
    write(logged, keys[:1])
    faults.write_error = Unavailable("the disk is gone", reason="STORAGE_IO")
    rows = shop_batch(keys)

    def call() -> None:
        logged.writes.write(VIEW, lambda _: [rows], durability, ("", 0), PRINCIPAL)

    if durability is Durability.MEMORY:
        call()
        shard.commit_queued()
    else:
        with pytest.raises(Unavailable):
            call()
    assert shard.state is ShardState.READ_ONLY
    faults.write_error = None
    shard.resume()
    if durability is Durability.MEMORY:
        shard.commit_queued()
    else:
        call()
    assert shard.row_log is not None
    found = []
    for chunk in shard.row_log.read(shard.row_log.status().acknowledged, 1 << 20):
        places = split_records(chunk.records)
        ends = zip(places.row_starts.tolist(), places.row_ends.tolist(), strict=True)
        found += [check_row(chunk.records[start:end]).offset for start, end in ends]
    assert len(found) == 5 and len(set(found)) == 5
