"""PlacementService over a real server and a real database."""

import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import grpc
import pytest
from sqlalchemy import Engine

from control_plane.domain.ring.keeper import RingKeeper, RingShape
from control_plane.domain.ring.leases import LEASE_S, Leases
from control_plane.domain.watchers import Watchers
from control_plane.rpc.placement_servicer import SERVICE, PlacementServicer
from control_plane.store.ring_store import SqlRingStore
from headrace.convert.ring import ring_from_pb
from headrace.errors import HeadraceError, InvalidArgument, NotFound
from headrace.ring.values import Phase
from headrace.serving.auth import OpenAuthenticator
from headrace.serving.calls import add_service
from headrace.serving.logging import EventLog
from headrace.serving.permissions import method_permissions
from headrace.serving.principal import LOCAL
from headrace.serving.server import bind, build_server
from headrace.serving.telemetry import Telemetry, TelemetryConfig
from headrace.status import from_rpc_error
from protos.control.v1 import placement_service_pb2 as pb
from protos.control.v1 import placement_service_pb2_grpc as rpc
from protos.ring.v1 import ring_pb2

LIMIT_S = 30.0


@pytest.fixture
def stub(engine: Engine) -> Iterator[rpc.PlacementServiceStub]:
    watchers = Watchers()
    store = SqlRingStore(engine, lambda: datetime(2026, 1, 1, tzinfo=UTC))
    keeper = RingKeeper(store, Leases(lambda: 0.0), watchers, RingShape(8, 2, 2))
    telemetry = Telemetry(TelemetryConfig("control_plane", None))
    server = build_server(OpenAuthenticator(), method_permissions(SERVICE.file), "127.0.0.1")
    servicer = PlacementServicer(keeper, lambda: LOCAL, watchers.wake)
    add_service(server, SERVICE, servicer, telemetry, EventLog("control_plane", lambda: 0.0))
    port = bind(server, "127.0.0.1", 0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield rpc.PlacementServiceStub(channel)
    watchers.close()
    server.stop(None).wait()
    telemetry.close()


def join(stub: rpc.PlacementServiceStub, name: str) -> pb.JoinRingResponse:
    server = ring_pb2.RingServer(server_id=name, address=f"{name}:1", weight=1)
    return stub.JoinRing(pb.JoinRingRequest(server=server, shard_count=8), timeout=LIMIT_S)


def refused(call: Callable[[], object]) -> HeadraceError:
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return from_rpc_error(caught.value)


def test_servers_join_report_and_serve(stub: rpc.PlacementServiceStub) -> None:
    assert not join(stub, "a").HasField("ring")
    answer = join(stub, "b")
    assert answer.lease_duration.ToMilliseconds() == LEASE_S * 1_000
    ring = ring_from_pb(answer.ring)
    assert ring.epoch == 1
    for name in ("a", "b"):
        reports = [pb.ReplicaReport(shard=shard, phase_epoch=1) for shard in range(8)]
        request = pb.RenewLeaseRequest(server_id=name, held_epoch=1, ready_replicas=reports)
        renewed = stub.RenewLease(request, timeout=LIMIT_S)
        assert renewed.HasField("ring")
    told = stub.GetRing(pb.GetRingRequest(), timeout=LIMIT_S)
    assert list(told.live_server_ids) == ["a", "b"]
    newest = ring_from_pb(told.ring)
    assert {replica.phase for shard in newest.shards for replica in shard.replicas} == {Phase.SERVING}
    held = pb.RenewLeaseRequest(server_id="a", held_epoch=newest.epoch)
    assert not stub.RenewLease(held, timeout=LIMIT_S).HasField("ring"), "the one that is held is not sent again"


def test_a_watch_sees_each_newest_ring(stub: rpc.PlacementServiceStub) -> None:
    rings = stub.WatchRing(pb.WatchRingRequest(), timeout=LIMIT_S)
    threading.Thread(target=lambda: (join(stub, "a"), join(stub, "b"))).start()
    assert next(rings).ring.epoch == 1
    stub.DrainServer(pb.DrainServerRequest(server_id="a"), timeout=LIMIT_S)
    assert next(rings).ring.epoch == 2
    rings.cancel()


def test_a_server_drains(stub: rpc.PlacementServiceStub) -> None:
    join(stub, "a")
    join(stub, "b")
    drained = stub.DrainServer(pb.DrainServerRequest(server_id="a"), timeout=LIMIT_S)
    assert ring_from_pb(drained.ring).servers.get("a") is None or ring_from_pb(drained.ring).servers["a"].is_draining
    assert isinstance(
        refused(lambda: stub.DrainServer(pb.DrainServerRequest(server_id="x"), timeout=LIMIT_S)), NotFound
    )


def test_strangers_and_the_nameless_are_refused(stub: rpc.PlacementServiceStub) -> None:
    error = refused(lambda: stub.RenewLease(pb.RenewLeaseRequest(server_id="x"), timeout=LIMIT_S))
    assert isinstance(error, NotFound) and error.reason == "NOT_IN_RING"
    error = refused(lambda: stub.JoinRing(pb.JoinRingRequest(shard_count=8), timeout=LIMIT_S))
    assert isinstance(error, InvalidArgument) and error.field == "server"
