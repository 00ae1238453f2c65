"""The blocking client of the ring."""

from typing import Final

from headrace.client.unary import UnaryClient
from headrace.convert.ring import ring_from_pb
from headrace.ring.values import Ring
from protos.control.v1 import placement_service_pb2 as pb

CALL_TIMEOUT_S_DEFAULT: Final = 10.0


class RingClient(UnaryClient):
    """Reads the ring, and drains servers, over one channel to the control plane; safe to share between threads."""

    service = "/headrace.control.v1.PlacementService/"

    def ring(self, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> tuple[Ring, frozenset[str]]:
        """The newest ring, and the servers whose lease holds."""
        answer = pb.GetRingResponse.FromString(self._unary("GetRing", pb.GetRingRequest(), timeout_s))
        return ring_from_pb(answer.ring), frozenset(answer.live_server_ids)

    def drain(self, server_id: str, timeout_s: float = CALL_TIMEOUT_S_DEFAULT) -> Ring:
        """Moves every shard off a server; the ring as it begins to."""
        raw = self._unary("DrainServer", pb.DrainServerRequest(server_id=server_id), timeout_s)
        return ring_from_pb(pb.DrainServerResponse.FromString(raw).ring)
