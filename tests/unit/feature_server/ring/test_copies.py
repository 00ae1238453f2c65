"""Copies: joined from nothing, an owner or what is there; whole before they answer; begun anew after a gap."""

import pytest

from feature_server.domain.log_writes import LogWrite
from feature_server.ring.copies import AskLog, Copies, Join, TakeSnapshot, Wait
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import LogRange, LogRows
from headrace.errors import DataLoss, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch
from tests.simulation.disk import SimStore

SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "a", "b")}
ROWS = LogRows(0, 2, [LogWrite(2, [b"k", b"l"], [b"1", b"2"])])


def ring(epoch: int, *replicas: Replica) -> Ring:
    return Ring(epoch, 2, SERVERS, (RingShard(replicas, epoch, ("me",)),))


def joining(epoch: int, *owners: str) -> Ring:
    return ring(epoch, Replica("me", Phase.JOINING, epoch), *(Replica(owner, Phase.SERVING, 1) for owner in owners))


class Bench:
    """One shard, and a driver by hand."""

    def __init__(self) -> None:
        self.store = SimStore()
        self.held = HeldRing("me", lambda ring: None)
        self.copies = Copies(self.held, [self.store])

    def accept(self, held: Ring) -> list[Join]:
        self.held.accept(held)
        return self.copies.adopt()

    def snapshot(self, next_offset: int) -> None:
        self.store.begin()
        self.store.apply(LogRows(0, next_offset, ROWS.writes))


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_a_shard_that_nobody_serves_is_filled_from_its_log(bench: Bench) -> None:
    (join,) = bench.accept(joining(1))
    assert next(join) == AskLog(0)
    assert join.send(LogRange(0, 2)) == AskLog(0)
    assert isinstance(join.send(LogRange(0, 2)), Wait)
    assert bench.copies.followed() == [0]
    assert bench.copies.ready() == []
    bench.copies.follow(0, ROWS)
    with pytest.raises(StopIteration):
        join.send(None)
    assert bench.copies.ready() == [(0, 1)]
    assert bench.store.rows == {b"k": b"1", b"l": b"2"}


def test_a_shard_with_owners_is_copied_and_then_follows(bench: Bench) -> None:
    (join,) = bench.accept(joining(4, "a"))
    assert next(join) == AskLog(0)
    assert join.send(LogRange(1, 3)) == TakeSnapshot(0, "a")
    bench.snapshot(2)
    assert join.send(None) == AskLog(0)
    assert isinstance(join.send(LogRange(1, 3)), Wait)
    bench.copies.follow(0, LogRows(2, 3, [LogWrite(3, [b"k"], [b"3"])]))
    with pytest.raises(StopIteration):
        join.send(None)
    assert bench.copies.ready() == [(0, 4)]
    assert bench.store.rows == {b"k": b"3", b"l": b"2"}


def test_a_failed_copy_is_tried_again_from_another_owner(bench: Bench) -> None:
    (join,) = bench.accept(joining(4, "a", "b"))
    sources = []
    next(join)
    for _ in range(2):
        step = join.send(LogRange(0, 3))
        assert isinstance(step, TakeSnapshot)
        sources.append(step.source_id)
        assert isinstance(join.send(Unavailable("gone", reason="TRANSPORT")), Wait)
        assert next(join) == AskLog(0)
    assert sorted(sources) == ["a", "b"]


def test_a_trimmed_log_fills_no_shard_that_nobody_serves(bench: Bench) -> None:
    (join,) = bench.accept(joining(1))
    next(join)
    assert isinstance(join.send(LogRange(5, 9)), Wait)
    assert bench.copies.ready() == []


def test_a_copy_of_before_is_brought_up_by_the_log_alone(bench: Bench) -> None:
    bench.store.apply(ROWS)
    bench.store.complete()
    (join,) = bench.accept(joining(7, "a"))
    next(join)
    assert join.send(LogRange(1, 2)) == AskLog(0), "no snapshot"
    with pytest.raises(StopIteration):
        join.send(LogRange(1, 2))
    assert bench.copies.ready() == [(0, 7)]


def test_a_join_of_a_phase_that_is_over_says_nothing_and_the_next_one_begins(bench: Bench) -> None:
    (join,) = bench.accept(joining(1))
    next(join)
    join.send(LogRange(0, 0))
    assert bench.accept(ring(2)) == [], "the join has to end first"
    assert bench.accept(joining(3)) == []
    with pytest.raises(StopIteration):
        join.send(LogRange(0, 0))
    assert bench.copies.ready() == []
    (second,) = bench.copies.adopt()
    assert next(second) == AskLog(0)


