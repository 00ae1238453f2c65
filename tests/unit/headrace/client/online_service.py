"""A feature service in the process, made from the generated stubs, whose answers a test scripts."""

import io
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
import pyarrow as pa
from grpc_status import rpc_status

from headrace.errors import FailedPrecondition, HeadraceError
from headrace.status import to_status
from protos.common.v1 import value_pb2
from protos.feature.v1 import online_feature_service_pb2 as pb
from protos.feature.v1 import online_feature_service_pb2_grpc as stubs

HANDLE = b"\x07" * 32
Context = grpc.ServicerContext


def score_column(keys: "list[int]") -> pb.FeatureColumn:
    """An f64 column that holds each key times ten."""
    return pb.FeatureColumn(
        name="score",
        values=(np.array(keys, "<f8") * 10).tobytes(),
        statuses=bytes([pb.VALUE_STATE_PRESENT]) * len(keys),
        value_type=value_pb2.ValueType(scalar_type=value_pb2.SCALAR_TYPE_F64),
    )


@dataclass
class OnlineService(stubs.OnlineFeatureServiceServicer):
    """Answers reads with `score`, keeps what it was sent, and fails as often as `failures` holds errors."""

    failures: list[HeadraceError] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    headers: list[dict[str, str | bytes]] = field(default_factory=list)
    budgets_s: list[float] = field(default_factory=list)
    before_batch: Callable[[int], HeadraceError | None] = lambda number: None
    rows: list[pa.Table] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    ends_streams_at: int | None = None
    handle: bytes = HANDLE
    prepared_feature: str = "shop.users.stats@v1:score"

    def _arrived(self, request: object, context: Context) -> None:
        self.requests.append(request)
        self.headers.append(dict(context.invocation_metadata()))
        self.budgets_s.append(context.time_remaining())
        if self.failures:
            context.abort_with_status(rpc_status.to_status(to_status(self.failures.pop(0))))

    def GetOnlineFeatures(self, request: pb.GetOnlineFeaturesRequest, context: Context) -> pb.GetOnlineFeaturesResponse:
        self._arrived(request, context)
        if request.handle and request.handle != self.handle:
            error = FailedPrecondition("prepare again", reason="UNKNOWN_HANDLE", field="handle")
            context.abort_with_status(rpc_status.to_status(to_status(error)))
        keys = list(request.entity_columns[0].int64_values)
        column = score_column(keys)
        if request.handle:
            column.ClearField("name")
            column.ClearField("value_type")
        return pb.GetOnlineFeaturesResponse(
            columns=[column], row_count=len(keys), registry_revision=3, read_time_us=1_700_000_000_000_000
        )

    def PrepareFeatureSet(self, request: pb.PrepareFeatureSetRequest, context: Context) -> pb.PrepareFeatureSetResponse:
        self._arrived(request, context)
        kind = value_pb2.ValueType(scalar_type=value_pb2.SCALAR_TYPE_F64)
        return pb.PrepareFeatureSetResponse(
            handle=self.handle,
            columns=[pb.OutputColumn(name="score", feature=self.prepared_feature, value_type=kind)],
            join_keys=[pb.JoinKey(name="user_id", scalar_type=value_pb2.SCALAR_TYPE_I64)],
            registry_revision=3,
            feature_service="" if request.features else "shop.users.ranking@v1",
        )

    def IngestFeatures(
        self, request_iterator: Iterator[pb.IngestFeaturesRequest], context: Context
    ) -> Iterator[pb.IngestFeaturesResponse]:
        self._arrived(None, context)
        for request in request_iterator:
            if len(self.rows) == self.ends_streams_at:
                return
            error = self.before_batch(len(self.rows))
            if error is not None:
                context.abort_with_status(rpc_status.to_status(to_status(error)))
            table = pa.ipc.open_stream(io.BytesIO(request.write.arrow_ipc)).read_all()
            self.requests.append(request.write)
            self.rows.append(table)
            token = pb.WriteToken(shard=len(self.rows) % 2, epoch=1, offset=len(self.rows))
            write = pb.WriteFeaturesResponse(tokens=[token], row_count=table.num_rows, stale_count=1)
            yield pb.IngestFeaturesResponse(write=write)

    def WriteFeatures(self, request: pb.WriteFeaturesRequest, context: Context) -> pb.WriteFeaturesResponse:
        raise NotImplementedError

    def ImportFeatures(
        self, request: pb.ImportFeaturesRequest, context: Context
    ) -> Iterator[pb.ImportFeaturesResponse]:
        raise NotImplementedError

    def DeleteEntity(self, request: pb.DeleteEntityRequest, context: Context) -> pb.DeleteEntityResponse:
        self._arrived(request, context)
        count = len(request.entity_columns[0].int64_values)
        return pb.DeleteEntityResponse(tokens=[pb.WriteToken(shard=4, epoch=1, offset=9)], entity_count=count)


@dataclass(frozen=True)
class Served:
    """The service and where it listens."""

    service: OnlineService
    target: str


def serve() -> Iterator[Served]:
    """Runs the service on a free port until the test is over."""
    service = OnlineService()
    server = grpc.server(ThreadPoolExecutor(max_workers=4))
    stubs.add_OnlineFeatureServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield Served(service, f"127.0.0.1:{port}")
    server.stop(grace=None).wait()
