"""The next ring: what follows from the ring before and what is known of its servers. Pure, so that it can be simulated.

A shard changes hands in steps, each of them an epoch: the server that shall have it JOINs; once it says that it is
ready, in that very phase, it SERVEs; once all that shall serve do, the others are LEAVING; once every live server holds
that epoch and those that replace them are whole still, they are gone, else they SERVE again. So the owners of a shard
never become fewer because it moves.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from control_plane.domain.ring.placement import place
from headrace.ring.values import Phase, Replica, Ring, RingServer, RingShard

JOINS_PER_SERVER_MAX: Final = 4  # shards that one server copies at a time, so that reads keep most of its disk


class Report(NamedTuple):
    """What a server says of one of its copies: ready or damaged, in the phase that it entered in an epoch."""

    shard: int
    server_id: str
    phase_epoch: int


@dataclass(frozen=True, slots=True)
class Known:
    """What the control plane knows of servers: whose lease holds, who is given up, what they said."""

    live: frozenset[str] = frozenset()
    lost: frozenset[str] = frozenset()
    ready: frozenset[Report] = frozenset()
    damaged: frozenset[Report] = frozenset()
    held_epochs: Mapping[str, int] = field(default_factory=dict)


def formed(servers: Sequence[RingServer], shard_count: int, replica_count: int, ring_id: str = "") -> Ring:
    """The first ring of servers that hold nothing yet: all of them join, no one has rows to copy from."""
    by_id = {server.server_id: server for server in servers}
    targets = place(servers, shard_count, replica_count)
    shards = tuple(RingShard(_joining(target, 1), 0, target) for target in targets)
    return Ring(1, replica_count, by_id, shards, ring_id)


def next_ring(ring: Ring, servers: Mapping[str, RingServer], known: Known) -> Ring:
    """The ring after this one, or the same where nothing is to be done. `servers` are those that shall be in it."""
    epoch = ring.epoch + 1
    targets = _targets(ring, servers, known)
    joins: dict[str, int] = {}
    for shard in ring.shards:
        for replica in shard.replicas:
            if replica.phase is Phase.JOINING:
                joins[replica.server_id] = joins.get(replica.server_id, 0) + 1
    shards = tuple(
        _Step(number, shard, target, epoch, known, joins).taken()
        for number, (shard, target) in enumerate(zip(ring.shards, targets, strict=True))
    )
    holders = {replica.server_id for shard in shards for replica in shard.replicas}
    kept = {
        server_id: server
        for server_id, server in servers.items()
        if server_id in holders or (server_id not in known.lost and not server.is_draining)
    }
    after = replace(ring, servers=kept, shards=shards)
    return ring if after == ring else replace(after, epoch=epoch)


def _targets(ring: Ring, servers: Mapping[str, RingServer], known: Known) -> Sequence[tuple[str, ...]]:
    eligible = [server for server in servers.values() if not server.is_draining and server.server_id not in known.lost]
    held = [shard.target for shard in ring.shards]
    # Nobody to move to: what is placed stays placed.
    return place(eligible, len(ring.shards), ring.replica_count, held) if eligible else held


class _Step:
    """One shard on its way into the next epoch."""

    def __init__(  # noqa: PLR0917 - every one is a different thing that the step follows from
        self,
        number: int,
        shard: RingShard,
        target: tuple[str, ...],
        epoch: int,
        known: Known,
        joins: dict[str, int],
    ) -> None:
        self._number = number
        self._shard = shard
        self._target = target
        self._epoch = epoch
        self._known = known
        self._joins = joins  # of all shards, counted on
        self._damaged = {report.server_id for report in known.damaged if report.shard == number}

    def taken(self) -> RingShard:
        """The shard after the step."""
        replicas = [replica for replica in map(self._heard, self._shard.replicas) if not self._is_gone(replica)]
        serving = {replica.server_id for replica in replicas if replica.phase is Phase.SERVING}
        held = {replica.server_id for replica in replicas}
        replicas += [
            Replica(server_id, Phase.JOINING, self._epoch)
            for server_id in self._target
            if server_id not in held and self._may_join(server_id, is_urgent=not serving)
        ]
        if set(self._target) <= (serving & self._known.live) - self._damaged:
            replicas = [self._leaving(replica) for replica in replicas]
        owners = {replica.server_id for replica in replicas if replica.phase is Phase.SERVING}
        is_same = owners == set(self._shard.owners)
        owners_epoch = self._shard.owners_epoch if is_same else self._epoch
        return RingShard(tuple(replicas), owners_epoch, self._target)

    def _heard(self, replica: Replica) -> Replica:
        report = Report(self._number, replica.server_id, replica.phase_epoch)
        is_ready = report in self._known.ready and replica.server_id in self._known.live
        if replica.phase is Phase.JOINING and is_ready:
            return self._as(replica, Phase.SERVING)
        if replica.phase is Phase.SERVING and report in self._known.damaged and self._has_other_owner(replica):
            return self._as(replica, Phase.JOINING)
        if replica.phase is Phase.LEAVING and (replica.server_id in self._target or not self._is_replaced()):
            return self._as(replica, Phase.SERVING)  # it has followed the log all the while
        return replica

    def _is_gone(self, replica: Replica) -> bool:
        if replica.phase is Phase.JOINING:
            return replica.server_id not in self._target
        if replica.phase is Phase.SERVING:
            return False
        # The same heartbeat says that a server holds this epoch, and that its copy is whole still.
        held = self._known.held_epochs
        waited = self._known.live.union(self._target)
        return self._is_replaced() and all(held.get(server_id, 0) >= replica.phase_epoch for server_id in waited)

    def _is_replaced(self) -> bool:
        """Whether all that shall serve the shard do, and none of them said that its copy is damaged."""
        return set(self._target) <= set(self._shard.owners) - self._damaged

    def _may_join(self, server_id: str, *, is_urgent: bool) -> bool:
        join_count = self._joins.get(server_id, 0)
        if join_count >= JOINS_PER_SERVER_MAX and not is_urgent:
            return False
        self._joins[server_id] = join_count + 1
        return True

    def _leaving(self, replica: Replica) -> Replica:
        is_over = replica.phase is Phase.SERVING and replica.server_id not in self._target
        return self._as(replica, Phase.LEAVING) if is_over else replica

    def _has_other_owner(self, replica: Replica) -> bool:
        others = set(self._shard.owners) & self._known.live
        return bool(others - self._damaged - {replica.server_id})

    def _as(self, replica: Replica, phase: Phase) -> Replica:
        return Replica(replica.server_id, phase, self._epoch)


def _joining(target: Sequence[str], epoch: int) -> tuple[Replica, ...]:
    return tuple(Replica(server_id, Phase.JOINING, epoch) for server_id in target)
