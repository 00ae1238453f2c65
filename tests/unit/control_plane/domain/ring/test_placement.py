"""Placement: apart, balanced, the same twice, and as still as it can be."""

from collections import Counter
from collections.abc import Sequence
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.domain.ring.placement import Placement, place
from control_plane.domain.ring.shares import LOAD_FACTOR_MAX, parts_zones, shares
from headrace.ring.values import RingServer

SHARD_COUNTS = st.sampled_from([1, 8, 64, 256])
REPLICA_COUNTS = st.integers(1, 3)
NUMBERS = st.sets(st.integers(0, 40), min_size=1, max_size=14)


def server(number: int, zone_count: int = 0, weight: int = 1) -> RingServer:
    zone = f"zone-{number % zone_count}" if zone_count else ""
    return RingServer(f"server-{number}", f"10.0.0.{number}:9000", zone, weight)


@st.composite
def fleets(draw: st.DrawFn) -> list[RingServer]:
    zone_count = draw(st.sampled_from([0, 0, 2, 3, 5]))
    return [server(number, zone_count, draw(st.integers(1, 5))) for number in sorted(draw(NUMBERS))]


def loads(placement: Placement) -> Counter[str]:
    return Counter(server_id for held in placement for server_id in held)


def moved_count(before: Placement, after: Placement) -> int:
    return sum(len(set(new) - set(old)) for old, new in zip(before, after, strict=True))


@given(fleets(), SHARD_COUNTS, REPLICA_COUNTS)
def test_every_shard_has_its_copies_on_different_servers(
    servers: list[RingServer], shard_count: int, replica_count: int
) -> None:
    placement = place(servers, shard_count, replica_count)
    assert len(placement) == shard_count
    assert {len(held) for held in placement} == {min(replica_count, len(servers))}
    assert all(len(set(held)) == len(held) for held in placement)


@given(fleets(), SHARD_COUNTS, REPLICA_COUNTS)
def test_copies_lie_in_different_zones_where_there_are_enough(
    servers: list[RingServer], shard_count: int, replica_count: int
) -> None:
    zones = {server.server_id: server.zone for server in servers}
    if not parts_zones(servers, min(replica_count, len(servers))):
        return
    for held in place(servers, shard_count, replica_count):
        assert len({zones[server_id] for server_id in held}) == len(held)


@given(fleets(), SHARD_COUNTS, REPLICA_COUNTS, st.randoms())
def test_the_same_servers_in_any_order_are_placed_alike(
    servers: list[RingServer], shard_count: int, replica_count: int, random: Random
) -> None:
    shuffled = list(servers)
    random.shuffle(shuffled)
    assert place(shuffled, shard_count, replica_count) == place(servers, shard_count, replica_count)


@given(fleets(), fleets(), SHARD_COUNTS, REPLICA_COUNTS)
def test_a_placement_is_at_rest(
    before: list[RingServer], servers: list[RingServer], shard_count: int, replica_count: int
) -> None:
    placed = place(servers, shard_count, replica_count, place(before, shard_count, replica_count))
    assert place(servers, shard_count, replica_count, placed) == placed


@given(st.lists(NUMBERS, min_size=1, max_size=4), SHARD_COUNTS, REPLICA_COUNTS)
def test_load_is_bounded_after_any_changes(fleet: list[set[int]], shard_count: int, replica_count: int) -> None:
    placement: Placement = ()
    for numbers in fleet:
        servers = [server(number) for number in sorted(numbers)]
        placement = place(servers, shard_count, replica_count, placement)
        fair = shard_count * min(replica_count, len(servers)) / len(servers)
        assert max(loads(placement).values()) <= ceil(fair * float(LOAD_FACTOR_MAX))


@given(st.integers(1, 12), st.sampled_from([64, 256]), REPLICA_COUNTS, st.integers(13, 40))
def test_a_server_that_joins_takes_its_share_and_nothing_else_moves(
    count: int, shard_count: int, replica_count: int, joining: int
) -> None:
    servers = [server(number) for number in range(count)]
    before = place(servers, shard_count, replica_count)
    after = place([*servers, server(joining)], shard_count, replica_count, before)
    new = f"server-{joining}"
    fair = shard_count * min(replica_count, count + 1) / (count + 1)
    assert moved_count(before, after) <= ceil(fair)
    assert all(set(held) - set(old) <= {new} for old, held in zip(before, after, strict=True))
    assert loads(after)[new] >= int(fair)


@given(st.integers(2, 12), st.sampled_from([64, 256]), REPLICA_COUNTS, st.integers(0, 11))
def test_of_a_server_that_leaves_only_its_shards_move(
    count: int, shard_count: int, replica_count: int, place_of_leaver: int
) -> None:
    servers = [server(number) for number in range(count)]
    leaver = servers[place_of_leaver % count]
    before = place(servers, shard_count, replica_count)
    after = place([held for held in servers if held is not leaver], shard_count, replica_count, before)
    # With few servers a copy may have to make room for another.
    assert moved_count(before, after) <= ceil(loads(before)[leaver.server_id] * float(LOAD_FACTOR_MAX))


@given(fleets(), st.sampled_from([64, 256]), REPLICA_COUNTS)
def test_weight_is_followed_where_nothing_hinders(
    servers: list[RingServer], shard_count: int, replica_count: int
) -> None:
    count = min(replica_count, len(servers))
    placement = loads(place(servers, shard_count, replica_count))
    for server_id, share in shares(servers, shard_count, count).items():
        assert placement[server_id] <= share.most + count


def test_a_zone_too_heavy_for_its_shards_gives_the_rest_to_the_others() -> None:
    servers = [*(RingServer(f"a{number}", "a:1", "a") for number in range(9)), RingServer("b", "b:1", "b")]
    placement = loads(place(servers, 64, 2))
    assert placement["b"] == 64
    assert sum(placement.values()) == 128


def test_without_servers_nothing_is_placed() -> None:
    assert place([], 4, 2) == ((), (), (), ())


def test_a_shard_keeps_its_server_when_a_weight_changes_a_little() -> None:
    servers = [server(number, weight=100) for number in range(8)]
    before = place(servers, 256, 2)
    after = place([server(0, weight=101), *servers[1:]], 256, 2, before)
    assert moved_count(before, after) <= 2


@pytest.mark.parametrize("count", [3, 10])
def test_many_joins_and_leaves_stay_within_the_bound(count: int) -> None:
    fleet: Sequence[int] = range(count)
    placement = place([server(number) for number in fleet], 64, 2)
    for step in range(30):
        changed = [*fleet, count + step] if step % 2 else list(fleet)[1:]
        after = place([server(number) for number in changed], 64, 2, placement)
        assert moved_count(placement, after) <= ceil(128 / min(len(changed), len(fleet))) + 1
        placement, fleet = after, changed
