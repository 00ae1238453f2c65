"""The pieces of the demonstration on small cases that a person can check."""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from control_plane.cli.demo.expected import EXPIRED, MISSING, NULL, PRESENT, Expected, Lookup, latest
from control_plane.cli.demo.expected_windows import (
    Aggregate,
    Share,
    Value,
    WindowLookup,
    bucket_middle,
    window_values,
)

TIMES = pd.to_datetime(["2013-01-01T00:00Z", "2013-01-02T00:00Z", "2013-01-02T00:00Z", "2013-01-03T00:00Z"])
EVENTS = pd.DataFrame(
    {"key": ["a", "a", "a", "b"], "event_time": TIMES, "value": [1.0, 2.0, 3.0, np.nan], "text": ["x", "y", None, "z"]}
)


NOW = pd.Timestamp("2013-01-05T00:00Z")
HOUR_US = 3_600_000_000


def expect(keys: list[str | None], as_of: list[str], ttl: pd.Timedelta | None = None) -> Expected:
    lookup = Lookup(EVENTS, "key", "flown", {"value": "value", "text": "text"}, ttl)
    return latest(pd.DataFrame({"flown": keys}), pd.Series(pd.to_datetime(as_of)), [lookup], NOW)


def window_of(aggregate: str, times_h: list[float], delays: list[float], read_h: float) -> tuple[Value, int]:
    """Of a window of two hours in steps of one, for one key."""
    return windows_of([Aggregate("x", aggregate, "delay", 2 * HOUR_US, HOUR_US, 0.9)], times_h, delays, read_h)["x"]


def windows_of(
    outputs: Sequence[Aggregate | Share],
    times_h: list[float],
    delays: list[float],
    read_h: float,
    key: str | None = "a",
) -> dict[str, tuple[Value, int]]:
    lookup = WindowLookup(
        keys=pd.DataFrame({"key": ["a"] * len(times_h)}),
        flight_keys=["flown"],
        times_us=np.array([round(time * HOUR_US) for time in times_h], np.int64),
        columns={"delay": np.array(delays, np.float64)},
        outputs=outputs,
    )
    read_us = round(read_h * HOUR_US)
    found = window_values(pd.DataFrame({"flown": [key]}), read_us, read_us, [lookup])
    return {name: pairs[0] for name, pairs in found.items()}


def test_newest_event_counts_exactly_at_its_time_and_not_before() -> None:
    found = expect(["a", "a", "a"], ["2012-12-31T23:59Z", "2013-01-01T00:00Z", "2013-01-01T23:59Z"])
    assert found.states["value"].tolist() == [MISSING, PRESENT, PRESENT]
    assert found.values["value"].tolist()[1:] == [1.0, 1.0]


def test_last_of_equal_times_wins_and_may_be_null() -> None:
    found = expect(["a"], ["2013-01-05T00:00Z"])
    assert found.values["value"].tolist() == [3.0]
    assert (found.states["value"].tolist(), found.states["text"].tolist()) == ([PRESENT], [NULL])


def test_unknown_and_null_keys_are_missing() -> None:
    found = expect([None, "c", "b"], ["2013-01-05T00:00Z"] * 3)
    assert found.states["value"].tolist() == [MISSING, MISSING, NULL]


def test_event_as_old_as_its_time_to_live_is_withheld() -> None:
    as_of = ["2013-01-05T00:00Z"] * 3
    found = expect(["a", "b", "c"], as_of, pd.Timedelta(days=2))
    assert found.states["value"].tolist() == [EXPIRED, EXPIRED, MISSING]
    assert pa.Array.from_pandas(found.values["text"], type=pa.string()).null_count == 3
    found = expect(["a", "b", "c"], as_of, pd.Timedelta(days=2, microseconds=1))
    assert found.states["value"].tolist() == [EXPIRED, NULL, MISSING]


def test_window_begins_at_a_step_which_it_excludes_and_ends_with_the_read() -> None:
    times, delays = [1.0, 1.5, 3.5, 3.51], [100.0, 10.0, 1.0, 1000.0]
    assert window_of("sum", times, delays, 3.5) == (11, PRESENT)
    assert window_of("sum", times, delays, 4.0) == (1001, PRESENT)
    assert window_of("count", times, delays, 2.0) == (2, PRESENT)


def test_window_over_nothing_is_zero_or_null_and_nobody_is_missing() -> None:
    assert window_of("count", [1.0], [5.0], 9.0) == (0, PRESENT)
    assert window_of("avg", [1.0], [5.0], 9.0) == (None, NULL)
    assert window_of("stddev", [8.5], [5.0], 9.0) == (None, NULL)
    one = Aggregate("x", "count", "", HOUR_US, HOUR_US)
    assert windows_of([one], [8.5], [5.0], 9.0, None)["x"] == (None, MISSING)
    assert windows_of([one], [8.5], [5.0], 9.0, "b")["x"] == (0, PRESENT)


def test_aggregates_are_those_of_a_textbook() -> None:
    times, delays = [3.1] * 4 + [3.2], [2.0, 4.0, 4.0, 6.0, float("nan")]
    assert [window_of(name, times, delays, 4.0)[0] for name in ("count", "avg", "max")] == [4, 4.0, 6.0]
    assert window_of("stddev", times, delays, 4.0)[0] == pytest.approx((8 / 3) ** 0.5)
    assert window_of("quantile", times, delays, 4.0)[0] == bucket_middle(6.0)


def test_share_of_nothing_is_null() -> None:
    outputs: list[Aggregate | Share] = [
        Aggregate("late", "sum", "delay", HOUR_US, HOUR_US),
        Aggregate("all", "count", "", HOUR_US, HOUR_US),
        Share("share", "late", "all"),
    ]
    assert windows_of(outputs, [3.5, 3.6], [1.0, 0.0], 4.0)["share"] == (0.5, PRESENT)
    assert windows_of(outputs, [3.5, 3.6], [1.0, 0.0], 9.0)["share"] == (None, NULL)


@pytest.mark.parametrize("value", [1.0, 7.0, 64.0, 1301.0, 0.1])
def test_middle_of_a_bucket_is_near_its_values(value: float) -> None:
    assert abs(bucket_middle(value) / value - 1) <= 1 / 64
    assert bucket_middle(-value) == -bucket_middle(value)
    assert bucket_middle(bucket_middle(value)) == bucket_middle(value)


def test_middle_of_nothing_is_nothing() -> None:
    assert bucket_middle(0.0) == 0.0
