"""The client that routes: whose keys it asks for, and what it does while the control plane is silent."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import grpc
import pyarrow as pa
import pytest

from core_ext.keys import encode_key, shard_of_slot, slot_of_key
from headrace.client.ring import RingClient
from headrace.client.routed import RING_AGE_MAX_S, RING_TIMEOUT_S, RoutedClient
from headrace.convert.ring import ring_to_pb
from headrace.errors import Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from headrace.types import Scalar
from protos.control.v1 import placement_service_pb2 as pb

SHARDS = 64
KEYS = {"user_id": Scalar.I64}
RING = Ring(
    epoch=1,
    servers={f"s{n}": RingServer(f"s{n}", f"127.0.0.1:{n + 1}") for n in range(SHARDS)},
    shards=tuple(RingShard((Replica(f"s{n}", Phase.SERVING, 1),), owners_epoch=1) for n in range(SHARDS)),
)


def owner_of(key: int) -> str:
    """Address of the only server that owns a key."""
    return f"127.0.0.1:{shard_of_slot(slot_of_key(encode_key([Scalar.I64], [key])), SHARDS) + 1}"


@dataclass
class Placement:
    """Tells the ring, or nothing at all while it is silent."""

    budgets_s: list[float] = field(default_factory=list)
    is_silent: bool = False

    def get_ring(self, _: pb.GetRingRequest, context: grpc.ServicerContext) -> pb.GetRingResponse:
        """The only call that a routed client makes."""
        self.budgets_s.append(context.time_remaining())
        if self.is_silent:
            context.abort(grpc.StatusCode.UNAVAILABLE, "")
        return pb.GetRingResponse(ring=ring_to_pb(RING), live_server_ids=sorted(RING.servers))


@dataclass
class Clock:
    now_s: float = 1_000.0

    def __call__(self) -> float:
        return self.now_s


Parts = tuple[RoutedClient, Placement, Clock]


@pytest.fixture
def parts() -> Iterator[Parts]:
    placement, clock = Placement(), Clock()
    server = grpc.server(ThreadPoolExecutor(max_workers=2))
    handler = grpc.unary_unary_rpc_method_handler(
        placement.get_ring, pb.GetRingRequest.FromString, pb.GetRingResponse.SerializeToString
    )
    service = RingClient.service.strip("/")
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"GetRing": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with RoutedClient(f"127.0.0.1:{port}", clock=clock) as client:
        yield client, placement, clock
    server.stop(grace=None).wait()


def test_keys_of_every_kind_of_column_reach_their_owner(parts: Parts) -> None:
    pandas = pytest.importorskip("pandas")
    client, _, _ = parts
    for key in range(20):
        rows = pandas.Series([-1, key, -1, key], index=[7, 3, 9, 5])
        for column in ([key], pa.array([key]), rows[rows == key], rows[rows == key].to_numpy()):
            assert client.order(KEYS, {"user_id": column})[0] == owner_of(key)


def test_reads_go_on_by_the_ring_that_is_held_while_the_control_plane_is_silent(parts: Parts) -> None:
    client, placement, clock = parts
    assert client.order(KEYS, {"user_id": [7]})[0] == owner_of(7)
    (first_s,) = placement.budgets_s
    assert first_s > RING_TIMEOUT_S / 2
    placement.is_silent = True
    clock.now_s += RING_AGE_MAX_S + 1
    for _ in range(5):
        assert client.order(KEYS, {"user_id": [7]})[0] == owner_of(7)
        clock.now_s += RING_AGE_MAX_S / 10
    renewals_s = placement.budgets_s[1:]
    assert renewals_s and max(renewals_s) < RING_TIMEOUT_S / 2, "a read waits for a renewal, and no longer"
    # Calls are tried again within a renewal, so their number tells nothing: there is one renewal and no second.
    placement.budgets_s.clear()
    assert client.order(KEYS, {"user_id": [7]})[0] == owner_of(7)
    assert placement.budgets_s == []


def test_without_a_ring_a_silent_control_plane_is_told(parts: Parts) -> None:
    client, placement, _ = parts
    placement.is_silent = True
    for _ in range(2):
        with pytest.raises(Unavailable):
            client.order(KEYS, {"user_id": [7]})
    placement.is_silent = False
    assert client.order(KEYS, {"user_id": [7]})[0] == owner_of(7)
