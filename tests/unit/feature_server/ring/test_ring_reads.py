"""The blocking driver of reads across peers, with answers from other threads."""

import threading
import time
from collections.abc import Callable

import pytest

from core_ext.rules import CAUSE_DEADLINE
from feature_server.ring.copies import Copies
from feature_server.ring.fan_out import FanOut, Found, Rows, Send
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.peers import Outliers
from feature_server.ring.ring_reads import PeerTransport, Pending, RingReads
from headrace.errors import HeadraceError, InvalidArgument, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard
from tests.simulation.disk import SimStore

SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "a", "b")}
RING = Ring(
    3,
    1,
    SERVERS,
    tuple(RingShard((Replica(name, Phase.SERVING, 2),), 2, (name,)) for name in ("me", "a", "b")),
)


class ThreadedTransport:
    """Answers from a thread of its own, after a while."""

    def __init__(self, answer: Callable[[Send], Rows | HeadraceError], delay_s: float = 0.0) -> None:
        self._answer = answer
        self._delay_s = delay_s
        self.timeouts_s: list[float] = []

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        self.timeouts_s.append(timeout_s)
        threading.Timer(self._delay_s, lambda: done(self._answer(asked))).start()


def reads(transport: PeerTransport, held: Ring = RING, *, is_whole: bool = True) -> RingReads:
    ring = HeldRing("me", lambda ring: None, held)
    stores = [SimStore() for _ in range(3)]
    if is_whole:
        for store in stores:
            store.complete()
    fan_out = FanOut(ring, Outliers(time.monotonic), time.monotonic)
    return RingReads(ring, Copies(ring, stores), fan_out, transport)


def echo(asked: Send) -> Rows:
    return Rows([b"row of " + key for key in asked.keys])


def finished(pending: Pending) -> Found:
    pending.wait()
    return pending.result()


def test_answers_of_all_peers_come_together() -> None:
    transport = ThreadedTransport(echo, 0.01)
    ring = reads(transport)
    found = finished(ring.begin({1: [b"k", b"l"], 2: [b"m"]}, [], time.monotonic() + 10.0))
    assert found.rows == {key: b"row of " + key for key in (b"k", b"l", b"m")}
    assert ring.sent_count == 2
    assert all(9.0 < timeout_s <= 10.0 for timeout_s in transport.timeouts_s)


def test_a_read_ends_at_its_deadline_and_a_late_answer_harms_nobody() -> None:
    begun_s = time.monotonic()
    found = finished(reads(ThreadedTransport(echo, 0.3)).begin({1: [b"k"]}, [], begun_s + 0.05))
    assert time.monotonic() - begun_s < 0.25
    assert found.causes == {b"k": CAUSE_DEADLINE}


def test_what_every_peer_would_refuse_is_raised() -> None:
    refusal = InvalidArgument("bad key", reason="BAD_STORAGE_KEY")
    with pytest.raises(InvalidArgument):
        finished(reads(ThreadedTransport(lambda asked: refusal)).begin({1: [b"k"]}, [], time.monotonic() + 10.0))


def test_a_shard_is_local_where_this_server_owns_it_and_its_copy_is_whole() -> None:
    ring = reads(ThreadedTransport(echo))
    assert [ring.is_local(shard) for shard in range(3)] == [True, False, False]
    assert not reads(ThreadedTransport(echo), is_whole=False).is_local(0)


def test_before_there_is_a_ring_nothing_is_read() -> None:
    with pytest.raises(Unavailable) as error:
        reads(ThreadedTransport(echo), Ring()).is_local(0)
    assert error.value.reason == "RING_NOT_FORMED"
