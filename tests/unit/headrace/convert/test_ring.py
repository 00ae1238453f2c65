"""Rings as messages, and in the details of an error."""

import pytest

from headrace.convert.ring import ring_from_pb, ring_to_pb
from headrace.errors import FailedPrecondition, InvalidArgument
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch
from headrace.status import RING_BYTES_MAX, from_status, to_status
from protos.ring.v1 import ring_pb2 as pb

SERVERS = {
    "a": RingServer("a", "a:1", "north", 3),
    "b": RingServer("b", "b:1", is_draining=True),
}
RING = Ring(
    7,
    2,
    SERVERS,
    (
        RingShard((Replica("b", Phase.LEAVING, 7), Replica("a", Phase.SERVING, 6)), 6, ("a",)),
        RingShard((Replica("a", Phase.JOINING, 5),), 0, ("a", "b")),
    ),
    "ring",
)


def test_a_ring_comes_back_whole() -> None:
    assert ring_from_pb(pb.Ring.FromString(ring_to_pb(RING).SerializeToString())) == RING


def test_a_target_that_is_gone_is_left_out() -> None:
    shard = RingShard((), 0, ("a", "gone"))
    assert ring_from_pb(ring_to_pb(Ring(1, 2, SERVERS, (shard,)))).shards[0].target == ("a",)


@pytest.mark.parametrize(
    "replica",
    [
        pb.RingReplica(server=2, phase=pb.REPLICA_PHASE_JOINING),
        pb.RingReplica(server=-1, phase=pb.REPLICA_PHASE_JOINING),
        pb.RingReplica(phase=pb.REPLICA_PHASE_UNSPECIFIED),
    ],
)
def test_a_ring_that_contradicts_itself_is_refused(replica: pb.RingReplica) -> None:
    message = ring_to_pb(RING)
    message.shards[0].replicas.append(replica)
    with pytest.raises(InvalidArgument):
        ring_from_pb(message)


def test_a_refusal_by_epoch_carries_the_ring() -> None:
    error = from_status(to_status(WrongEpoch("moved", RING, {"shard": "3"})))
    assert isinstance(error, WrongEpoch)
    assert (error.ring, error.metadata, error.code) == (RING, {"shard": "3"}, "FAILED_PRECONDITION")


def test_a_ring_too_large_for_trailers_is_left_out() -> None:
    servers = {f"server-{number}": RingServer(f"server-{number}", "x" * 100 + ":1") for number in range(200)}
    large = Ring(9, 2, servers, ())
    assert ring_to_pb(large).ByteSize() > RING_BYTES_MAX
    error = from_status(to_status(WrongEpoch("moved", large, {})))
    assert isinstance(error, WrongEpoch) and error.ring.epoch == 0


def test_other_refusals_carry_none() -> None:
    status = to_status(FailedPrecondition("no", reason="OTHER"))
    assert len(status.details) == 1
