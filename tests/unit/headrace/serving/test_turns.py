"""Turns of threads: short while something long runs."""

import sys

import pytest

from headrace.serving.turns import LONG_S, SHORT_S, Turns


def test_turns_are_short_while_anything_long_runs() -> None:
    seen: list[float] = []
    turns = Turns(seen.append)
    with turns.short():
        assert seen == [SHORT_S]
        with turns.short():
            assert seen == [SHORT_S]
        assert seen == [SHORT_S]
    assert seen == [SHORT_S, LONG_S]


def test_turns_are_long_again_after_a_failure() -> None:
    seen: list[float] = []
    with pytest.raises(ValueError, match="midway"), Turns(seen.append).short():
        raise ValueError("midway")
    assert seen == [SHORT_S, LONG_S]


def test_the_interval_is_that_of_the_process() -> None:
    before = sys.getswitchinterval()
    try:
        with Turns().short():
            assert sys.getswitchinterval() == pytest.approx(SHORT_S)
        assert sys.getswitchinterval() == pytest.approx(LONG_S)
    finally:
        sys.setswitchinterval(before)
