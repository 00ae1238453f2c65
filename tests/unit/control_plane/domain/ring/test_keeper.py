"""The keeper: who may come in, what a heartbeat does, and what a restart leaves."""

from dataclasses import replace

import pytest

from control_plane.domain.ring.keeper import RingKeeper, RingShape, moving
from control_plane.domain.ring.leases import LEASE_S, REPLACE_AFTER_S, Leases
from control_plane.domain.watchers import Watchers
from headrace.errors import (
    Aborted,
    FailedPrecondition,
    HeadraceError,
    InvalidArgument,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from headrace.ring.values import Phase, Ring, RingServer
from headrace.serving.principal import LOCAL, Principal

SHAPE = RingShape(shard_count=8, replica_count=2, server_count_min=2)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class MemoryStore:
    """Rings by epoch in memory."""

    def __init__(self) -> None:
        self.rings = [Ring()]

    def read(self) -> Ring:
        return self.rings[-1]

    def append(self, ring: Ring, cause: str) -> None:
        if ring.epoch != self.rings[-1].epoch + 1:
            raise Aborted("taken", reason="CONCURRENT_CHANGE")
        self.rings.append(ring)


def server(name: str) -> RingServer:
    return RingServer(name, f"{name}:9000")


class Fleet:
    """A keeper with a clock and a store, and servers that do as the ring says."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.store = MemoryStore()
        self.watchers = Watchers(poll_interval_s=0.01)
        self.restart()

    def restart(self) -> None:
        self.keeper = RingKeeper(self.store, Leases(self.clock), self.watchers, SHAPE)

    @property
    def ring(self) -> Ring:
        return self.keeper.ring(LOCAL)

    def join(self, *names: str) -> None:
        for name in names:
            self.keeper.join(LOCAL, server(name), SHAPE.shard_count)

    def heartbeat(self, *names: str) -> None:
        """Each server has caught up with everything that it was to join."""
        for name in names:
            ready = [
                (shard, replica.phase_epoch)
                for shard, replica in self.ring.replicas_of(name)
                if replica.phase is Phase.JOINING
            ]
            self.keeper.renew(LOCAL, name, self.ring.epoch, ready, [])

    def settle(self, *names: str) -> None:
        for _ in range(30):
            self.heartbeat(*names)


@pytest.fixture
def fleet() -> Fleet:
    return Fleet()


def test_the_ring_waits_for_its_servers(fleet: Fleet) -> None:
    assert fleet.keeper.join(LOCAL, server("a"), SHAPE.shard_count).ring is None
    assert fleet.ring.epoch == 0
    renewal = fleet.keeper.join(LOCAL, server("b"), SHAPE.shard_count)
    assert renewal.ring is not None and renewal.ring.epoch == 1
    assert renewal.lease_s == LEASE_S


def test_a_server_that_fell_silent_does_not_form_the_ring(fleet: Fleet) -> None:
    fleet.join("a")
    fleet.clock.now_s = LEASE_S + 1
    fleet.join("b")
    assert fleet.ring.epoch == 0
    fleet.join("c")
    assert set(fleet.ring.servers) == {"b", "c"}


def test_joining_twice_changes_nothing(fleet: Fleet) -> None:
    fleet.join("a", "b")
    epoch = fleet.ring.epoch
    fleet.join("b", "a")
    assert fleet.ring.epoch == epoch


def test_a_new_address_is_a_new_epoch(fleet: Fleet) -> None:
    fleet.join("a", "b")
    fleet.keeper.join(LOCAL, replace(server("a"), address="elsewhere:1"), SHAPE.shard_count)
    assert fleet.ring.epoch == 2
    assert fleet.ring.servers["a"].address == "elsewhere:1"


def test_servers_that_join_take_over_and_the_others_leave(fleet: Fleet) -> None:
    fleet.join("a", "b")
    fleet.settle("a", "b")
    assert all(set(shard.owners) == {"a", "b"} for shard in fleet.ring.shards)
    fleet.join("c")
    fleet.settle("a", "b", "c")
    assert moving(fleet.ring) == 0
    assert all(len(shard.owners) == 2 for shard in fleet.ring.shards)
    assert sum("c" in shard.owners for shard in fleet.ring.shards) == 5


def test_a_drained_server_leaves_the_ring_and_stays_drained_when_it_starts_anew(fleet: Fleet) -> None:
    fleet.join("a", "b", "c")
    fleet.settle("a", "b", "c")
    fleet.keeper.drain(LOCAL, "c")
    fleet.join("c")
    assert fleet.ring.servers["c"].is_draining
    for name in ["a", "b", "c"] * 30:
        if name in fleet.ring.servers:
            fleet.heartbeat(name)
    assert set(fleet.ring.servers) == {"a", "b"}
    with pytest.raises(NotFound):
        fleet.heartbeat("c")


def test_a_silent_server_is_replaced_after_a_while_and_not_before(fleet: Fleet) -> None:
    fleet.join("a", "b", "c")
    fleet.settle("a", "b", "c")
    held = fleet.ring
    fleet.clock.now_s = LEASE_S + 1
    fleet.heartbeat("a", "b")
    assert fleet.keeper.live(LOCAL) == {"a", "b"}
    assert fleet.ring == held, "a lease that ran out moves nothing yet"
    fleet.clock.now_s = LEASE_S + REPLACE_AFTER_S + 1
    fleet.heartbeat("a", "b")
    for _ in range(30):
        fleet.clock.now_s += 1
        fleet.heartbeat("a", "b")
    assert set(fleet.ring.servers) == {"a", "b"}
    assert all(set(shard.owners) == {"a", "b"} for shard in fleet.ring.shards)


def test_a_restart_keeps_the_ring_and_gives_every_server_a_whole_lease(fleet: Fleet) -> None:
    fleet.join("a", "b", "c")
    fleet.settle("a", "b", "c")
    held = fleet.ring
    fleet.clock.now_s = LEASE_S + REPLACE_AFTER_S + 100
    fleet.restart()
    fleet.keeper.tick()
    assert fleet.ring == held
    assert fleet.keeper.live(LOCAL) == {"a", "b", "c"}


def test_a_second_keeper_cannot_take_the_same_epoch(fleet: Fleet) -> None:
    fleet.join("a", "b")
    first = fleet.keeper
    fleet.restart()
    fleet.join("c")
    with pytest.raises(Aborted):
        first.join(LOCAL, server("d"), SHAPE.shard_count)
    assert first.ring(LOCAL) == fleet.ring
    first.join(LOCAL, server("d"), SHAPE.shard_count)
    assert set(first.ring(LOCAL).servers) == {"a", "b", "c", "d"}


def test_a_store_that_fails_leaves_the_ring_as_it_was(fleet: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    fleet.join("a", "b")
    held = fleet.ring

    def fail(ring: Ring, cause: str) -> None:
        raise Unavailable("the disk is gone", reason="STORE_UNAVAILABLE")

    monkeypatch.setattr(fleet.store, "append", fail)
    with pytest.raises(Unavailable):
        fleet.join("c")
    assert fleet.ring == held
    monkeypatch.undo()
    fleet.keeper.tick()
    assert "c" in fleet.ring.servers, "who was heard is taken in once the store answers"


def test_an_epoch_above_that_of_the_ring_is_refused(fleet: Fleet) -> None:
    fleet.join("a", "b")
    with pytest.raises(FailedPrecondition) as error:
        fleet.keeper.renew(LOCAL, "a", 7, [], [])
    assert error.value.reason == "RING_BEHIND"
    with pytest.raises(FailedPrecondition):
        next(fleet.keeper.watch(LOCAL, 7, lambda: True))


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (RingServer("", "a:1"), "server.server_id"),
        (RingServer("x" * 65, "a:1"), "server.server_id"),
        (RingServer("a", "nowhere"), "server.address"),
        (RingServer("a", "a:1", "z" * 65), "server.zone"),
        (RingServer("a", "a:1", "", 0), "server.weight"),
        (RingServer("a", "a:1", "", 1_001), "server.weight"),
    ],
)
def test_a_server_out_of_its_limits_is_refused(fleet: Fleet, wrong: RingServer, field: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        fleet.keeper.join(LOCAL, wrong, SHAPE.shard_count)
    assert error.value.field == field


def test_a_store_of_another_shard_count_is_refused(fleet: Fleet) -> None:
    with pytest.raises(FailedPrecondition) as error:
        fleet.keeper.join(LOCAL, server("a"), 16)
    assert error.value.reason == "SHARD_COUNT"


def test_the_address_of_a_live_server_is_refused_to_another(fleet: Fleet) -> None:
    fleet.join("a", "b")
    with pytest.raises(FailedPrecondition) as error:
        fleet.keeper.join(LOCAL, RingServer("c", "a:9000"), SHAPE.shard_count)
    assert error.value.reason == "ADDRESS_TAKEN"
    fleet.clock.now_s = LEASE_S + 1
    fleet.keeper.join(LOCAL, RingServer("c", "a:9000"), SHAPE.shard_count)


def test_a_watch_sends_the_newest_ring_and_ends_with_the_server(fleet: Fleet) -> None:
    fleet.join("a", "b")
    rings = fleet.keeper.watch(LOCAL, 0, lambda: True)
    assert next(rings).epoch == 1
    fleet.join("c")
    assert next(rings).epoch == 2
    fleet.watchers.close()
    with pytest.raises(Unavailable):
        next(rings)


def test_permissions_are_asked_first(fleet: Fleet) -> None:
    nobody = Principal("nobody", frozenset())
    calls = (
        lambda: fleet.keeper.ring(nobody),
        lambda: fleet.keeper.live(nobody),
        lambda: fleet.keeper.join(nobody, server("a"), 8),
        lambda: fleet.keeper.renew(nobody, "a", 0, [], []),
        lambda: fleet.keeper.drain(nobody, "a"),
        lambda: next(fleet.keeper.watch(nobody, 0, lambda: True)),
    )
    for call in calls:
        with pytest.raises(PermissionDenied):
            call()


@pytest.mark.parametrize(("shards", "replicas"), [(0, 2), (3, 2), (2_048, 2), (8, 0), (8, 8)])
def test_a_shape_that_no_ring_has_is_refused(shards: int, replicas: int) -> None:
    with pytest.raises(HeadraceError):
        RingShape(shards, replicas)
