"""Alternating rounds: every side measures once a round, in an order that turns, so that drift hits all alike."""

from collections.abc import Callable, Iterator, Mapping

Measure = Callable[[int], Mapping[str, float]]


def order(names: list[str], round_number: int) -> list[str]:
    """The sides in the order of one round: a different one begins each time."""
    start = round_number % len(names) if names else 0
    return names[start:] + names[:start]


def alternate(sides: Mapping[str, Measure], round_count: int) -> dict[str, list[float]]:
    """Runs the sides and returns each measured name with one number a round."""
    out: dict[str, list[float]] = {}
    for name, value in _measurements(sides, round_count):
        out.setdefault(name, []).append(value)
    uneven = {name: len(values) for name, values in out.items() if len(values) != round_count}
    if uneven:
        raise ValueError(f"not every round measured everything: {uneven} of {round_count}")
    return out


def _measurements(sides: Mapping[str, Measure], round_count: int) -> Iterator[tuple[str, float]]:
    for round_number in range(round_count):
        for side in order(list(sides), round_number):
            yield from sides[side](round_number).items()
