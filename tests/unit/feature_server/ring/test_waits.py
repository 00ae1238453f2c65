"""Reads across peers that nobody waits for: each ends by its own answers, and at its own deadline."""

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from core_ext.rules import CAUSE_DEADLINE
from feature_server.ring.fan_out import Rows, Send
from feature_server.ring.ring_reads import Pending, RingReads
from feature_server.ring.waits import Waits
from headrace.errors import HeadraceError, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingShard
from tests.unit.feature_server.ring.test_ring_reads import SERVERS, echo, reads

LIMIT_S = 20.0


class HeldTransport:
    """Answers a sub-request when the test wants it; peers in `fast` at once."""

    def __init__(self, fast: str = "") -> None:
        self._fast = fast
        self.held: list[tuple[Send, Callable[[Rows | HeadraceError], None]]] = []

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        if asked.peer in self._fast:
            done(echo(asked))
        else:
            self.held.append((asked, done))

    def answer(self, at: int = 0) -> None:
        asked, done = self.held.pop(at)
        threading.Thread(target=done, args=(echo(asked),)).start()


class Told:
    """What the waits said, in order."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.faults: list[Exception] = []
        self._came = threading.Condition()

    def done(self, name: str, fault: Exception | None) -> None:
        with self._came:
            self.names.append(name)
            self.faults += [fault] if fault is not None else []
            self._came.notify_all()

    def until(self, count: int) -> list[str]:
        with self._came:
            assert self._came.wait_for(lambda: len(self.names) >= count, LIMIT_S)
            return [*self.names]


@pytest.fixture
def waits() -> Iterator[Waits]:
    held = Waits()
    yield held
    held.close()


def begun(ring: RingReads, shard: int, left_s: float = LIMIT_S) -> Pending:
    return ring.begin({shard: [b"k%d" % shard]}, [], time.monotonic() + left_s)


def test_each_read_ends_when_its_own_answers_are_there(waits: Waits) -> None:
    transport, told = HeldTransport(), Told()
    ring = reads(transport)
    asks = [begun(ring, 1), begun(ring, 2), begun(ring, 1)]
    for number, ask in enumerate(asks):
        waits.add([ask], partial(told.done, str(number)))
    transport.answer(1)
    assert told.until(1) == ["1"]
    transport.answer(1)
    assert told.until(2) == ["1", "2"]
    assert asks[1].result().rows == {b"k2": b"row of k2"}
    assert not asks[0].is_over
    transport.answer()
    assert told.until(3)[-1] == "0"


def test_a_read_of_two_sub_requests_waits_for_both(waits: Waits) -> None:
    transport, told = HeldTransport(), Told()
    ring = reads(transport)
    asks = [begun(ring, 1), begun(ring, 2)]
    waits.add(asks, partial(told.done, "both"))
    waits.add([begun(ring, 1)], partial(told.done, "other"))
    transport.answer()
    transport.answer(1)
    assert told.until(1) == ["other"]
    transport.answer()
    assert told.until(2) == ["other", "both"]


def test_an_answer_that_came_before_the_wait_is_taken(waits: Waits) -> None:
    told = Told()
    ask = begun(reads(HeldTransport(fast="ab")), 1)
    waits.add([ask], partial(told.done, "one"))
    assert told.until(1) == ["one"]
    assert ask.result().rows == {b"k1": b"row of k1"}


def test_a_read_ends_at_its_own_deadline_beside_one_that_waits_on(waits: Waits) -> None:
    transport, told = HeldTransport(), Told()
    ring = reads(transport)
    long, short = begun(ring, 1), begun(ring, 2, 0.05)
    waits.add([long], partial(told.done, "long"))
    waits.add([short], partial(told.done, "short"))
    assert told.until(1) == ["short"]
    assert short.result().causes == {b"k2": CAUSE_DEADLINE}
    assert not long.is_over
    transport.answer()
    assert told.until(2) == ["short", "long"]


def test_a_hedge_is_sent_in_time_though_nobody_waits(waits: Waits) -> None:
    shard = RingShard(tuple(Replica(name, Phase.SERVING, 2) for name in ("a", "b")), 2, ())
    ring = reads(transport := HeldTransport(fast="b"), Ring(3, 1, SERVERS, (shard,)))
    ring._fan_out.budget._tokens = 5.0
    ring._fan_out.latencies._by_peer = {"a": 0.0, "b": 0.1}  # so that the one that does not answer is asked first
    told = Told()
    ask = begun(ring, 0)
    waits.add([ask], partial(told.done, "hedged"))
    assert told.until(1) == ["hedged"]
    assert len(transport.held) == 1
    assert (ask.result().rows, ring.hedge_count) == ({b"k0": b"row of k0"}, 1)


def test_a_fault_ends_its_own_read_alone(waits: Waits) -> None:
    transport, told = HeldTransport(), Told()
    ring = reads(transport)
    broken, fine = begun(ring, 1), begun(ring, 2)
    waits.add([broken], partial(told.done, "broken"))
    waits.add([fine], partial(told.done, "fine"))
    _, done = transport.held.pop(0)
    done(Rows([b"one", b"too many"]))
    assert told.until(1) == ["broken"]
    assert [type(fault) for fault in told.faults] == [ValueError]
    transport.answer()
    assert told.until(2) == ["broken", "fine"]


def test_at_the_end_who_waits_is_told_and_nobody_waits_any_more() -> None:
    waits, told, ring = Waits(), Told(), reads(HeldTransport())
    asks = [begun(ring, 1), begun(ring, 2)]
    waits.add(asks[:1], partial(told.done, "before"))
    waits.close()
    waits.add(asks[1:], partial(told.done, "after"))
    assert told.names == ["before", "after"]
    for ask in asks:
        with pytest.raises(Unavailable, match="stopping"):
            ask.result()
