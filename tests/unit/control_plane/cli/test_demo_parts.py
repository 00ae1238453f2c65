"""The pieces of the demonstration on small cases that a person can check."""

import numpy as np
import pandas as pd
import pyarrow as pa

from control_plane.cli.demo.expected import EXPIRED, MISSING, NULL, PRESENT, Expected, Lookup, latest

TIMES = pd.to_datetime(["2013-01-01T00:00Z", "2013-01-02T00:00Z", "2013-01-02T00:00Z", "2013-01-03T00:00Z"])
EVENTS = pd.DataFrame(
    {"key": ["a", "a", "a", "b"], "event_time": TIMES, "value": [1.0, 2.0, 3.0, np.nan], "text": ["x", "y", None, "z"]}
)


def expect(keys: list[str | None], as_of: list[str], ttl_passed: bool = False) -> Expected:
    lookup = Lookup(EVENTS, "key", "flown", {"value": "value", "text": "text"}, ttl_passed)
    return latest(pd.DataFrame({"flown": keys}), pd.Series(pd.to_datetime(as_of)), [lookup])


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


def test_passed_time_to_live_withholds_every_value() -> None:
    found = expect(["a", "c"], ["2013-01-05T00:00Z"] * 2, ttl_passed=True)
    assert found.states["value"].tolist() == [EXPIRED, MISSING]
    assert pa.Array.from_pandas(found.values["text"], type=pa.string()).null_count == 2
