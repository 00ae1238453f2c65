"""Runs seeded schedules: `python -m tests.simulation.run --seeds 1000 [--first N] [--mutant NAME]`."""

import argparse
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from tests.simulation.mutants import MUTANTS
from tests.simulation.schedule import Schedule


def failing_seed(seeds: Iterator[int], tell: Callable[[int, Exception], None] | None = None) -> int | None:
    """The first seed whose schedule fails, None where all hold. An error of the production code counts as well."""
    for seed in seeds:
        try:
            Schedule(seed).run()
        except Exception as error:  # noqa: BLE001 - whatever a schedule raises is what was looked for
            if tell is not None:
                tell(seed, error)
            return seed
    return None


def main(arguments: Sequence[str] | None = None) -> int:
    """0 where every schedule holds; with --mutant, where it is caught."""
    parser = argparse.ArgumentParser(description="Runs seeded schedules of the ring.")
    parser.add_argument("--seeds", type=int, default=1_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), help="plants a fault first")
    options = parser.parse_args(arguments)
    if options.mutant:
        with MUTANTS[options.mutant]():
            seed = failing_seed(iter(range(options.first, options.first + options.seeds)), _tell)
        return 0 if seed is not None else 1
    return _measure(options.first, options.seeds)


def _measure(first: int, count: int) -> int:
    begun_s = time.perf_counter()
    events = epochs = reads = across = refused = 0
    for seed in range(first, first + count):
        try:
            outcome = Schedule(seed).run()
        except Exception as error:  # noqa: BLE001 - whatever a schedule raises is what was looked for
            _tell(seed, error)
            return 1
        events += outcome.event_count
        epochs += outcome.epoch_count
        reads += outcome.read_count
        across += outcome.across_count
        refused += outcome.refused_count
    seconds = time.perf_counter() - begun_s
    sys.stdout.write(
        f"{count} schedules hold: {events} events, {epochs} epochs, {reads} reads answered, "
        f"{across} across servers, {refused} refused; "
        f"{count / seconds * 60:.0f} schedules per minute\n"
    )
    return 0


def _tell(seed: int, error: Exception) -> None:
    sys.stdout.write(f"seed {seed}: {type(error).__name__}: {error}\n")
    if not isinstance(error, AssertionError):
        traceback.print_exception(error)


if __name__ == "__main__":
    sys.exit(main())
