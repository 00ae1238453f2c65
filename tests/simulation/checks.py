"""What must hold in every schedule, whatever went wrong."""

from headrace.ring.values import Phase, Ring, RingShard
from tests.simulation.log import SimLog
from tests.simulation.servers import Server


class Violation(AssertionError):
    """An invariant does not hold; the message says which."""


class Checks:
    """Judges every ring, every answer and the end."""

    def __init__(self, log: SimLog, servers: dict[str, Server], replica_count: int) -> None:
        self._log = log
        self._servers = servers
        self._replica_count = replica_count
        self._rings: dict[int, Ring] = {}
        self._held: dict[str, int] = {}
        self.read_count = 0

    def ring_made(self, before: Ring, ring: Ring) -> None:
        """Epochs follow each other, and no shard loses its last whole owner."""
        if ring.epoch != before.epoch + 1:
            raise Violation(f"epoch {ring.epoch} follows {before.epoch}")
        self.ring_seen(ring)
        for number, (old, new) in enumerate(zip(before.shards, ring.shards, strict=False)):
            if len({replica.server_id for replica in new.replicas}) != len(new.replicas):
                raise Violation(f"shard {number} has two copies on one server in epoch {ring.epoch}")
            if set(old.owners) != set(new.owners) and new.owners_epoch != ring.epoch:
                raise Violation(f"shard {number} has other owners in epoch {ring.epoch} and the owners epoch of before")
            if self._whole(number, _answering(old)) and not self._whole(number, _answering(new)):
                raise Violation(f"shard {number} loses its last whole owner in epoch {ring.epoch}")
            self._keeps_its_owners(number, before, ring)

    def _keeps_its_owners(self, number: int, before: Ring, ring: Ring) -> None:
        old, new = before.shards[number], ring.shards[number]
        left = [
            server_id
            for server_id in old.owners
            if server_id not in new.owners and (copy := new.of(server_id)) is not None and copy.phase is Phase.LEAVING
        ]
        gone = [
            server_id for server_id in old.owners if new.of(server_id) is None and self._whole(number, (server_id,))
        ]
        if gone:
            raise Violation(f"shard {number}: {gone} owned it and are gone at once in epoch {ring.epoch}")
        if left and not set(new.target) <= set(new.owners):
            raise Violation(f"shard {number}: {left} leave before {new.target} own it in epoch {ring.epoch}")

    def ring_seen(self, ring: Ring) -> None:
        """One epoch has one ring, wherever it is seen."""
        if self._rings.setdefault(ring.epoch, ring) != ring:
            raise Violation(f"epoch {ring.epoch} has two rings")

    def ring_held(self, server_id: str, ring: Ring) -> None:
        """A server never goes back, not even by a crash."""
        self.ring_seen(ring)
        if ring.epoch < self._held.get(server_id, 0):
            raise Violation(f"{server_id} goes back from epoch {self._held[server_id]} to {ring.epoch}")
        self._held[server_id] = ring.epoch

    def answered(self, server: Server, shard: int, asked_by: Ring, key: bytes, row: bytes | None, at: int) -> None:
        """An answer holds exactly the log up to the offset of the copy, between parties that mean the same owners."""
        self.read_count += 1
        held = server.held.ring.shards[shard]
        copy = held.of(server.name)
        is_leaving = copy is not None and copy.phase is Phase.LEAVING
        if not is_leaving and set(held.owners) != set(asked_by.shards[shard].owners):
            raise Violation(f"{server.name} answers for shard {shard} by other owners than the caller's")
        expected = self._log.fold(shard, at).get(key)
        if row != expected:
            raise Violation(f"{server.name} answers {row!r} of shard {shard} at {at}, and the log says {expected!r}")

    def ended(self, ring: Ring, tokens: dict[int, int]) -> None:
        """Healed and left alone for long enough, everything has arrived where it belongs."""
        wanted = min(self._replica_count, sum(not server.is_draining for server in ring.servers.values()))
        for number, shard in enumerate(ring.shards):
            if len(shard.owners) != wanted or len(shard.replicas) != wanted:
                raise Violation(f"shard {number} does not come to rest: {shard}")
            for server_id in shard.owners:
                store = self._servers[server_id].machine.stores[number]
                if not store.is_complete or store.next_offset <= tokens.get(number, -1):
                    raise Violation(f"{server_id} has shard {number} up to {store.next_offset}, not {tokens[number]}")
                if store.rows != self._log.fold(number, store.next_offset):
                    raise Violation(f"{server_id} has other rows of shard {number} than its log")

    def _whole(self, shard: int, owners: tuple[str, ...]) -> bool:
        return any(self._servers[server_id].machine.stores[shard].is_complete for server_id in owners)


def _answering(shard: RingShard) -> tuple[str, ...]:
    return tuple(replica.server_id for replica in shard.replicas if replica.phase is not Phase.JOINING)
