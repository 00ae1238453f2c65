"""Sizes, ages and times as people type them."""

import pytest

from control_plane.cli.amounts import parse_age_s, parse_bytes, parse_time_us, time_text
from headrace.errors import InvalidArgument

MIDNIGHT_US = 1_769_817_600_000_000  # 2026-01-31T00:00Z


@pytest.mark.parametrize(
    ("text", "expected"), [("512MiB", 512 << 20), ("2 GiB", 2 << 30), ("1024", 1024), ("7b", 7), ("1tib", 1 << 40)]
)
def test_sizes_are_read(text: str, expected: int) -> None:
    assert parse_bytes(text, "--memory-limit") == expected


@pytest.mark.parametrize("text", ["", "lots", "2GB", "-1", "1.5GiB", "GiB"])
def test_other_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--memory-limit"):
        parse_bytes(text, "--memory-limit")


@pytest.mark.parametrize(
    "text", ["2026-01-31Z", "2026-01-31T00:00Z", "2026-01-31T01:00:00+01:00", "2026-01-30T19:00-05:00"]
)
def test_times_with_a_zone_are_read(text: str) -> None:
    assert parse_time_us(text, "--as-of") == MIDNIGHT_US


@pytest.mark.parametrize(
    ("text", "reason"),
    [("2026-01-31", "NAIVE_TIME"), ("2026-01-31T00:00", "NAIVE_TIME"), ("noon", "TIME"), ("2026-13-01Z", "TIME")],
)
def test_times_without_a_zone_and_other_texts_are_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse_time_us(text, "--as-of")
    assert (caught.value.reason, caught.value.field) == (reason, "--as-of")


def test_times_are_written_in_utc() -> None:
    assert time_text(MIDNIGHT_US) == "2026-01-31T00:00:00Z"
    assert parse_time_us(time_text(MIDNIGHT_US + 1), "--as-of") == MIDNIGHT_US + 1


@pytest.mark.parametrize(("text", "expected"), [("90m", 5_400), ("12h", 43_200), ("3d", 259_200)])
def test_ages_are_read(text: str, expected: int) -> None:
    assert parse_age_s(text, "--older-than") == expected


@pytest.mark.parametrize("text", ["3", "d", "3w", "-1d", "1.5h"])
def test_other_ages_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="--older-than"):
        parse_age_s(text, "--older-than")
