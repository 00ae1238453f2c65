"""gRPC edge of the ring: converts, calls one domain method, converts back."""

# ruff: noqa: N802 - gRPC names the methods

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

import grpc
from google.protobuf import duration_pb2

from control_plane.domain.ring.keeper import RingKeeper
from headrace.convert.ring import ring_to_pb, server_from_pb
from headrace.errors import InvalidArgument
from headrace.ring.values import Ring
from headrace.serving.principal import Principal
from protos.control.v1 import placement_service_pb2 as pb
from protos.control.v1 import placement_service_pb2_grpc as rpc
from protos.ring.v1 import ring_pb2

SERVICE: Final = pb.DESCRIPTOR.services_by_name["PlacementService"]


class PlacementServicer(rpc.PlacementServiceServicer):
    """PlacementService over a keeper; `principal` gives the caller of the running call."""

    def __init__(
        self, keeper: RingKeeper, principal: Callable[[], Principal], wake_watchers: Callable[[], None]
    ) -> None:
        self._keeper = keeper
        self._principal = principal
        self._wake_watchers = wake_watchers

    def GetRing(self, request: pb.GetRingRequest, context: grpc.ServicerContext) -> pb.GetRingResponse:
        """The newest ring."""
        principal = self._principal()
        live = sorted(self._keeper.live(principal))
        return pb.GetRingResponse(ring=ring_to_pb(self._keeper.ring(principal)), live_server_ids=live)

    def WatchRing(self, request: pb.WatchRingRequest, context: grpc.ServicerContext) -> Iterator[pb.WatchRingResponse]:
        """Every newest ring until the caller leaves."""
        context.add_callback(self._wake_watchers)
        for ring in self._keeper.watch(self._principal(), request.held_epoch, context.is_active):
            yield pb.WatchRingResponse(ring=ring_to_pb(ring))

    def JoinRing(self, request: pb.JoinRingRequest, context: grpc.ServicerContext) -> pb.JoinRingResponse:
        """Takes a server in."""
        if not request.HasField("server"):
            raise InvalidArgument("server is missing; say who joins", reason="NO_SERVER", field="server")
        server = replace(server_from_pb(request.server), is_draining=False)
        renewal = self._keeper.join(self._principal(), server, request.shard_count)
        return pb.JoinRingResponse(lease_duration=_duration(renewal.lease_s), ring=_message(renewal.ring))

    def RenewLease(self, request: pb.RenewLeaseRequest, context: grpc.ServicerContext) -> pb.RenewLeaseResponse:
        """Takes a heartbeat."""
        renewal = self._keeper.renew(
            self._principal(),
            request.server_id,
            request.held_epoch,
            _reports(request.ready_replicas),
            _reports(request.damaged_replicas),
        )
        return pb.RenewLeaseResponse(lease_duration=_duration(renewal.lease_s), ring=_message(renewal.ring))

    def DrainServer(self, request: pb.DrainServerRequest, context: grpc.ServicerContext) -> pb.DrainServerResponse:
        """Moves every shard off a server."""
        return pb.DrainServerResponse(ring=ring_to_pb(self._keeper.drain(self._principal(), request.server_id)))


def _duration(seconds: float) -> duration_pb2.Duration:
    duration = duration_pb2.Duration()
    duration.FromMilliseconds(round(seconds * 1_000))
    return duration


def _message(ring: Ring | None) -> ring_pb2.Ring | None:
    return None if ring is None else ring_to_pb(ring)


def _reports(reports: Sequence[pb.ReplicaReport]) -> list[tuple[int, int]]:
    return [(report.shard, report.phase_epoch) for report in reports]
