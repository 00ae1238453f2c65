"""An owner gives its shard to who joins it, and to nobody else; it takes no writes until the ring is at rest."""

from collections.abc import Iterator

import pytest

from feature_server.domain.shard_writes import Durability
from feature_server.domain.write_columns import read_ipc
from feature_server.ring.copies import Copies
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.shard_copy import ShardCopy
from feature_server.ring.shard_snapshots import COPIES_AT_ONCE, ShardSnapshots
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd
from feature_server.storage.marks import FileMark
from feature_server.storage.snapshot_folders import SENT_PREFIX, SentFolders
from headrace.errors import DataLoss, InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard, WrongEpoch
from headrace.serving.principal import Principal
from tests.unit.feature_server.parts import PRINCIPAL, VIEW, Parts, ipc, shop_batch

SERVERS = {name: RingServer(name, f"{name}:1") for name in ("me", "new")}
MINE = Replica("me", Phase.SERVING, 2)
JOINING = ("new", 5)


def ring(epoch: int, *replicas: Replica) -> Ring:
    return Ring(epoch, 1, SERVERS, (RingShard(replicas, 2, ("me",)), RingShard((MINE,), 2, ("me",))))


MOVING = ring(5, MINE, Replica("new", Phase.JOINING, 5))


class Owner:
    """A server that owns both of its shards."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.held = HeldRing("me", lambda ring: None, ring(4, MINE))
        self.copies = [
            ShardCopy(shard, FileMark(parts.folder / f"copy-{shard.number}")) for shard in parts.shards.shards
        ]
        for copy in self.copies:
            copy.complete()
        copies = Copies(self.held, self.copies)
        self.snapshots = ShardSnapshots(parts.shards, self.held, copies, SentFolders(parts.folder))

    def accept(self, held: Ring) -> None:
        self.held.accept(held)
        self.snapshots.thaw()

    def read(self, joining: tuple[str, int] = JOINING, epoch: int = 2) -> Iterator[SnapshotChunk | SnapshotEnd]:
        return self.snapshots.read(0, epoch, joining, 0, PRINCIPAL)

    def write(self, shard: int) -> None:
        batch = ipc(shop_batch(self.parts.keys_on(shard, 3)))
        self.parts.writes.write(VIEW, lambda target: read_ipc(batch), Durability.LOG, ("", 0), PRINCIPAL)


@pytest.fixture
def owner(parts: Parts) -> Owner:
    made = Owner(parts)
    made.write(0)
    return made


def test_who_joins_is_given_all_rows_and_the_shard_holds_still_until_the_ring_is_at_rest(owner: Owner) -> None:
    owner.accept(MOVING)
    *chunks, end = owner.read()
    assert isinstance(end, SnapshotEnd) and end.next_offset == 3
    assert {type(chunk) for chunk in chunks} == {SnapshotChunk}
    assert not list(owner.parts.folder.glob(f"{SENT_PREFIX}*"))
    with pytest.raises(Unavailable) as error:
        owner.write(0)
    assert error.value.reason == "SHARD_MOVING"
    owner.write(1)
    owner.accept(ring(6, MINE))
    owner.write(0)


def test_a_shard_that_another_server_serves_stays_frozen_until_it_comes_back(owner: Owner) -> None:
    owner.accept(MOVING)
    list(owner.read())
    owner.accept(ring(6, Replica("new", Phase.SERVING, 5)))
    with pytest.raises(Unavailable) as error:
        owner.write(0)
    assert error.value.reason == "SHARD_MOVING"
    owner.write(1)
    owner.accept(ring(7, Replica("me", Phase.SERVING, 7)))
    owner.write(0)


@pytest.mark.parametrize("joining", [("new", 4), ("new", 6), ("me", 5), ("other", 5)])
def test_who_does_not_join_is_given_nothing(owner: Owner, joining: tuple[str, int]) -> None:
    owner.accept(MOVING)
    with pytest.raises(WrongEpoch):
        next(owner.read(joining))


def test_an_owner_that_has_not_heard_of_the_join_gives_nothing_and_goes_on(owner: Owner) -> None:
    with pytest.raises(WrongEpoch):
        next(owner.read())
    owner.write(0)


def test_another_owners_epoch_is_refused(owner: Owner) -> None:
    owner.accept(MOVING)
    with pytest.raises(WrongEpoch):
        next(owner.read(epoch=1))
    owner.write(0)


def test_a_copy_that_is_not_whole_is_given_to_nobody(owner: Owner) -> None:
    owner.accept(MOVING)
    owner.parts.shards[0].quarantine(DataLoss("rotten", reason="STORED_ROW_CORRUPT"))
    with pytest.raises(DataLoss):
        next(owner.read())


def test_a_reader_that_leaves_frees_its_place_and_leaves_no_files(owner: Owner) -> None:
    owner.accept(MOVING)
    for _ in range(COPIES_AT_ONCE + 2):
        reading = owner.read()
        next(reading)
        reading.close()  # type: ignore[attr-defined]
    assert not list(owner.parts.folder.glob(f"{SENT_PREFIX}*"))


def test_more_readers_than_places_are_told_to_come_back(owner: Owner) -> None:
    owner.accept(MOVING)
    open_readings = [owner.read() for _ in range(COPIES_AT_ONCE)]
    for reading in open_readings:
        next(reading)
    with pytest.raises(ResourceExhausted):
        next(owner.read())
    for reading in open_readings:
        reading.close()  # type: ignore[attr-defined]


def test_strangers_and_unknown_shards_are_refused(owner: Owner) -> None:
    with pytest.raises(PermissionDenied):
        next(owner.snapshots.read(0, 2, JOINING, 0, Principal("eve", frozenset())))
    with pytest.raises(InvalidArgument):
        next(owner.snapshots.read(7, 2, JOINING, 0, PRINCIPAL))
