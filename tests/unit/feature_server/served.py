"""The parts of a feature server behind one of its transports, and calls to them."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import grpc
import pytest

from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.replays import Replays
from feature_server.rpc.feature_servicer import FeatureServicer
from feature_server.rpc.inspection_servicer import InspectionServicer
from feature_server.rpc.native_front import GrpcioTransport, NativeTransport
from feature_server.rpc.native_misses import READ_METHOD
from feature_server.rpc.services import SERVICE_NAMES, add_services, permissions
from feature_server.rpc.shard_servicer import ShardServicer
from headrace.errors import HeadraceError
from headrace.serving.auth import Authenticator, OpenAuthenticator
from headrace.serving.server import WORKER_COUNT, Health, add_health_and_reflection, bind, build_server
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.status import from_rpc_error
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.unit.feature_server.parts import SERVICE, Parts

if TYPE_CHECKING:
    from core_ext.native_loop import NativeServer

LIMIT_S = 20.0


class Served:
    """Parts behind one transport."""

    def __init__(self, parts: Parts, name: str, authenticator: Authenticator | None = None) -> None:
        authenticator = authenticator or OpenAuthenticator()
        self.health = Health()
        telemetry, principal = Telemetry(TelemetryConfig("test")), authenticator.current_principal
        server = build_server(authenticator, permissions(), "127.0.0.1", WORKER_COUNT)
        online = FeatureServicer(parts.reads, parts.writes, parts.imports, principal)
        peer = ShardServicer(
            PeerReads(parts.reads, parts.shards, "store", parts.served_store),
            Replays(parts.catalogue, parts.shards, parts.clock),
            principal,
        )
        inspection = InspectionServicer(parts.explanations, parts.storage, parts.reclaim, principal)
        add_services(server, online, peer, telemetry, parts.log, inspection=inspection)
        add_health_and_reflection(server, self.health, SERVICE_NAMES)
        self.transport: GrpcioTransport | NativeTransport = GrpcioTransport(server, self.health)
        if name == NativeTransport.name:
            self.transport = NativeTransport(
                server, self.health, core=parts.core, reads=parts.reads, authenticator=authenticator,
                telemetry=telemetry, log=parts.log,
            )  # fmt: skip
            self.port = self.transport.bind("127.0.0.1", 0, 1)
        else:
            self.port = bind(server, "127.0.0.1", 0)
        server.start()
        self.transport.start()
        self.channel = self.new_channel()
        self.read = read_of(self.channel)
        self.meter = telemetry.calls.meter(READ_METHOD, "unary")

    def new_channel(self) -> grpc.Channel:
        return grpc.insecure_channel(f"127.0.0.1:{self.port}", [("grpc.use_local_subchannel_pool", 1)])

    @property
    def native(self) -> "NativeServer":
        assert isinstance(self.transport, NativeTransport)
        assert self.transport._native is not None
        return self.transport._native

    def count(self, name: Literal["missed", "full", "forwarded"]) -> int:
        return self.native.counts()[name]

    def get(self, data: bytes) -> pb.GetOnlineFeaturesResponse:
        return pb.GetOnlineFeaturesResponse.FromString(self.read(data, timeout=LIMIT_S))

    def refused(self, data: bytes) -> HeadraceError:
        with pytest.raises(grpc.RpcError) as caught:
            self.read(data, timeout=LIMIT_S)
        return from_rpc_error(caught.value)


@contextmanager
def serving(parts: Parts, name: str, authenticator: Authenticator | None = None) -> Iterator[Served]:
    served = Served(parts, name, authenticator)
    try:
        yield served
    finally:
        served.channel.close()
        served.transport.drain()


def request(keys: Sequence[int], service: str = SERVICE, **options: Any) -> bytes:  # Any: fields of the message
    columns = [pb.EntityColumn(join_key="user_id", int64_values=keys)]
    read = pb.GetOnlineFeaturesRequest(
        feature_service=service, entity_columns=columns, options=pb.ReadOptions(**options)
    )
    return read.SerializeToString()


def read_of(channel: grpc.Channel) -> "grpc.UnaryUnaryMultiCallable[bytes, bytes]":
    call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(READ_METHOD)
    return call


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end_s, "the condition did not come"
        threading.Event().wait(0.002)
