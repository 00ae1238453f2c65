"""The ring of a deployment: takes joins and heartbeats, decides the next epoch, stores it, and tells who watches."""

import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from control_plane.domain.ring.leases import Leases
from control_plane.domain.ring.steps import Known, Report, formed, next_ring
from control_plane.domain.ring.storage import RingStore
from control_plane.domain.watchers import Watchers
from core_ext.hashing import SLOT_COUNT
from headrace.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound, Unavailable
from headrace.ring.values import Phase, Ring, RingServer
from headrace.serving.principal import Principal

PEER: Final = "PEER"
READ: Final = "FEATURE_READ"
SERVER_COUNT_MAX: Final = 1_024  # as many as there are slots to own
REPLICA_COUNT_MAX: Final = 7
ID_LENGTH_MAX: Final = 64
ADDRESS_LENGTH_MAX: Final = 255
WEIGHT_MAX: Final = 1_000
RESTART_MS: Final = 1_000


@dataclass(frozen=True, slots=True)
class RingShape:
    """What a ring is formed with, once."""

    shard_count: int = 64
    replica_count: int = 2
    server_count_min: int = 1  # the ring waits for so many servers, so that the first does not copy all to the others

    def __post_init__(self) -> None:
        is_power = self.shard_count & (self.shard_count - 1) == 0
        if not (is_power and 1 <= self.shard_count <= SLOT_COUNT and 1 <= self.replica_count <= REPLICA_COUNT_MAX):
            raise InvalidArgument(
                f"a ring has a power of two of shards up to {SLOT_COUNT} and 1 to {REPLICA_COUNT_MAX} copies of each, "
                f"not {self.shard_count} and {self.replica_count}",
                reason="RING_SHAPE",
                field="ring_shards",
            )


class Renewal(NamedTuple):
    """Answer to a heartbeat: how long the lease lasts, and the ring where it is newer than the one held."""

    lease_s: float
    ring: Ring | None


