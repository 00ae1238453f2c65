"""A server's place in the ring: what it says when, and what it does about what it hears."""

import io
import itertools
from collections.abc import Callable
from concurrent.futures import Executor, Future
from random import Random
from typing import Any

import pytest

from feature_server.ring.copies import Answer, AskLog, Copies, TakeSnapshot
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.membership import BACKOFF_MAX_S, JITTER, Membership, Renewed
from headrace.errors import HeadraceError, NotFound, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from headrace.serving.logging import EventLog
from tests.simulation.disk import SimStore

ME = RingServer("me", "me:1")
LEASE_S = 9.0


def ring(epoch: int, *replicas: Replica) -> Ring:
    return Ring(epoch, 2, {"me": ME, "a": RingServer("a", "a:1")}, (RingShard(replicas, epoch, ("me",)),))


class FakePlacement:
    """A control plane that answers what it is told to."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.ring: Ring | None = None
        self.error: HeadraceError | None = None

    def join(self, server: RingServer, shard_count: int) -> Renewed:
        return self._answer("join", server, shard_count)

    def renew(
        self, server_id: str, held_epoch: int, ready: list[tuple[int, int]], damaged: list[tuple[int, int]]
    ) -> Renewed:
        return self._answer("renew", server_id, held_epoch, ready, damaged)

    def _answer(self, *call: object) -> Renewed:
        self.calls.append(call)
        if self.error is not None:
            raise self.error
        answer, self.ring = self.ring, None
        return Renewed(LEASE_S, answer)


class FakeSource:
    """Copies that come at once, or fail."""

    def __init__(self, store: SimStore) -> None:
        self.steps: list[AskLog | TakeSnapshot] = []
        self.error: HeadraceError | None = None
        self._store = store

    def perform(self, step: AskLog | TakeSnapshot) -> Answer:
        self.steps.append(step)
        if self.error is not None:
            raise self.error
        if isinstance(step, TakeSnapshot):
            self._store.begin()
        return None

    def close(self) -> None:
        self.error = Unavailable("closed", reason="TRANSPORT")


class Inline(Executor):
    """Runs everything at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future


class Bench:
    def __init__(self) -> None:
        self.now_s = 0.0
        self.store = SimStore()
        self.held = HeldRing("me", lambda ring: None)
        self.copies = Copies(self.held, [self.store])
        self.placement = FakePlacement()
        self.source = FakeSource(self.store)
        self.membership = Membership(
            ME,
            1,
            held=self.held,
            copies=self.copies,
            placement=self.placement,
            source=self.source,
            workers=Inline(),
            clock_s=lambda: self.now_s,
            random=Random(1),
            log=EventLog("test", lambda: 0.0, io.StringIO()),
        )

    def step(self, later_s: float = 0.0) -> list[tuple[object, ...]]:
        """What was said in one step."""
        self.now_s += later_s
        self.placement.calls.clear()
        self.membership.step()
        return list(self.placement.calls)


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_joins_and_then_renews_three_times_a_lease(bench: Bench) -> None:
    assert bench.step() == [("join", ME, 1)]
    assert bench.step(0.1) == [("renew", "me", 0, [], [])], "what it holds is said at once"
    assert bench.step(2.9) == []
    assert bench.step(0.2) == [("renew", "me", 0, [], [])]


def test_a_ring_is_followed_and_what_is_ready_is_said_at_once(bench: Bench) -> None:
    bench.placement.ring = ring(1, Replica("me", Phase.JOINING, 1))
    bench.step()
    assert bench.held.ring.epoch == 1
    assert bench.step(0.1) == [("renew", "me", 1, [(0, 1)], [])]
    assert bench.source.steps == [AskLog(0), AskLog(0)]


def test_a_copy_is_taken_from_an_owner_and_tried_again_after_a_pause(bench: Bench) -> None:
    bench.source.error = Unavailable("gone", reason="TRANSPORT")
    bench.placement.ring = ring(2, Replica("me", Phase.JOINING, 2), Replica("a", Phase.SERVING, 1))
    bench.step()
    bench.step()
    assert bench.copies.ready() == []
    bench.source.error = None
    bench.step(0.05)
    assert bench.copies.ready() == []
    bench.step(0.1)
    assert TakeSnapshot(0, "a") in bench.source.steps
    assert bench.copies.ready() == [(0, 2)]


def test_it_joins_again_where_the_ring_does_not_know_it(bench: Bench) -> None:
    bench.step()
    bench.placement.error = NotFound("who?", reason="NOT_IN_RING")
    assert bench.step(3.0)[0][0] == "renew"
    bench.placement.error = None
    assert bench.step(1.0)[0][0] == "join"


def test_without_a_control_plane_it_backs_off_and_goes_on(bench: Bench) -> None:
    bench.placement.ring = ring(1, Replica("me", Phase.JOINING, 1))
    bench.step()
    bench.step()
    bench.placement.error = Unavailable("down", reason="TRANSPORT")
    times = []
    while bench.now_s < 60.0:
        if bench.step(0.1):
            times.append(bench.now_s)
    gaps = [later - sooner for sooner, later in itertools.pairwise(times)]
    assert max(gaps) <= BACKOFF_MAX_S * (1 + JITTER) + 0.2
    assert gaps[-1] > 3.0
    assert bench.held.ring.epoch == 1, "what it holds it holds"
    bench.placement.error = None
    assert bench.step(10.0)[0][0] == "renew"


def test_damage_is_said_at_once(bench: Bench) -> None:
    bench.placement.ring = ring(1, Replica("me", Phase.SERVING, 1))
    bench.store.complete()
    bench.step()
    assert bench.step() == [("renew", "me", 1, [], [])]
    bench.store.damage(Random(1))
    assert bench.step(0.1) == [("renew", "me", 1, [], [(0, 1)])]


def test_a_ring_from_elsewhere_is_told_and_adopted(bench: Bench) -> None:
    told: list[int] = []
    bench.membership.on_ring = lambda held: told.append(held.epoch)
    bench.step()
    bench.membership.take(ring(4, Replica("a", Phase.SERVING, 1)))
    bench.membership.take(ring(3, Replica("me", Phase.SERVING, 1)))
    assert told == [4]
    assert bench.step(0.1) == [("renew", "me", 4, [], [])]
