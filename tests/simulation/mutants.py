"""Faults planted into the production classes: each has to be caught within 1,000 seeds."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Final
from unittest.mock import patch

from control_plane.domain.ring import keeper, steps
from control_plane.domain.ring.leases import Leases
from control_plane.domain.ring.steps import Known
from feature_server.ring.copies import AskLog, Copies, Join
from feature_server.ring.fan_out import _Reading
from feature_server.ring.held_ring import HeldRing
from feature_server.ring.log import LogRows
from feature_server.ring.snapshot import SnapshotChunk, SnapshotEnd, SnapshotIntake, digest_after
from headrace.ring.values import Phase, Replica, Ring
from tests.simulation.control import SimRingStore

Mutant = Callable[[], AbstractContextManager[None]]


def _replacing(target: object, name: str, value: Any) -> Mutant:  # Any: whatever stands at the name
    @contextmanager
    def planted() -> Iterator[None]:
        with patch.object(target, name, value):
            yield

    return planted


# The ring that is held.


def _accept_any(self: HeldRing, ring: Ring) -> bool:
    self._keep(ring)
    self.ring = ring
    return True


def _accept_unkept(self: HeldRing, ring: Ring) -> bool:
    if ring.epoch <= self.ring.epoch:
        return False
    self.ring = ring
    return True


def _check_ownership_only(self: HeldRing, shards: list[int], epoch: int) -> None:
    for shard in shards:
        if self.phase(shard) is None:
            HELD_CHECK(self, [shard], epoch)


def _check_stale_epochs(self: HeldRing, shards: list[int], epoch: int) -> None:
    for shard in shards:
        if self.phase(shard) is not Phase.SERVING:
            HELD_CHECK(self, [shard], epoch)


def _check_nothing(self: HeldRing, shards: list[int], epoch: int) -> None:
    return None


HELD_CHECK: Final = HeldRing.check


# Copies.


def _follow_over_gaps(self: Copies, shard: int, log_rows: LogRows) -> None:
    if shard in self.followed() and log_rows.next_offset > self._stores[shard].next_offset:
        self._stores[shard].apply(log_rows)


def _follow_late_answers(self: Copies, shard: int, log_rows: LogRows) -> None:
    if shard in self.followed() and log_rows.first_offset <= self._stores[shard].next_offset:
        self._stores[shard].apply(log_rows)


def _follow_offset_only(self: Copies, shard: int, log_rows: LogRows) -> None:
    # The offset before the data: a batch of which the rows are lost on the way.
    if len(log_rows.writes) > 1:
        log_rows = LogRows(log_rows.first_offset, log_rows.next_offset, log_rows.writes[:-1])
    FOLLOW(self, shard, log_rows)


def _fill_from_nothing(self: Copies, shard: int, replica: Replica) -> Join:
    yield AskLog(shard)
    if not self._stores[shard].is_complete:
        self._stores[shard].begin()


def _ready_without_catching_up(self: Copies, shard: int, replica: Replica) -> Join:
    yield AskLog(shard)
    self._stores[shard].complete()
    self._joined[shard] = replica.phase_epoch


def _ready_for_any_phase(self: Copies) -> list[tuple[int, int]]:
    return [(shard, 0) for shard in range(len(self._stores)) if self._stores[shard].is_complete]


def _check_ring_only(self: Copies, shards: list[int], epoch: int) -> None:
    self._held.check(shards, epoch)


def _never_damaged(self: Copies) -> list[tuple[int, int]]:
    return []


def _drop_nothing_wanted(self: Copies) -> list[Join]:
    begun = ADOPT(self)
    for shard, store in enumerate(self._stores):
        if self._held.phase(shard) is Phase.LEAVING:
            store.drop()
    return begun


def _take_unchecked(self: SnapshotIntake, chunk: SnapshotChunk) -> None:
    self._digest = digest_after(self._digest, chunk)
    self._sink.write(chunk)


def _finish_unchecked(self: SnapshotIntake, end: SnapshotEnd) -> None:
    self._sink.install(end)


def _finish_ahead(self: SnapshotIntake, end: SnapshotEnd) -> None:
    FINISH(self, end._replace(next_offset=end.next_offset + 1))


FOLLOW: Final = Copies.follow
ADOPT: Final = Copies.adopt
FINISH: Final = SnapshotIntake.finish


# Reads across peers.


def _failed_for_good(self: Any, part: Any, peer: str, error: Exception) -> Any:
    part.is_done = True
    yield from ()


def _routed_by_no_epoch(self: HeldRing, shards: Any) -> int:
    return 0


# Steps of the ring.


def _heard_ready_at_once(self: Any, replica: Replica) -> Replica:
    heard = HEARD(self, replica)
    return STEP_AS(self, replica, Phase.SERVING) if heard.phase is Phase.JOINING else heard


def _heard_any_epoch(self: Any, replica: Replica) -> Replica:
    is_ready = any(
        (report.shard, report.server_id) == (self._number, replica.server_id) for report in self._known.ready
    )
    if replica.phase is Phase.JOINING and is_ready:
        return STEP_AS(self, replica, Phase.SERVING)
    return HEARD(self, replica)


def _leaving_at_once(self: Any, replica: Replica) -> Replica:
    return replica


def _gone_when_lost(self: Any, replica: Replica) -> bool:
    return replica.server_id in self._known.lost or IS_GONE(self, replica)


def _lease_lives_for_ever(self: Leases) -> frozenset[str]:
    return frozenset(self._ends_s)


def _never_lost(self: Leases) -> frozenset[str]:
    return frozenset()


def _append_unfenced(self: SimRingStore, ring: Ring, cause: str) -> None:
    before = self.rings[-1]
    self.rings.append(ring)
    self._on_append(before, ring)


def _same_owners_epoch(ring: Ring, servers: Any, known: Known) -> Ring:
    after = NEXT(ring, servers, known)
    shards = tuple(
        type(new)(new.replicas, old.owners_epoch or new.owners_epoch, new.target)
        for old, new in zip(ring.shards, after.shards, strict=True)
    )
    return type(after)(after.epoch, after.replica_count, after.servers, shards, after.ring_id)


def _skipped_epoch(ring: Ring, servers: Any, known: Known) -> Ring:
    after = NEXT(ring, servers, known)
    return ring if after is ring else dataclasses.replace(after, epoch=ring.epoch + 2)


HEARD: Final = steps._Step._heard
STEP_AS: Final = steps._Step._as
IS_GONE: Final = steps._Step._is_gone
NEXT: Final = steps.next_ring

MUTANTS: Final[Mapping[str, Mutant]] = {
    "older_ring_accepted": _replacing(HeldRing, "accept", _accept_any),
    "ring_not_kept": _replacing(HeldRing, "accept", _accept_unkept),
    "epoch_ignored": _replacing(HeldRing, "check", _check_ownership_only),
    "stale_epoch_accepted": _replacing(HeldRing, "check", _check_stale_epochs),
    "ownership_ignored": _replacing(HeldRing, "check", _check_nothing),
    "gap_applied": _replacing(Copies, "follow", _follow_over_gaps),
    "late_answer_applied": _replacing(Copies, "follow", _follow_late_answers),
    "offset_before_data": _replacing(Copies, "follow", _follow_offset_only),
    "filled_from_nothing": _replacing(Copies, "_fill", _fill_from_nothing),
    "ready_before_caught_up": _replacing(Copies, "_catch_up", _ready_without_catching_up),
    "ready_of_no_phase": _replacing(Copies, "ready", _ready_for_any_phase),
    "copy_not_checked": _replacing(Copies, "check_read", _check_ring_only),
    "damage_not_told": _replacing(Copies, "damaged", _never_damaged),
    "leaving_copy_dropped": _replacing(Copies, "adopt", _drop_nothing_wanted),
    "chunk_not_checked": _replacing(SnapshotIntake, "take", _take_unchecked),
    "end_not_checked": _replacing(SnapshotIntake, "finish", _finish_unchecked),
    "snapshot_offset_ahead": _replacing(SnapshotIntake, "finish", _finish_ahead),
    "failed_peer_not_replaced": _replacing(_Reading, "_failed", _failed_for_good),
    "routed_by_no_epoch": _replacing(HeldRing, "owners_epoch", _routed_by_no_epoch),
    "joining_serves": _replacing(steps._Step, "_heard", _heard_ready_at_once),
    "ready_of_another_epoch": _replacing(steps._Step, "_heard", _heard_any_epoch),
    "nobody_leaves": _replacing(steps._Step, "_leaving", _leaving_at_once),
    "lost_copy_gone_at_once": _replacing(steps._Step, "_is_gone", _gone_when_lost),
    "lease_never_ends": _replacing(Leases, "live", _lease_lives_for_ever),
    "lost_never_replaced": _replacing(Leases, "lost", _never_lost),
    "store_not_fenced": _replacing(SimRingStore, "append", _append_unfenced),
    "owners_epoch_kept": _replacing(keeper, "next_ring", _same_owners_epoch),
    "epoch_skipped": _replacing(keeper, "next_ring", _skipped_epoch),
}