def test_a_shard_that_is_not_ours_is_dropped(bench: Bench) -> None:
    bench.store.apply(ROWS)
    bench.store.complete()
    assert bench.copies.adopt() == [] and bench.store.rows, "not before there is a ring"
    bench.accept(ring(2, Replica("a", Phase.SERVING, 1)))
    assert not bench.store.rows and not bench.store.is_complete


def test_a_drop_that_fails_neither_loses_nor_holds_up_the_joins_of_other_shards() -> None:
    class Refusing(SimStore):
        def drop(self) -> None:
            raise Unavailable("the disk refuses", reason="STORAGE_IO")

    held = HeldRing("me", lambda ring: None)
    mine, theirs = Replica("me", Phase.JOINING, 3), Replica("a", Phase.SERVING, 1)
    shards = [RingShard(replicas, 3, ("me",)) for replicas in ((mine,), (theirs,), (mine,))]
    copies = Copies(held, [SimStore(), Refusing(), SimStore()])
    held.accept(Ring(3, 3, SERVERS, tuple(shards)))
    joins = copies.adopt()
    assert len(joins) == 2
    for join in joins:
        assert isinstance(next(join), AskLog)
        assert isinstance(join.send(LogRange(0, 0)), AskLog)
        with pytest.raises(StopIteration):
            join.send(LogRange(0, 0))
    assert copies.ready() == [(0, 3), (2, 3)]
    with pytest.raises(Unavailable):
        copies.adopt()


def test_joins_that_were_never_run_are_given_again(bench: Bench) -> None:
    assert len(bench.accept(joining(1))) == 1
    assert len(bench.copies.adopt()) == 1


def test_a_gap_in_the_log_makes_a_copy_not_whole(bench: Bench) -> None:
    bench.store.apply(ROWS)
    bench.store.complete()
    bench.accept(ring(2, Replica("me", Phase.SERVING, 2)))
    bench.copies.check_read([0], 2)
    with pytest.raises(DataLoss) as error:
        bench.copies.follow(0, LogRows(5, 6, [LogWrite(6, [b"k"], [b"9"])]))
    assert error.value.reason == "LOG_GAP"
    assert bench.store.rows == {b"k": b"1", b"l": b"2"}, "nobody else may have them"
    assert bench.copies.damaged() == [(0, 2)]
    with pytest.raises(DataLoss):
        bench.copies.check_read([0], 2)


def test_a_log_that_does_not_answer_repeats_no_snapshot(bench: Bench) -> None:
    (join,) = bench.accept(joining(1, "a"))
    next(join)
    assert join.send(LogRange(0, 2)) == TakeSnapshot(0, "a")
    bench.snapshot(2)
    assert join.send(None) == AskLog(0)
    assert isinstance(join.send(Unavailable("no broker answers", reason="KAFKA_UNAVAILABLE")), Wait)
    assert join.send(None) == AskLog(0)
    with pytest.raises(StopIteration):
        join.send(LogRange(0, 2))
    assert bench.copies.ready() == [(0, 1)]


def test_a_ready_copy_that_is_not_whole_any_more_is_joined_anew(bench: Bench) -> None:
    (join,) = bench.accept(joining(1))
    next(join)
    join.send(LogRange(0, 0))
    with pytest.raises(StopIteration):
        join.send(LogRange(0, 0))
    assert bench.copies.ready() == [(0, 1)]
    bench.store.begin()
    assert bench.copies.ready() == []
    assert len(bench.copies.adopt()) == 1


def test_what_was_read_from_another_place_of_the_log_changes_nothing(bench: Bench) -> None:
    bench.store.apply(ROWS)
    bench.store.complete()
    bench.accept(ring(2, Replica("me", Phase.SERVING, 2)))
    bench.copies.follow(0, LogRows(1, 3, [LogWrite(3, [b"l", b"k"], [b"2", b"late"])]))
    bench.copies.follow(0, LogRows(2, 2))
    assert (bench.store.next_offset, bench.store.rows[b"k"]) == (2, b"1")


def test_a_joining_copy_answers_nobody(bench: Bench) -> None:
    bench.accept(joining(1))
    with pytest.raises(WrongEpoch):
        bench.copies.check_read([0], 1)
