"""Text form of durations."""

from datetime import timedelta

import pytest
from hypothesis import given

from headrace.definitions.durations import format_duration, parse_duration
from headrace.errors import InvalidArgument
from tests.unit.headrace.definitions.samples import DURATIONS


@given(DURATIONS)
def test_text_comes_back_to_the_same_duration(duration: timedelta) -> None:
    assert parse_duration(format_duration(duration), "ttl") == duration


@pytest.mark.parametrize(
    ("duration", "text"),
    [
        (timedelta(0), "0s"),
        (timedelta(days=7), "7d"),
        (timedelta(hours=25, minutes=30), "1d1h30m"),
        (timedelta(milliseconds=1500), "1s500ms"),
        (timedelta(microseconds=7), "7us"),
    ],
)
def test_text_is_the_shortest(duration: timedelta, text: str) -> None:
    assert format_duration(duration) == text


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1 d", "1.5h", "1d ", 7, None, "1w", "9" * 16 + "d"])
def test_other_texts_are_refused_with_an_example(text: object) -> None:
    with pytest.raises(InvalidArgument, match="'1h30m'") as caught:
        parse_duration(text, "ttl")
    assert (caught.value.reason, caught.value.field) == ("INVALID_DURATION", "ttl")


def test_duration_beyond_every_calendar_is_refused() -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_duration("999999999999999d", "ttl")
    assert caught.value.reason == "OUT_OF_RANGE"
