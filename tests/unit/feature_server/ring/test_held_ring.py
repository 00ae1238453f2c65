"""Which requests a held ring allows, and that it never goes back."""

import pytest

from feature_server.ring.held_ring import HeldRing, check_no_ring
from headrace.errors import FailedPrecondition, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch

SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "other")}


def shard(phase: Phase | None, owners_epoch: int) -> RingShard:
    replicas = () if phase is None else (Replica("me", phase, owners_epoch),)
    return RingShard(replicas, owners_epoch)


RING = Ring(9, 1, SERVERS, (shard(Phase.SERVING, 5), shard(Phase.LEAVING, 7), shard(Phase.JOINING, 6), shard(None, 3)))


def held(ring: Ring = RING) -> HeldRing:
    return HeldRing("me", lambda ring: None, ring)


@pytest.mark.parametrize(("number", "epoch"), [(0, 5), (0, 7), (0, 9), (1, 6), (1, 1)])
def test_who_means_the_same_owners_is_answered(number: int, epoch: int) -> None:
    held().check([number], epoch)


@pytest.mark.parametrize(
    ("number", "epoch"),
    [(0, 4), (0, 0), (0, 10), (1, 7), (1, 9), (1, 10), (2, 6), (2, 5), (3, 3), (3, 9), (4, 9)],
    ids=str,
)
def test_who_means_others_is_told_the_ring(number: int, epoch: int) -> None:
    with pytest.raises(WrongEpoch) as error:
        held().check([number], epoch)
    assert error.value.ring is RING
    assert error.value.metadata["shard"] == str(number)


def test_one_wrong_shard_refuses_the_request() -> None:
    with pytest.raises(WrongEpoch):
        held().check([0, 3], 9)


def test_only_greater_epochs_are_taken_and_kept_first() -> None:
    kept: list[Ring] = []
    ring = HeldRing("me", kept.append)
    assert ring.accept(RING)
    assert not ring.accept(RING)
    assert not ring.accept(Ring(8, 1, SERVERS, ()))
    assert kept == [RING]
    assert ring.ring is RING


def test_the_ring_of_another_deployment_is_refused() -> None:
    ring = held(Ring(9, 1, SERVERS, RING.shards, "mine"))
    with pytest.raises(FailedPrecondition) as error:
        ring.accept(Ring(20, 1, SERVERS, (), "other"))
    assert error.value.reason == "OTHER_RING"
    assert ring.ring.ring_id == "mine"
    assert ring.accept(Ring(10, 1, SERVERS, RING.shards, "mine"))


def test_a_ring_that_cannot_be_kept_is_not_followed() -> None:
    def refuse(ring: Ring) -> None:
        raise Unavailable("the disk is full", reason="FILE_UNUSABLE")

    ring = HeldRing("me", refuse)
    with pytest.raises(Unavailable):
        ring.accept(RING)
    assert ring.ring.epoch == 0


def test_the_epoch_to_send_is_the_newest_of_the_owners() -> None:
    assert held().owners_epoch([0, 3]) == 5
    assert held().owners_epoch([]) == 0


def test_direct_writes_go_to_rings_of_one_copy_alone() -> None:
    held().check_write([0])
    with pytest.raises(WrongEpoch):
        held().check_write([3])
    with pytest.raises(FailedPrecondition) as error:
        held(Ring(9, 2, SERVERS, RING.shards)).check_write([0])
    assert error.value.reason == "RING_WRITES"


def test_a_shard_that_moves_takes_no_direct_writes() -> None:
    replicas = (Replica("me", Phase.SERVING, 5), Replica("other", Phase.JOINING, 9))
    with pytest.raises(Unavailable) as error:
        held(Ring(9, 1, SERVERS, (RingShard(replicas, 5),))).check_replay([0], 9)
    assert error.value.reason == "SHARD_MOVING"


def test_without_a_ring_an_epoch_is_refused() -> None:
    check_no_ring(0)
    with pytest.raises(WrongEpoch) as error:
        check_no_ring(3)
    assert error.value.ring.epoch == 0
