"""The services by gRPC: conversions, forms of a write, refusals at the edge."""

import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import grpc
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from core_ext.keys import encode_key, storage_key
from core_ext.row_codec import decode_row
from feature_server.rpc.feature_servicer import STREAM_COUNT_MAX, FeatureServicer
from headrace.errors import HeadraceError, InvalidArgument, ResourceExhausted
from headrace.serving.principal import LOCAL
from headrace.status import from_rpc_error
from protos.common.v1.value_pb2 import Value, ValueList
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as pb_grpc
from protos.feature.v1 import shard_service_pb2 as shard_pb
from protos.feature.v1 import shard_service_pb2_grpc as shard_pb_grpc
from tests.unit.feature_server.parts import ENTITY, NOW_US, SERVICE, VIEW, Parts, ipc, shop_batch

TIMEOUT_S = 10.0


@pytest.fixture
def channel(parts: Parts) -> Iterator[grpc.Channel]:
    with parts.serve() as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.Channel) -> pb_grpc.OnlineFeatureServiceStub:
    return pb_grpc.OnlineFeatureServiceStub(channel)


@pytest.fixture
def peer(channel: grpc.Channel) -> shard_pb_grpc.ShardServiceStub:
    return shard_pb_grpc.ShardServiceStub(channel)


def refused(call: Callable[[], object]) -> HeadraceError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def time_of(microseconds: int) -> Timestamp:
    seconds, rest = divmod(microseconds, 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1_000)


def row(key: Value | None = None, event_time: Timestamp | None = None, **values: Value) -> pb.FeatureRow:
    return pb.FeatureRow(
        entity_keys=[key or Value(int_value=1)], event_time=event_time or time_of(NOW_US), values=values
    )


def write(stub: pb_grpc.OnlineFeatureServiceStub, *rows: pb.FeatureRow) -> pb.WriteFeaturesResponse:
    return stub.WriteFeatures(pb.WriteFeaturesRequest(feature_view=VIEW, rows=rows), timeout=TIMEOUT_S)


def read(stub: pb_grpc.OnlineFeatureServiceStub, *keys: int) -> pb.GetOnlineFeaturesResponse:
    columns = [pb.EntityColumn(join_key="user_id", int64_values=keys)]
    request = pb.GetOnlineFeaturesRequest(feature_service=SERVICE, entity_columns=columns)
    return stub.GetOnlineFeatures(request, timeout=TIMEOUT_S)


def test_row_by_hand_is_stored_with_its_types(parts: Parts, stub: pb_grpc.OnlineFeatureServiceStub) -> None:
    answer = write(
        stub,
        row(
            age=Value(int_value=-3),
            name=Value(string_value="ü"),
            score=Value(float_value=0.1),
            codes=Value(list_value=ValueList(values=[Value(int_value=4), Value(int_value=5)])),
        ),
    )
    assert (answer.row_count, len(answer.tokens)) == (1, 1)
    view = parts.catalogue.view(VIEW)
    place = storage_key(view.entity.entity_id, encode_key([3], [1]), view.view_id)
    stored = parts.shards[parts.shard_of(1)].read([place])[0]
    assert stored is not None
    assert decode_row(view.schema, stored)[1] == [-3, "ü", pytest.approx(0.1), [4, 5], None]


BAD_ROWS = {
    "no event time": (pb.FeatureRow(entity_keys=[Value(int_value=1)]), "EVENT_TIME_REQUIRED", "rows[0].event_time"),
    "no key": (pb.FeatureRow(event_time=time_of(NOW_US)), "WRONG_KEY_COUNT", "rows[0].entity_keys"),
    "null key": (row(Value()), "NULL_ENTITY_KEY", "user_id[0]"),
    "key of another type": (row(Value(string_value="1")), "WRONG_TYPE", "rows[0].entity_keys[0]"),
    "unknown feature": (row(aeg=Value(int_value=1)), "UNKNOWN_COLUMN", "rows[0].values[aeg]"),
    "value of another type": (row(age=Value(float_value=1.0)), "WRONG_TYPE", "rows[0].values[age]"),
    "value out of range": (row(age=Value(int_value=2**31)), "OUT_OF_RANGE", "rows[0].values[age]"),
    "nanoseconds": (row(event_time=Timestamp(seconds=1, nanos=1)), "TOO_PRECISE", "rows[0].event_time"),
    "future": (row(event_time=time_of(NOW_US + 301_000_000)), "EVENT_TIME_IN_FUTURE", "event_time[0]"),
}


@pytest.mark.parametrize("name", BAD_ROWS)
def test_bad_row_by_hand_is_refused_with_its_field(stub: pb_grpc.OnlineFeatureServiceStub, name: str) -> None:
    bad, reason, field = BAD_ROWS[name]
    error = refused(lambda: write(stub, bad))
    assert (type(error), error.reason, error.field) == (InvalidArgument, reason, field)


