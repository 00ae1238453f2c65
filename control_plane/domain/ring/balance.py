"""How even a ring stays, and how much of it moves, while servers come and go: placement alone, no server needed."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from control_plane.domain.ring.placement import Placement, place
from control_plane.domain.ring.shares import shares
from headrace.ring.values import RingServer


@dataclass(frozen=True, slots=True)
class Change:
    """One server came or went."""

    server_count: int
    moved_share: float  # of all copies
    fair_share: float  # of all copies: what the server that came or went holds on average
    load_factor: float  # of the fullest server, to its fair share


@dataclass(frozen=True, slots=True)
class Balance:
    """Every change of a simulation."""

    changes: Sequence[Change]

    @property
    def load_factor_max(self) -> float:
        """Of the fullest server at any time."""
        return max(change.load_factor for change in self.changes)

    @property
    def moved_to_fair_max(self) -> float:
        """The most that one change moved, in fair shares."""
        return max(change.moved_share / change.fair_share for change in self.changes)

    @property
    def moved_to_fair_mean(self) -> float:
        """What a change moves, in fair shares."""
        return sum(change.moved_share / change.fair_share for change in self.changes) / len(self.changes)


def simulate(
    server_count: int, shard_count: int, replica_count: int, change_count: int, *, zone_count: int = 0, seed: int = 0
) -> Balance:
    """Servers go and come by turns from a fleet of at least two; the seed decides which go."""
    random = Random(seed)
    fleet = [_server(number, zone_count) for number in range(server_count)]
    placement = place(fleet, shard_count, replica_count)
    changes = []
    for number in range(change_count):
        if number % 2:
            fleet = [*fleet, _server(server_count + number, zone_count)]
        else:
            leaver = random.randrange(len(fleet))
            fleet = [*fleet[:leaver], *fleet[leaver + 1 :]]
        after = place(fleet, shard_count, replica_count, placement)
        changes.append(_change(fleet, placement, after, replica_count))
        placement = after
    return Balance(changes)


def _change(fleet: Sequence[RingServer], before: Placement, after: Placement, replica_count: int) -> Change:
    copies = sum(map(len, after))
    moved = sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))
    loads = Counter(server_id for held in after for server_id in held)
    fair = shares(fleet, len(after), min(replica_count, len(fleet)))
    factor = max(load / float(fair[server_id].fair) for server_id, load in loads.items())
    return Change(len(fleet), moved / copies, 1 / len(fleet), factor)


def _server(number: int, zone_count: int) -> RingServer:
    zone = f"zone-{number % zone_count}" if zone_count else ""
    return RingServer(f"server-{number:05}", f"server-{number:05}:6571", zone)
