"""Arrivals are set by their plan alone, and shapes make the asked rates."""

import itertools

import pytest

from loadtest.online.arrivals import Arrivals, Load, Shape


def test_arrivals_keep_their_rate_and_never_go_back() -> None:
    arrivals = Arrivals(rate=10, start_s=100, seed=1)
    due = [arrivals.next_due_s() for _ in range(10_000)]
    assert all(later > earlier for earlier, later in itertools.pairwise(due))
    assert (due[-1] - 100) / 10_000 == pytest.approx(0.1, rel=0.05)


def test_same_seed_gives_the_same_arrivals() -> None:
    one, other = Arrivals(10, 0, seed=5), Arrivals(10, 0, seed=5)
    assert [one.next_due_s() for _ in range(5)] == [other.next_due_s() for _ in range(5)]


@pytest.mark.parametrize("rate", [3.0, 10.0, 95.0, 200.0])
def test_users_of_a_steady_load_make_its_rate(rate: float) -> None:
    load = Load(Shape.STEADY, rate, 60)
    assert load.users_at(30) * load.user_rate == pytest.approx(rate)


def test_ramp_climbs_to_its_rate() -> None:
    load = Load(Shape.RAMP, 200, 100)
    assert [load.rate_at(moment) for moment in (0, 15, 55, 99)] == [20, 40, 120, 200]


def test_spike_is_five_times_its_base_in_the_middle_fifth() -> None:
    load = Load(Shape.SPIKE, 100, 50)
    assert [load.rate_at(moment) for moment in (0, 19.9, 20, 29.9, 30, 49)] == [100, 100, 500, 500, 100, 100]


def test_load_ends_with_its_duration() -> None:
    assert Load(Shape.STEADY, 100, 50).rate_at(50) == 0


def test_load_without_rate_or_length_is_refused() -> None:
    with pytest.raises(ValueError, match="must be positive"):
        Load(Shape.STEADY, 0, 50)
    with pytest.raises(ValueError, match="must be positive"):
        Load(Shape.STEADY, 10, 0)
