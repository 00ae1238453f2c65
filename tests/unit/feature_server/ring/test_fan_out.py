"""Reads across peers without a thread: what is sent, when, and what comes of every answer."""

from collections.abc import Sequence

import pytest

from core_ext.rules import CAUSE_DEADLINE, CAUSE_QUARANTINED
from feature_server.ring.fan_out import REROUTES_MAX, WAIT_MAX_S, WAIT_S, Await, Came, FanOut, Found, Rows, Send
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.peers import HEDGE_DEFAULT_S, Outliers
from headrace.errors import DataLoss, HeadraceError, InvalidArgument, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch

DEADLINE_S = 1.0
SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "a", "b", "c")}


def shard(*owners: str, epoch: int = 3) -> RingShard:
    return RingShard(tuple(Replica(owner, Phase.SERVING, epoch) for owner in owners), epoch, owners)


def ring(*shards: RingShard, epoch: int = 5) -> Ring:
    return Ring(epoch, 2, SERVERS, shards)


class Bench:
    """Plays the driver: keeps what was sent, moves the clock, and hands answers in."""

    def __init__(self, held: Ring) -> None:
        self.now_s = 0.0
        self.held = HeldRing("me", lambda ring: None, held)
        self.fan_out = FanOut(self.held, Outliers(lambda: self.now_s), lambda: self.now_s)
        self.found = Found()
        self.sent: list[Send] = []
        self.wait_s: float | None = None
        self.answered = 0

    def begin(self, keys: dict[int, Sequence[bytes]], tokens: Sequence[tuple[int, int, int]] = ()) -> None:
        self._read = self.fan_out.read(keys, tokens, DEADLINE_S, self.found)
        self._go(None)

    def answer(self, ask: int, outcome: Rows | HeadraceError) -> None:
        self._go(Came(ask, outcome))

    def wait(self) -> None:
        """Nothing comes until the time that was asked for."""
        assert self.wait_s is not None, "the read has ended"
        self.now_s = self.wait_s
        self._go(None)

    @property
    def is_over(self) -> bool:
        return self.wait_s is None

    def _go(self, came: Came | None) -> None:
        try:
            step = self._read.send(came)
            while isinstance(step, Send):
                self.sent.append(step)
                step = next(self._read)
            assert isinstance(step, Await)
            self.wait_s = step.until_s
        except StopIteration:
            self.wait_s = None


def down() -> Unavailable:
    return Unavailable("not reachable", reason="TRANSPORT")


def test_one_sub_request_goes_to_each_peer_with_all_its_shards() -> None:
    bench = Bench(ring(shard("a"), shard("b", epoch=4), shard("a")))
    bench.begin({0: [b"k0"], 1: [b"k1"], 2: [b"k2"]}, [(2, 1, 9), (1, 1, 8)])
    assert [(sent.peer, sent.keys, sent.ring_epoch, sent.min_offsets) for sent in bench.sent] == [
        ("a", [b"k0", b"k2"], 3, [(2, 1, 9)]),
        ("b", [b"k1"], 4, [(1, 1, 8)]),
    ]
    bench.answer(0, Rows([b"r0", None]))
    assert bench.wait_s is not None
    bench.answer(1, Rows([b"r1"]))
    assert bench.is_over
    assert bench.found.rows == {b"k0": b"r0", b"k2": None, b"k1": b"r1"}
    assert bench.found.causes == {}


