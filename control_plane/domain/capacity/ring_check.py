"""A ring of as many servers as a plan asks for, simulated: how uneven it is, and what one server more or less moves."""

import math
from dataclasses import dataclass
from typing import Final

from control_plane.domain.ring.balance import Balance, simulate
from core_ext.hashing import SLOT_COUNT

RING_SERVERS_MAX: Final = 1_000  # of one ring: with a shard per slot, servers hold about two copies then
CHANGES: Final = 20
SEED: Final = 2013


@dataclass(frozen=True, slots=True)
class RingCheck:
    """Servers with room for the fullest of them, in rings of at most RING_SERVERS_MAX."""

    node_count: int
    ring_count: int
    simulated_servers: int
    shards: int
    balance: Balance


def check_ring(even_count: int, replicas: int, servers_max: int = RING_SERVERS_MAX) -> RingCheck:
    """`even_count` servers would do if all held the same; a ring of this size says how far the fullest is over."""
    servers = min(servers_max, max(even_count, replicas + 1))
    balance = simulate(servers, SLOT_COUNT, replicas, CHANGES, seed=SEED)
    node_count = max(replicas, math.ceil(even_count * balance.load_factor_max))
    return RingCheck(node_count, math.ceil(node_count / servers_max), servers, SLOT_COUNT, balance)