def test_write_takes_one_form_and_a_known_durability(stub: pb_grpc.OnlineFeatureServiceStub) -> None:
    both = pb.WriteFeaturesRequest(feature_view=VIEW, rows=[row()], arrow_ipc=ipc(shop_batch([1])))
    assert refused(lambda: stub.WriteFeatures(both, timeout=TIMEOUT_S)).reason == "TWO_FORMS"
    neither = pb.WriteFeaturesRequest(feature_view=VIEW)
    assert refused(lambda: stub.WriteFeatures(neither, timeout=TIMEOUT_S)).reason == "NO_ROWS"
    odd = pb.WriteFeaturesRequest(feature_view=VIEW, rows=[row()], durability=9)  # type: ignore[arg-type]  # unknown
    assert refused(lambda: stub.WriteFeatures(odd, timeout=TIMEOUT_S)).reason == "UNKNOWN_DURABILITY"


def test_stream_of_batches_is_answered_one_by_one(stub: pb_grpc.OnlineFeatureServiceStub) -> None:
    batches = [shop_batch(range(start, start + 10)) for start in range(0, 30, 10)]
    requests = [
        pb.IngestFeaturesRequest(write=pb.WriteFeaturesRequest(feature_view=VIEW, arrow_ipc=ipc(batch)))
        for batch in batches
    ]
    answers = list(stub.IngestFeatures(iter(requests), timeout=TIMEOUT_S))
    assert [answer.write.row_count for answer in answers] == [10, 10, 10]
    assert read(stub, 0, 29, 30).columns[0].statuses == bytes([1, 1, 3])


def test_write_streams_are_bounded(stub: pb_grpc.OnlineFeatureServiceStub) -> None:
    servicer = FeatureServicer(None, None, None, lambda: LOCAL)  # type: ignore[arg-type]  # none is reached
    open_streams = [servicer._stream() for _ in range(STREAM_COUNT_MAX)]
    for stream in open_streams:
        stream.__enter__()
    with pytest.raises(ResourceExhausted) as caught:
        next(servicer.IngestFeatures(iter([pb.IngestFeaturesRequest()]), None))  # type: ignore[arg-type]  # not asked
    assert caught.value.reason == "TOO_MANY_STREAMS"
    open_streams[0].__exit__(None, None, None)
    assert list(servicer.IngestFeatures(iter([]), None)) == []  # type: ignore[arg-type]  # not asked


@pytest.mark.parametrize("kind", ["parquet", "arrow"])
@pytest.mark.parametrize("scheme", ["", "file://"])
def test_file_below_an_import_root_is_written_with_progress(
    parts: Parts, stub: pb_grpc.OnlineFeatureServiceStub, kind: str, scheme: str
) -> None:
    path = parts.folder / "sub" / f"rows.{kind}"
    path.parent.mkdir()
    save(path, kind, shop_batch(range(20_000)))
    progress = list(stub.ImportFeatures(pb.ImportFeaturesRequest(feature_view=VIEW, uri=f"{scheme}{path}"), timeout=60))
    assert [message.done for message in progress] == [False] * (len(progress) - 1) + [True]
    assert (progress[-1].row_count, progress[-1].total_count, len(progress[-1].tokens)) == (20_000, 20_000, 2)
    assert read(stub, 0, 19_999, 20_000).columns[0].statuses == bytes([1, 1, 3])


def test_import_that_is_repeated_by_its_id_writes_nothing_again(
    parts: Parts, stub: pb_grpc.OnlineFeatureServiceStub
) -> None:
    path = parts.folder / "rows.parquet"
    save(path, "parquet", shop_batch(range(20_000)))

    def imported(request_id: str) -> list[pb.ImportFeaturesResponse]:
        request = pb.ImportFeaturesRequest(feature_view=VIEW, uri=str(path), request_id=request_id)
        return list(stub.ImportFeatures(request, timeout=60))

    first = imported(str(uuid.UUID(int=1)))
    written = [shard.status().offset for shard in parts.shards.shards]
    assert imported(str(uuid.UUID(int=1))) == first
    assert [shard.status().offset for shard in parts.shards.shards] == written
    imported(str(uuid.UUID(int=2)))
    assert sum(shard.status().offset for shard in parts.shards.shards) == sum(written) + 20_000
    save(path, "parquet", shop_batch(range(20_000), age=31))
    assert refused(lambda: imported(str(uuid.UUID(int=1)))).reason == "REQUEST_ID_REUSED"
    assert refused(lambda: imported("no uuid")).reason == "BAD_REQUEST_ID"