def test_a_peer_that_fails_is_replaced_by_the_other_owner() -> None:
    bench = Bench(ring(shard("a", "b")))
    bench.begin({0: [b"k"]})
    bench.answer(0, down())
    assert [sent.peer for sent in bench.sent] == ["a", "b"]
    bench.answer(1, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_a_damaged_copy_is_read_around_and_does_not_make_an_outlier() -> None:
    bench = Bench(ring(shard("a", "b")))
    for _ in range(6):
        bench.found = Found()
        bench.begin({0: [b"k"]})
        assert bench.sent[-1].peer == "a"
        bench.answer(0, DataLoss("not whole", reason="COPY_NOT_WHOLE"))
        assert bench.sent[-1].peer == "b"
        bench.answer(1, Rows([b"r"]))
    assert bench.fan_out.outliers.ejected() == []


def test_without_an_owner_that_answers_the_rows_are_unavailable() -> None:
    bench = Bench(ring(shard("a", "b"), shard()))
    bench.begin({0: [b"k"], 1: [b"lost"]})
    bench.answer(0, down())
    bench.answer(1, down())
    assert bench.is_over
    assert bench.found.causes == {b"k": CAUSE_QUARANTINED, b"lost": CAUSE_QUARANTINED}


def test_rows_that_a_peer_cannot_read_are_asked_of_the_other() -> None:
    bench = Bench(ring(shard("a", "b"), shard("a", "b")))
    bench.begin({0: [b"k"], 1: [b"l"]})
    bench.answer(0, Rows([b"r", None], [1]))
    assert [(sent.peer, sent.keys) for sent in bench.sent[1:]] == [("b", [b"l"])]
    bench.answer(1, Rows([b"s"]))
    assert bench.found.rows == {b"k": b"r", b"l": b"s"}


def test_a_newer_ring_in_a_refusal_is_taken_and_routed_by() -> None:
    bench = Bench(ring(shard("a")))
    bench.begin({0: [b"k"]})
    newer = ring(shard("c", epoch=6), epoch=6)
    bench.answer(0, WrongEpoch("moved", newer, {}))
    assert bench.held.ring == newer
    assert [(sent.peer, sent.ring_epoch) for sent in bench.sent] == [("a", 3), ("c", 6)]
    bench.answer(1, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_a_peer_with_an_older_ring_is_left_for_another_and_is_no_outlier() -> None:
    bench = Bench(ring(shard("a", "b")))
    bench.begin({0: [b"k"]})
    bench.answer(0, WrongEpoch("behind", ring(shard("a"), epoch=2), {}))
    assert [sent.peer for sent in bench.sent] == ["a", "b"]
    assert bench.held.ring.epoch == 5
    bench.answer(1, WrongEpoch("behind", Ring(), {}))
    assert bench.fan_out.outliers.ejected() == []
    assert bench.wait_s == bench.now_s + WAIT_S
    bench.wait()
    assert [sent.peer for sent in bench.sent] == ["a", "b", "a"], "given a moment, it is asked anew"
    bench.answer(2, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_owners_that_never_hear_of_the_ring_are_waited_for_no_longer_than_the_deadline() -> None:
    bench = Bench(ring(shard("a")))
    bench.begin({0: [b"k"]})
    while not bench.is_over:
        if bench.sent and bench.found.sent_count == len(bench.sent) and len(bench.sent) > bench.answered:
            bench.answered += 1
            bench.answer(len(bench.sent) - 1, WrongEpoch("behind", Ring(), {}))
        else:
            bench.wait()
    assert bench.now_s == DEADLINE_S
    assert 1 + DEADLINE_S / WAIT_MAX_S <= len(bench.sent) <= 5 + DEADLINE_S / WAIT_MAX_S, "the waits double"
    assert bench.found.causes == {b"k": CAUSE_DEADLINE}


def test_a_newer_ring_is_followed_however_long_its_owner_was_waited_for() -> None:
    bench = Bench(ring(shard("a")))
    bench.begin({0: [b"k"]})
    for ask in range(REROUTES_MAX + 2):
        bench.answer(ask, WrongEpoch("behind", Ring(), {}))
        bench.wait()
    newer = ring(shard("c", epoch=6), epoch=6)
    bench.answer(REROUTES_MAX + 2, WrongEpoch("moved", newer, {}))
    assert bench.sent[-1].peer == "c"
    bench.answer(len(bench.sent) - 1, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_a_newer_ring_that_came_by_the_watch_is_routed_by_as_well() -> None:
    bench = Bench(ring(shard("a", "b"), shard("a", "b")))
    bench.begin({0: [b"k"], 1: [b"l"]})
    newer = ring(shard("a", epoch=6), shard("a", "b"), epoch=6)
    bench.held.accept(newer)
    bench.answer(0, WrongEpoch("moved", newer, {}))
    assert [(sent.peer, sent.keys, sent.ring_epoch) for sent in bench.sent[1:]] == [("a", [b"k", b"l"], 6)]


def test_a_peer_that_is_behind_is_waited_for_where_the_other_fails() -> None:
    bench = Bench(ring(shard("a", "b")))
    bench.begin({0: [b"k"]})
    bench.answer(0, WrongEpoch("behind", ring(shard("a"), epoch=2), {}))
    bench.answer(1, down())
    bench.wait()
    assert [sent.peer for sent in bench.sent] == ["a", "b", "a"]
    bench.answer(2, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_rings_that_change_without_end_do_not_hold_a_read() -> None:
    bench = Bench(ring(shard("a")))
    bench.begin({0: [b"k"]})
    epoch = 5
    while not bench.is_over:
        if len(bench.sent) > bench.answered:
            bench.answered, epoch = len(bench.sent), epoch + 1
            bench.answer(bench.answered - 1, WrongEpoch("moved", ring(shard("a", epoch=epoch), epoch=epoch), {}))
        else:
            assert len(bench.sent) > REROUTES_MAX, "the first rings are followed at once"
            bench.wait()
    assert bench.now_s == DEADLINE_S
    assert len(bench.sent) <= REROUTES_MAX + 6 + DEADLINE_S / WAIT_MAX_S
    assert bench.found.causes == {b"k": CAUSE_DEADLINE}


def test_at_the_deadline_what_has_not_come_says_so() -> None:
    bench = Bench(ring(shard("a"), shard("b")))
    bench.begin({0: [b"k"], 1: [b"l"]})
    bench.answer(1, Rows([b"s"]))
    while not bench.is_over:
        bench.wait()
    assert bench.now_s == DEADLINE_S
    assert bench.found.rows == {b"l": b"s"}
    assert bench.found.causes == {b"k": CAUSE_DEADLINE}


def test_a_mistake_of_the_caller_is_not_asked_of_others() -> None:
    bench = Bench(ring(shard("a", "b")))
    bench.begin({0: [b"k"]})
    bench.answer(0, InvalidArgument("bad key", reason="BAD_STORAGE_KEY"))
    assert bench.is_over
    assert len(bench.sent) == 1
    assert bench.found.refusal is not None and bench.found.refusal.reason == "BAD_STORAGE_KEY"


def earned(bench: Bench) -> None:
    for _ in range(20):
        bench.fan_out.budget.earn()


def test_a_slow_peer_is_hedged_once_and_the_first_answer_counts() -> None:
    bench = Bench(ring(shard("a", "b")))
    earned(bench)
    bench.begin({0: [b"k"]})
    assert bench.wait_s == HEDGE_DEFAULT_S
    bench.wait()
    assert [sent.peer for sent in bench.sent] == ["a", "b"]
    bench.answer(1, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}
    assert (bench.found.sent_count, bench.found.hedge_count) == (2, 1)


def test_a_hedge_that_fails_leaves_the_first_to_answer() -> None:
    bench = Bench(ring(shard("a", "b", "c")))
    earned(bench)
    bench.begin({0: [b"k"]})
    bench.wait()
    bench.answer(1, down())
    assert len(bench.sent) == 2
    bench.answer(0, Rows([b"r"]))
    assert bench.is_over and bench.found.rows == {b"k": b"r"}


def test_without_budget_or_another_owner_nothing_is_hedged() -> None:
    for held, has_budget in ((ring(shard("a", "b")), False), (ring(shard("a", "me")), True)):
        bench = Bench(held)
        if has_budget:
            earned(bench)
        bench.begin({0: [b"k"]})
        bench.wait()
        assert len(bench.sent) == 1
        assert bench.wait_s == DEADLINE_S


def test_hedges_are_one_in_twenty_at_most() -> None:
    bench = Bench(ring(shard("a", "b")))
    hedges = 0
    for _ in range(400):
        bench.found = Found()
        first = len(bench.sent)
        bench.now_s = 0.0
        bench.begin({0: [b"k"]})
        bench.wait()
        bench.answer(0, Rows([b"r"]))
        hedges += len(bench.sent) - first - 1
    assert 15 <= hedges <= 20


def test_peers_that_fail_in_a_row_are_asked_last_for_a_while() -> None:
    bench = Bench(ring(shard("a", "b")))
    for _ in range(5):
        bench.fan_out.outliers.failed("a")
    assert bench.fan_out.order(0, (), bench.held.ring) == ["b", "a"]
    bench.now_s = 29.9
    assert bench.fan_out.order(0, (), bench.held.ring) == ["b", "a"]
    bench.now_s = 30.1
    assert bench.fan_out.order(0, (), bench.held.ring) == ["a", "b"]
    for _ in range(5):
        bench.fan_out.outliers.failed("a")
    bench.now_s = 30.1 + 59.0
    assert bench.fan_out.outliers.is_ejected("a"), "the second time lasts twice as long"


def test_an_ejected_peer_is_still_asked_where_it_is_the_only_owner() -> None:
    bench = Bench(ring(shard("a")))
    for _ in range(5):
        bench.fan_out.outliers.failed("a")
    bench.begin({0: [b"k"]})
    assert [sent.peer for sent in bench.sent] == ["a"]


def test_the_sooner_owner_is_asked_first_and_never_the_server_itself() -> None:
    bench = Bench(ring(shard("me", "a", "b")))
    for peer, latency_s in (("a", 0.02), ("b", 0.01)):
        bench.fan_out.latencies.note(peer, latency_s)
    assert bench.fan_out.order(0, (), bench.held.ring) == ["b", "a"]


@pytest.mark.parametrize("count", [20, 100, 1_000])
def test_a_hedge_waits_for_the_slowest_twentieth(count: int) -> None:
    latencies = Bench(ring()).fan_out.latencies
    for number in range(count):
        latencies.note("a", 0.001 * (1 + number % 20))
    assert latencies.slow_s == pytest.approx(0.019)
