"""A thousand servers: even, and still."""

import pytest

from control_plane.domain.ring.balance import simulate


def test_a_thousand_servers_stay_even_and_move_one_share_at_a_time() -> None:
    balance = simulate(1_000, 1_024, 2, 40)
    assert balance.load_factor_max <= 3 / 2.046, "2.05 copies a server: 3 at most"
    assert balance.moved_to_fair_max <= 1.5, "a server that goes had 3 copies at most, one that comes gets 2"
    assert balance.moved_to_fair_mean <= 1.1


@pytest.mark.parametrize("zone_count", [0, 3, 5])
def test_a_hundred_servers_are_within_a_copy_of_their_share(zone_count: int) -> None:
    balance = simulate(100, 1_024, 2, 60, zone_count=zone_count)
    assert balance.load_factor_max <= 1.25
    assert balance.moved_to_fair_mean <= (1.3 if zone_count else 1.05)


def test_a_seed_gives_the_same_changes() -> None:
    assert simulate(20, 64, 2, 10, seed=4) == simulate(20, 64, 2, 10, seed=4)
    assert simulate(20, 64, 2, 10, seed=4) != simulate(20, 64, 2, 10, seed=5)
