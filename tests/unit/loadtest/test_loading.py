"""Batches go out with a few in flight, and only acknowledged rows count."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pyarrow as pa
import pytest

from loadtest.dataset import ITEM_VIEWS, USER_VIEWS
from loadtest.loading import Writer, load, write_requests
from protos.feature.v1 import online_feature_service_pb2 as pb

METHOD = "/headrace.feature.v1.OnlineFeatureService/WriteFeatures"


class Store:
    """Counts rows by view; refuses a view."""

    def __init__(self) -> None:
        self.rows: dict[str, int] = {}
        self.refused = ""

    def __call__(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        request = pb.WriteFeaturesRequest.FromString(message)
        if request.feature_view == self.refused:
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "the disk is full")
        assert request.durability == pb.DURABILITY_LOG
        count = pa.ipc.open_stream(request.arrow_ipc).read_all().num_rows
        self.rows[request.feature_view] = self.rows.get(request.feature_view, 0) + count
        return pb.WriteFeaturesResponse(row_count=count).SerializeToString()


@pytest.fixture
def store() -> Iterator[tuple[Store, Writer]]:
    handler = Store()
    server = grpc.server(ThreadPoolExecutor(1))
    service, name = METHOD.strip("/").split("/")
    call: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(handler)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {name: call}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    writer = Writer(f"127.0.0.1:{port}")
    yield handler, writer
    writer.close()
    server.stop(0).wait()


def test_every_row_of_every_view_is_written_once(store: tuple[Store, Writer]) -> None:
    handler, writer = store
    views = (USER_VIEWS[0], ITEM_VIEWS[1])
    assert load(writer, views, user_count=25_000) == 27_500
    assert handler.rows == {USER_VIEWS[0].reference: 25_000, ITEM_VIEWS[1].reference: 2_500}


def test_refused_batch_stops_the_load(store: tuple[Store, Writer]) -> None:
    handler, writer = store
    handler.refused = USER_VIEWS[0].reference
    with pytest.raises(grpc.RpcError, match="the disk is full"):
        load(writer, USER_VIEWS[:1], user_count=100)


def test_requests_split_a_range_of_keys_into_batches() -> None:
    requests = write_requests(USER_VIEWS[0], range(10, 35), 100, event_time_us=7, batch_rows=10)
    tables = [pa.ipc.open_stream(request.arrow_ipc).read_all() for request in requests]
    assert [table.num_rows for table in tables] == [10, 10, 5]
    assert tables[2]["user_id"].to_pylist() == [30, 31, 32, 33, 34]
    assert set(tables[0]["event_time"].cast(pa.int64()).to_pylist()) == {7}
