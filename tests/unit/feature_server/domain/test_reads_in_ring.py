"""Reads of a server in a ring: of shards that others have, and of those that move while they are read."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from core_ext import rules
from feature_server.domain.peer_reads import PeerReads
from feature_server.domain.reads import Reads
from feature_server.ring.copies import Copies
from feature_server.ring.fan_out import FanOut, Rows, Send
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.peers import Outliers
from feature_server.ring.ring_reads import RingReads
from headrace.errors import FailedPrecondition, HeadraceError
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch
from protos.feature.v1 import online_feature_service_pb2 as pb
from tests.simulation.disk import SimStore
from tests.unit.feature_server.domain.test_reads import ages, request, write
from tests.unit.feature_server.parts import PRINCIPAL, Parts

SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "a", "b")}


def ring_of(epoch: int, *owners: Sequence[str]) -> Ring:
    """A ring of a shard for each of these sets of owners."""
    shards = (RingShard(tuple(Replica(name, Phase.SERVING, epoch) for name in names), epoch, ()) for names in owners)
    return Ring(epoch, 1, SERVERS, tuple(shards))


class OtherServer:
    """Answers for all peers, by the shards of other parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def send(self, asked: Send, timeout_s: float, done: Callable[[Rows | HeadraceError], None]) -> None:
        shards = (self._parts.shards[self._shard(key)] for key in asked.keys)
        done(Rows([shard.read([key])[0] for shard, key in zip(shards, asked.keys, strict=True)]))

    def _shard(self, key: bytes) -> int:
        found = [shard.number for shard in self._parts.shards.shards if shard.read([key])[0] is not None]
        return found[0] if found else 0


def peers_of(other: Parts, held: HeldRing, transport: OtherServer | None = None) -> RingReads:
    """What a ring gives to reads of a server whose copies are whole."""
    stores = [SimStore() for _ in other.shards.shards]
    for store in stores:
        store.complete()
    fan_out = FanOut(held, Outliers(time.monotonic), time.monotonic)
    return RingReads(held, Copies(held, stores), fan_out, transport or OtherServer(other))


def ringed(parts: Parts, other: Parts, held: HeldRing) -> Reads:
    """Reads of a server in a ring, all of whose peers have the rows of other parts."""
    return Reads(parts.core, parts.table, parts.shards, parts.catalogue, parts.clock, peers_of(other, held))


def test_rows_of_a_shard_that_moves_while_it_is_read_come_from_its_new_owner(parts: Parts, tmp_path: Path) -> None:
    other = Parts(tmp_path / "other", store_id="other")
    write(parts, [1], 40)
    write(other, [1], 41)
    shard = parts.shard_of(1)
    held = HeldRing("me", lambda ring: None, ring_of(3, ["me"], ["me"]))
    reads = ringed(parts, other, held)

    def move(keys: Sequence[bytes]) -> None:
        held.accept(ring_of(4, ["a"], ["a"]))

    parts.faults[shard].after_read = move
    answer = pb.GetOnlineFeaturesResponse.FromString(reads.get(PRINCIPAL, request([1]), lambda: None))
    assert held.ring.epoch == 4
    assert (ages(answer), answer.columns[0].statuses) == ([41], bytes([rules.PRESENT]))
    assert parts.table.stats()["entity_count"] == 0
    other.close()


def test_a_peer_is_not_answered_of_a_shard_that_moves_while_it_is_read(parts: Parts) -> None:
    write(parts, [1], 40)
    shard = parts.shard_of(1)
    held = HeldRing("me", lambda ring: None, ring_of(3, ["me"], ["me"]))
    answers = PeerReads(parts.reads, parts.shards, ring=peers_of(parts, held))
    (key,) = [key for key, _ in parts.shards[shard].scan(bytes([0, 0, 0, 1]), 10)]
    rows, unavailable = answers.rows([key], 3, [], time.monotonic() + 10.0, PRINCIPAL)
    assert (rows, unavailable) == (parts.shards[shard].read([key]), [])

    def move(keys: Sequence[bytes]) -> None:
        held.accept(ring_of(4, ["a"], ["a"]))

    parts.faults[shard].after_read = move
    with pytest.raises(WrongEpoch):
        answers.rows([key], 3, [], time.monotonic() + 10.0, PRINCIPAL)


def test_a_shard_of_other_servers_is_not_here_and_its_owners_are_named(parts: Parts) -> None:
    held = HeldRing("me", lambda ring: None, ring_of(3, ["me", "a"], ["a", "b"]))
    reads = ringed(parts, parts, held)
    reads.check_here(0)
    with pytest.raises(FailedPrecondition) as caught:
        reads.check_here(1)
    assert caught.value.reason == "SHARD_ELSEWHERE"
    assert caught.value.metadata == {"shard": "1", "servers": "a:1,b:1"}
    held.accept(ring_of(4, [], []))
    with pytest.raises(FailedPrecondition, match="none serves it now"):
        reads.check_here(0)
