"""How many replicas each server should hold, by weight, zone and the rule that copies lie apart."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor
from typing import Final

from headrace.ring.values import RingServer

LOAD_FACTOR_MAX: Final = Fraction(5, 4)  # c of consistent hashing with bounded loads; 1.25 keeps its chains short


@dataclass(frozen=True, slots=True)
class Share:
    """Replicas of one server: its part of all, rounded down, rounded up, and the most that it keeps."""

    fair: Fraction
    least: int
    even: int
    most: int


def shares(servers: Sequence[RingServer], shard_count: int, replica_count: int) -> Mapping[str, Share]:
    """Share of every server. Whole zones, and servers, hold each shard at most once: what is too heavy for that gives
    the rest to the others.
    """
    total = Fraction(shard_count * replica_count)
    if not parts_zones(servers, replica_count):
        fair = _filled({server.server_id: server.weight for server in servers}, total, shard_count)
    else:
        weights: dict[str, int] = {}
        for server in servers:
            weights[server.zone] = weights.get(server.zone, 0) + server.weight
        fair = {}
        for zone, share in _filled(weights, total, shard_count).items():
            inside = {server.server_id: server.weight for server in servers if server.zone == zone}
            fair |= _filled(inside, share, shard_count)
    return {
        server_id: Share(share, floor(share), ceil(share), min(shard_count, ceil(share * LOAD_FACTOR_MAX)))
        for server_id, share in fair.items()
    }


def parts_zones(servers: Sequence[RingServer], replica_count: int) -> bool:
    """Whether there are zones enough for each copy of a shard to have its own."""
    zones = {server.zone for server in servers}
    return 1 < replica_count <= len(zones)


def _filled(weights: Mapping[str, int], total: Fraction, most: int) -> dict[str, Fraction]:
    """Parts of a total by weight, none above `most` while others have room."""
    filled: dict[str, Fraction] = {}
    while True:
        weight = sum(weights[name] for name in weights if name not in filled)
        left = total - sum(filled.values())
        over = [name for name in weights if name not in filled and left * weights[name] > most * weight]
        if not over:
            return filled | {name: left * weights[name] / weight for name in weights if name not in filled}
        filled |= dict.fromkeys(over, Fraction(most))