class RingKeeper:
    """One owner of the ring; safe to share between threads."""

    def __init__(
        self,
        store: RingStore,
        leases: Leases,
        watchers: Watchers,
        shape: RingShape,
        new_id: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._new_id = new_id
        self._store = store
        self._leases = leases
        self._watchers = watchers
        self._shape = shape
        self._lock = threading.Lock()
        self._ring = store.read()
        self._waiting: dict[str, RingServer] = {}  # for the ring to be formed, or to enter it with the next epoch
        self._ready: dict[str, frozenset[Report]] = {}
        self._damaged: dict[str, frozenset[Report]] = {}
        self._held_epochs: dict[str, int] = {}
        self._settled: Known | None = None  # what is known that the ring needs no step for
        leases.adopt(self._ring.servers)

    @property
    def newest(self) -> Ring:
        """The newest ring, for those who measure it."""
        return self._ring

    def ring(self, principal: Principal) -> Ring:
        """The newest ring."""
        principal.require(READ)
        return self._ring

    def live(self, principal: Principal) -> frozenset[str]:
        """Servers whose lease holds."""
        principal.require(READ)
        return self._leases.live()

    def join(self, principal: Principal, server: RingServer, shard_count: int) -> Renewal:
        """Takes a server in, or takes its new address, zone or weight. Repeating it changes nothing."""
        principal.require(PEER)
        _check_server(server)
        with self._lock:
            self._check_room(server, shard_count)
            self._leases.renew(server.server_id)
            held = self._ring.servers.get(server.server_id)
            if held is not None and held.is_draining:
                server = replace(server, is_draining=True)  # a restart does not bring it back
            if held != server:
                self._waiting[server.server_id] = server
            self._advance(f"join {server.server_id}")
            return Renewal(self._leases.lease_s, self._ring if self._ring.epoch else None)

    def renew(
        self,
        principal: Principal,
        server_id: str,
        held_epoch: int,
        ready: Sequence[tuple[int, int]],
        damaged: Sequence[tuple[int, int]],
    ) -> Renewal:
        """One heartbeat: (shard, phase epoch) of copies that are ready to serve, and of those that must be rebuilt.

        What the server does not say any more is not so any more. Raises NotFound for a server that has to join.
        """
        principal.require(PEER)
        with self._lock:
            if server_id not in self._ring.servers and server_id not in self._waiting:
                raise NotFound(
                    f"server {server_id} is not in the ring; join it",
                    reason="NOT_IN_RING",
                    metadata={"server": server_id},
                )
            _require_not_ahead(held_epoch, self._ring)
            self._leases.renew(server_id)
            self._held_epochs[server_id] = held_epoch
            self._ready[server_id] = frozenset(Report(shard, server_id, epoch) for shard, epoch in ready)
            self._damaged[server_id] = frozenset(Report(shard, server_id, epoch) for shard, epoch in damaged)
            self._advance(f"heartbeat {server_id}")
            return Renewal(self._leases.lease_s, self._ring if held_epoch < self._ring.epoch else None)

    def drain(self, principal: Principal, server_id: str) -> Ring:
        """Moves every shard off a server; it leaves the ring when it holds none. Repeating it changes nothing."""
        principal.require(PEER)
        with self._lock:
            server = self._ring.servers.get(server_id)
            if server is None:
                raise NotFound(
                    f"server {server_id} is not in the ring", reason="NOT_IN_RING", metadata={"server": server_id}
                )
            if not server.is_draining:
                self._waiting[server_id] = replace(server, is_draining=True)
                self._advance(f"drain {server_id}")
            return self._ring

    def tick(self) -> None:
        """Looks again, as leases run out without a call."""
        with self._lock:
            self._advance("lease")

    def watch(self, principal: Principal, held_epoch: int, is_active: Callable[[], bool]) -> Iterator[Ring]:
        """Every newest ring past the held epoch, until the caller leaves. Raises Unavailable when the server stops."""
        principal.require(READ)
        with self._watchers.enrolled():
            while is_active():
                ticket = self._watchers.ticket()
                ring = self._ring
                _require_not_ahead(held_epoch, ring)
                if ring.epoch > held_epoch:
                    yield ring
                    held_epoch = ring.epoch
                if self._watchers.is_closed:
                    raise Unavailable(
                        "the server is stopping; watch again", reason="STOPPING", retry_after_ms=RESTART_MS
                    )
                self._watchers.wait(ticket)

    def _advance(self, cause: str) -> None:
        """Stores the next ring, where there is one; with the lock held."""
        servers = {**self._ring.servers, **self._waiting}
        if not self._ring.epoch:
            live = self._leases.live()
            heard = [server for server in servers.values() if server.server_id in live]
            if len(heard) < self._shape.server_count_min:
                return
            after = formed(heard, self._shape.shard_count, self._shape.replica_count, self._new_id())
        else:
            known = self._known()
            if known == self._settled and not self._waiting:
                return
            after = next_ring(self._ring, servers, known)
            if after.epoch == self._ring.epoch:
                self._settled = known
                self._waiting.clear()
                return
        try:
            self._store.append(after, cause)
        except Aborted:
            self._ring = self._store.read()  # somebody else's epoch: what was heard is looked at again with it
            self._leases.adopt(self._ring.servers)
            self._settled = None
            raise
        for server_id in self._ring.servers.keys() - after.servers.keys():
            self._forget(server_id)
        self._ring = after
        self._settled = None
        self._waiting.clear()
        self._watchers.wake()

    def _known(self) -> Known:
        held: Mapping[str, int] = dict(self._held_epochs)
        return Known(
            live=self._leases.live(),
            lost=self._leases.lost(),
            ready=frozenset().union(*self._ready.values()),
            damaged=frozenset().union(*self._damaged.values()),
            held_epochs=held,
        )

    def _forget(self, server_id: str) -> None:
        self._leases.forget(server_id)
        for heard in (self._ready, self._damaged, self._held_epochs):
            heard.pop(server_id, None)

    def _check_room(self, server: RingServer, shard_count: int) -> None:
        held = len(self._ring.shards) or self._shape.shard_count
        if shard_count != held:
            raise FailedPrecondition(
                f"server {server.server_id} has a store of {shard_count} shards, and the ring has {held}; "
                f"start it on a new folder with --shards {held}",
                reason="SHARD_COUNT",
                metadata={"shards": str(shard_count), "ring_shards": str(held)},
            )
        known = self._ring.servers.keys() | self._waiting.keys()
        if server.server_id not in known and len(known) >= SERVER_COUNT_MAX:
            raise FailedPrecondition(
                f"the ring has {SERVER_COUNT_MAX} servers, which is the bound; drain one first", reason="RING_FULL"
            )
        shared = [
            other.server_id
            for other in (*self._ring.servers.values(), *self._waiting.values())
            if other.address == server.address and other.server_id != server.server_id
        ]
        if set(shared) & self._leases.live():
            raise FailedPrecondition(
                f"address {server.address} is that of server {shared[0]}; start each server on a port of its own",
                reason="ADDRESS_TAKEN",
                metadata={"address": server.address, "server": shared[0]},
            )


def _check_server(server: RingServer) -> None:
    problems = {
        "server_id": not 1 <= len(server.server_id) <= ID_LENGTH_MAX,
        "address": not 1 <= len(server.address) <= ADDRESS_LENGTH_MAX or ":" not in server.address,
        "zone": len(server.zone) > ID_LENGTH_MAX,
        "weight": not 1 <= server.weight <= WEIGHT_MAX,
    }
    for field, is_wrong in problems.items():
        if is_wrong:
            raise InvalidArgument(
                f"{field} of a server of the ring is {getattr(server, field)!r}; see the limits of JoinRing",
                reason="BAD_SERVER",
                field=f"server.{field}",
            )


def _require_not_ahead(held_epoch: int, ring: Ring) -> None:
    # A server that waited for a restored, older ring to catch up would then take other owners for those of its epoch.
    if held_epoch > ring.epoch:
        raise FailedPrecondition(
            f"epoch {held_epoch} is held, and the ring is at {ring.epoch}: it is an older copy; restore a newer one",
            reason="RING_BEHIND",
            field="held_epoch",
            metadata={"held_epoch": str(held_epoch), "ring_epoch": str(ring.epoch)},
        )


def moving(ring: Ring) -> int:
    """Copies that are on their way in or out."""
    return sum(replica.phase is not Phase.SERVING for shard in ring.shards for replica in shard.replicas)