def save(path: Path, kind: str, batch: pa.RecordBatch) -> None:
    if kind == "parquet":
        pq.write_table(pa.Table.from_batches([batch]), path)
        return
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def test_file_elsewhere_or_behind_a_link_is_refused(
    parts: Parts, stub: pb_grpc.OnlineFeatureServiceStub, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.parquet"
    save(outside, "parquet", shop_batch([1]))
    os.symlink(outside, parts.folder / "link.parquet")
    os.symlink(tmp_path, parts.folder / "folder")
    os.mkfifo(parts.folder / "pipe")
    (parts.folder / "text").write_text("no rows here")
    (parts.folder / "cut.parquet").write_bytes(outside.read_bytes()[:-20])
    wrong = {
        str(outside): "OUTSIDE_IMPORT_ROOTS",
        f"{parts.folder}/../outside.parquet": "BAD_URI",
        f"{parts.folder}/link.parquet": "FILE_REFUSED",
        f"{parts.folder}/folder/outside.parquet": "FILE_REFUSED",
        f"{parts.folder}/pipe": "FILE_REFUSED",
        str(parts.folder): "FILE_REFUSED",
        f"{parts.folder}/none.parquet": "FILE_NOT_FOUND",
        f"{parts.folder}/text": "UNKNOWN_FILE_FORMAT",
        f"{parts.folder}/cut.parquet": "MALFORMED_FILE",
        "rows.parquet": "BAD_URI",
        "": "BAD_URI",
        "s3://bucket/rows.parquet": "BAD_URI",
    }
    for uri, reason in wrong.items():
        request = pb.ImportFeaturesRequest(feature_view=VIEW, uri=uri)
        assert refused(lambda: list(stub.ImportFeatures(request, timeout=TIMEOUT_S))).reason == reason, uri  # noqa: B023


BAD_ERASURES = {
    "no column": ([], "MISSING_JOIN_KEY"),
    "unknown join key": ([pb.EntityColumn(join_key="usr_id", int64_values=[1])], "UNKNOWN_JOIN_KEY"),
    "join key twice": ([pb.EntityColumn(join_key="user_id", int64_values=[1])] * 2, "UNKNOWN_JOIN_KEY"),
    "wrong type": ([pb.EntityColumn(join_key="user_id", string_values=["1"])], "WRONG_KEY_TYPE"),
    "null row": ([pb.EntityColumn(join_key="user_id", int64_values=[1], null_rows=[0])], "NULL_ENTITY_KEY"),
    "no rows": ([pb.EntityColumn(join_key="user_id")], "NO_ROWS"),
    "too many": ([pb.EntityColumn(join_key="user_id", int64_values=range(10_001))], "TOO_MANY_ROWS"),
}


@pytest.mark.parametrize("name", BAD_ERASURES)
def test_bad_erasure_is_refused(stub: pb_grpc.OnlineFeatureServiceStub, name: str) -> None:
    columns, reason = BAD_ERASURES[name]
    request = pb.DeleteEntityRequest(entity=ENTITY, entity_columns=columns)
    assert refused(lambda: stub.DeleteEntity(request, timeout=TIMEOUT_S)).reason == reason


def test_prepared_selection_tells_columns_and_keys(stub: pb_grpc.OnlineFeatureServiceStub) -> None:
    answer = stub.PrepareFeatureSet(pb.PrepareFeatureSetRequest(feature_service=SERVICE), timeout=TIMEOUT_S)
    assert answer.feature_service == f"{SERVICE}@v1"
    assert [column.name for column in answer.columns] == ["age", "name", "score", "codes", "pair"]
    assert answer.columns[4].value_type.list_size == 2
    assert [(key.name, key.scalar_type) for key in answer.join_keys] == [("user_id", 3)]
    assert len(answer.handle) == 32


def test_peer_reads_stored_rows_in_the_order_of_the_keys(
    parts: Parts, stub: pb_grpc.OnlineFeatureServiceStub, peer: shard_pb_grpc.ShardServiceStub
) -> None:
    write(stub, row(age=Value(int_value=7)))
    view = parts.catalogue.view(VIEW)
    keys = [storage_key(view.entity.entity_id, encode_key([3], [key]), view.view_id) for key in (2, 1)]
    answer = peer.BatchGetRows(shard_pb.BatchGetRowsRequest(keys=keys), timeout=TIMEOUT_S)
    assert answer.rows[0] == b""
    assert decode_row(view.schema, answer.rows[1])[1][0] == 7
    wrong_ring = shard_pb.BatchGetRowsRequest(keys=keys, ring_epoch=3)
    assert refused(lambda: peer.BatchGetRows(wrong_ring, timeout=TIMEOUT_S)).reason == "RING_EPOCH"
    bad_key = shard_pb.BatchGetRowsRequest(keys=[b"x"])
    assert refused(lambda: peer.BatchGetRows(bad_key, timeout=TIMEOUT_S)).reason == "BAD_STORAGE_KEY"


def test_shards_are_listed_page_by_page(parts: Parts, peer: shard_pb_grpc.ShardServiceStub) -> None:
    first = peer.ListShards(shard_pb.ListShardsRequest(page_size=1), timeout=TIMEOUT_S)
    assert [shard.shard for shard in first.shards] == [0]
    rest = peer.ListShards(shard_pb.ListShardsRequest(page_token=first.next_page_token), timeout=TIMEOUT_S)
    assert ([shard.shard for shard in rest.shards], rest.next_page_token) == ([1], "")
    for bad, reason in (({"page_size": -1}, "BAD_PAGE_SIZE"), ({"page_token": "x"}, "BAD_PAGE_TOKEN")):
        request = shard_pb.ListShardsRequest(**bad)
        assert refused(lambda: peer.ListShards(request, timeout=TIMEOUT_S)).reason == reason  # noqa: B023
