"""Places replicas on servers: consistent hashing with bounded loads that moves as little as it can.

Every shard prefers servers in the order of a weighted rendezvous hash, and takes the first with room (V. Mirrokni,
M. Thorup, M. Zadimoghaddam: Consistent Hashing with Bounded Loads, SODA 2018; room is 1.25 times the fair share). What
was placed before stays where it is, unless its server is gone, too full, or needed to fill one that has too little: so
that a server that joins or leaves moves about its own share and nothing else.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import log
from typing import Final, TypeAlias

from control_plane.domain.ring.shares import Share, parts_zones, shares
from core_ext.hashing import xxh3_64
from headrace.ring.values import RingServer

PLACEMENTS_KEPT: Final = 64  # a ring at rest is placed again at each heartbeat

Placement: TypeAlias = tuple[tuple[str, ...], ...]
"""Server ids per shard."""


def place(
    servers: Sequence[RingServer], shard_count: int, replica_count: int, previous: Sequence[Sequence[str]] = ()
) -> Placement:
    """Servers of every shard. The same arguments give the same placement, and its own result places nothing anew."""
    return _placed(tuple(servers), shard_count, replica_count, tuple(map(tuple, previous)))


@lru_cache(maxsize=PLACEMENTS_KEPT)
def _placed(servers: tuple[RingServer, ...], shard_count: int, replica_count: int, previous: Placement) -> Placement:
    if not servers:
        return ((),) * shard_count
    draft = _Draft(sorted(servers, key=lambda server: server.server_id), shard_count, replica_count, previous)
    draft.part()
    draft.shed()
    draft.fill()
    draft.level()
    return tuple(map(tuple, draft.placed))


class _Draft:
    """A placement in the making."""

    def __init__(
        self, servers: Sequence[RingServer], shard_count: int, replica_count: int, previous: Sequence[Sequence[str]]
    ) -> None:
        self._servers = {server.server_id: server for server in servers}
        self._count = min(replica_count, len(servers))
        self._parts_zones = parts_zones(servers, self._count)
        self._shares = shares(servers, shard_count, self._count)
        self._scores: dict[tuple[int, str], float] = {}
        self._held: dict[str, set[int]] = {server_id: set() for server_id in self._servers}
        self.placed: list[list[str]] = [[] for _ in range(shard_count)]
        for shard, held in enumerate(previous[:shard_count]):
            for server_id in dict.fromkeys(held):
                if server_id in self._servers and len(self.placed[shard]) < self._count:
                    self._put(shard, server_id)

    def part(self) -> None:
        """Of copies in one zone the one that prefers it least goes, where every copy can have a zone of its own."""
        if not self._parts_zones:
            return
        for shard, held in enumerate(self.placed):
            zones: set[str] = set()
            for server_id in sorted(held, key=lambda server_id: self._score(shard, server_id)):
                zone = self._servers[server_id].zone
                if zone in zones:
                    self._take(shard, server_id)
                zones.add(zone)

    def shed(self) -> None:
        """Servers that hold more than they may give away what prefers them least, one copy of a shard if they can."""
        for server_id, held in self._held.items():
            excess = len(held) - self._shares[server_id].most
            if excess > 0:
                ranked = sorted(held, key=lambda shard: (self._is_short(shard), -self._score(shard, server_id), shard))
                for shard in ranked[:excess]:
                    self._take(shard, server_id)

    def fill(self) -> None:
        """Every missing copy goes to the server that the shard prefers among those with room."""
        for shard, held in enumerate(self.placed):
            while len(held) < self._count:
                self._put(shard, self._choice(shard))

    def level(self) -> None:
        """Servers below their share take over what prefers them most from those above theirs."""
        for server_id in self._held:
            while len(self._held[server_id]) < self._shares[server_id].least:
                taken = next(self._takeable(server_id), None)
                if taken is None:
                    break
                shard, donor = taken
                self._take(shard, donor)
                self._put(shard, server_id)

    def _choice(self, shard: int) -> str:
        fits = [server_id for server_id in self._servers if self._fits(shard, server_id)]
        for room in (_least, _even, _most):
            free = [server_id for server_id in fits if len(self._held[server_id]) < room(self._shares[server_id])]
            if free:
                return min(free, key=lambda server_id: self._score(shard, server_id))
        # No room within the bound beside the other copies: the least loaded goes over it.
        return min(fits, key=lambda server_id: (self._load(server_id), self._score(shard, server_id)))

    def _takeable(self, server_id: str) -> Iterator[tuple[int, str]]:
        """Shards that a server may take over and from whom, of the most overloaded first, what prefers it first."""
        above = [donor for donor in self._held if len(self._held[donor]) > self._shares[donor].least]
        for donor in sorted(above, key=lambda donor: (-self._load(donor), donor)):
            shards = [shard for shard in self._held[donor] if self._fits(shard, server_id, instead_of=donor)]
            if shards:
                yield min(shards, key=lambda shard: (self._score(shard, server_id), shard)), donor

    def _fits(self, shard: int, server_id: str, instead_of: str = "") -> bool:
        others = [held for held in self.placed[shard] if held != instead_of]
        if server_id in others:
            return False
        zone = self._servers[server_id].zone
        return not self._parts_zones or all(self._servers[held].zone != zone for held in others)

    def _is_short(self, shard: int) -> bool:
        return len(self.placed[shard]) < self._count

    def _load(self, server_id: str) -> float:
        return float(len(self._held[server_id]) / self._shares[server_id].fair)

    def _score(self, shard: int, server_id: str) -> float:
        """Place of a server in the order that a shard prefers; the smallest comes first."""
        score = self._scores.get((shard, server_id))
        if score is None:
            part = (xxh3_64(b"%d/%b" % (shard, server_id.encode())) + 0.5) / 2**64
            score = self._scores[shard, server_id] = -log(part) / self._servers[server_id].weight
        return score

    def _put(self, shard: int, server_id: str) -> None:
        self.placed[shard].append(server_id)
        self._held[server_id].add(shard)

    def _take(self, shard: int, server_id: str) -> None:
        self.placed[shard].remove(server_id)
        self._held[server_id].discard(shard)


def _least(share: Share) -> int:
    return share.least


def _even(share: Share) -> int:
    return share.even


def _most(share: Share) -> int:
    return share.most
