"""Rounds alternate, turn their order, and hold one number each."""

from collections.abc import Mapping

import pytest

from loadtest.peers.rounds import Measure, alternate, order


def test_every_round_begins_with_another_side() -> None:
    assert [order(["a", "b", "c"], number) for number in range(4)] == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


def test_sides_take_turns_and_see_their_round() -> None:
    seen: list[tuple[str, int]] = []

    def side(name: str) -> Measure:
        def measure(number: int) -> Mapping[str, float]:
            seen.append((name, number))
            return {name: float(number)}

        return measure

    assert alternate({"ours": side("ours"), "theirs": side("theirs")}, 2) == {"ours": [0, 1], "theirs": [0, 1]}
    assert seen == [("ours", 0), ("theirs", 0), ("theirs", 1), ("ours", 1)]


def test_round_that_measured_less_than_others_is_refused() -> None:
    with pytest.raises(ValueError, match="not every round measured everything"):
        alternate({"ours": lambda number: {"rps": 1.0} if number else {}}, 2)
