"""Views and labels of a notebook against plain Python, and every table that a person may bring."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_ext import rules
from headrace.definitions import Feature, FeatureView, derived, session, window
from headrace.errors import HeadraceError, InvalidArgument
from headrace.history import label, preview
from tests.unit.batch.jobs.lakes import ACTIVITY, EVENTS, HOUR_US, START_US, USER

UTC_US = pa.timestamp("us", "UTC")


def events(rows: list[tuple[int, int, float | None]]) -> pa.Table:
    """Rows of (user, time after the start in us, basket)."""
    return pa.table(
        {
            "user_id": pa.array([row[0] for row in rows], pa.int64()),
            "event_time": pa.array([START_US + row[1] for row in rows], UTC_US),
            "basket": pa.array([row[2] for row in rows], pa.float64()),
            "country": pa.array(["DE"] * len(rows), pa.string()),
        }
    )


def asked(rows: list[tuple[int, int]]) -> pa.Table:
    times = pa.array([START_US + row[1] for row in rows], UTC_US)
    return pa.table({"user_id": pa.array([row[0] for row in rows], pa.int64()), "event_time": times})


HISTORY = events([(1, 0, 10.0), (2, 0, None), (1, 2 * HOUR_US, 12.0)])


def test_unregistered_view_is_joined_with_its_ttl_and_defaults() -> None:
    spine = asked([(1, HOUR_US), (1, 3 * HOUR_US), (2, HOUR_US), (1, 13 * HOUR_US), (9, 0)])
    found = preview(ACTIVITY, HISTORY, entity=USER, source=EVENTS, entities=spine)
    assert found["basket"].to_pylist() == [10.0, 12.0, 0.5, 0.5, 0.5]
    states = [status & rules.STATE_MASK for status in found["basket__status"].to_pylist()]
    assert states == [rules.PRESENT, rules.PRESENT, rules.NULL, rules.EXPIRED, rules.MISSING]


def test_without_entities_each_entity_stands_once_at_the_newest_time() -> None:
    found = preview(ACTIVITY, HISTORY, entity=USER, source=EVENTS).sort_by("user_id")
    assert found["user_id"].to_pylist() == [1, 2]
    assert found["basket"].to_pylist() == [12.0, 0.5]
    assert preview(ACTIVITY, HISTORY.slice(0, 0), entity=USER, source=EVENTS).num_rows == 0


@pytest.mark.parametrize("form", ["pandas", "polars", "batch", "reader"])
def test_frames_of_every_library_give_the_same(form: str) -> None:
    forms: dict[str, Any] = {
        "pandas": lambda table: table.to_pandas(),
        "polars": pl.from_arrow,
        "batch": lambda table: table.to_batches()[0],
        "reader": lambda table: table.to_reader(),
    }
    spine = asked([(1, HOUR_US), (2, HOUR_US)])
    expected = preview(ACTIVITY, HISTORY, entity=USER, source=EVENTS, entities=spine)
    given_events, given_spine = forms[form](HISTORY), forms[form](spine)
    found = preview(ACTIVITY, given_events, entity=USER, source=EVENTS, entities=given_spine)
    assert found.select(["basket", "basket__status"]).equals(expected.select(["basket", "basket__status"]))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda table: table.drop_columns(["basket"]), "MISSING_COLUMN"),
        (lambda table: table.set_column(1, "event_time", table["event_time"].cast(pa.timestamp("us"))), "NAIVE_TIME"),
        (lambda table: table.set_column(0, "user_id", pa.array([1, None, 1], pa.int64())), "NULL_KEY"),
        (lambda table: table.set_column(2, "basket", pa.array([1.0] * 3, pa.float32())), "WRONG_TYPE"),
        (lambda table: [1, 2], "WRONG_TYPE"),
        (lambda table: pd.DataFrame({"user_id": [1, "a"]}), "WRONG_TYPE"),
    ],
)
def test_bad_events_are_one_error(change: Any, reason: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        preview(ACTIVITY, change(HISTORY), entity=USER, source=EVENTS, entities=asked([(1, 0)]))
    assert caught.value.reason == reason


def test_view_that_would_not_register_is_refused() -> None:
    wrong = FeatureView(
        "shop.users.wrong", owner="shop", entity=USER.name, source=EVENTS.name,
        features=[Feature("basket", "i32", ACTIVITY.features[0].transform)],
    )  # fmt: skip
    with pytest.raises(InvalidArgument):
        preview(wrong, HISTORY, entity=USER, source=EVENTS)


COMPUTED = FeatureView(
    "shop.users.computed", owner="shop", entity=USER.name, source=EVENTS.name, filter="basket is null or basket < 90.0",
    features=[
        *ACTIVITY.features, Feature("visits", "i64", window("count", over="2h", hop="1h")),
        Feature("spent", "f64", window("sum", "basket", over="2h", hop="1h")),
        Feature("busiest", "timestamp_us", window("max", "event_time", over="2h", hop="1h")),
        Feature("mean", "f64", derived("spent / cast(visits as f64)")),
    ],
)  # fmt: skip


def test_windows_filter_and_expressions_are_previewed() -> None:
    rows = [(1, 0, 10.0), (1, HOUR_US // 2, 99.0), (1, HOUR_US, None), (2, HOUR_US, 4.0)]
    spine = asked([(1, 0), (1, HOUR_US), (1, 4 * HOUR_US), (2, HOUR_US), (9, 0)])
    found = preview(COMPUTED, events(rows), entity=USER, source=EVENTS, entities=spine)
    assert found["visits"].to_pylist() == [1, 2, 0, 1, 0]
    assert found["spent"].to_pylist() == [10.0, 10.0, 0.0, 4.0, 0.0]
    assert found["mean"].to_pylist() == [10.0, 5.0, None, 4.0, None]
    assert found["basket"].to_pylist() == [10.0, None, None, 4.0, None]
    busiest = found["busiest"].cast(pa.int64()).to_pylist()
    assert busiest == [START_US, START_US + HOUR_US, None, START_US + HOUR_US, None]
    states = [status & rules.STATE_MASK for status in found["spent__status"].to_pylist()]
    assert states == [rules.PRESENT] * 5
    whole = preview(COMPUTED, events(rows), entity=USER, source=EVENTS).sort_by("user_id")
    assert whole["visits"].to_pylist() == [2, 1]
    assert preview(COMPUTED, events([]), entity=USER, source=EVENTS).num_rows == 0


def test_sessions_are_previewed_with_their_durations() -> None:
    view = FeatureView(
        "shop.users.sessions", owner="shop", entity=USER.name, source=EVENTS.name,
        features=[
            Feature("visits", "i64", session("count", gap="1h")),
            Feature("spent", "f64", session("sum", "basket", gap="1h", longest="2h")),
            Feature("started", "timestamp_us", session("min", "event_time", gap="1h")),
            Feature("newest", "timestamp_us", session("max", "event_time", gap="1h")),
            Feature("duration_us", "i64", derived("newest - started")),
        ],
    )  # fmt: skip
    hours = [0, 1, 2, 3, 5]  # a pause of an hour parts nothing, one of two does
    history = events([(1, hour * HOUR_US, 10.0) for hour in hours])
    spine = asked([(1, 0), (1, 3 * HOUR_US), (1, 4 * HOUR_US), (1, 4 * HOUR_US + 1), (1, 5 * HOUR_US), (2, 0)])
    found = preview(view, history, entity=USER, source=EVENTS, entities=spine)
    assert found["visits"].to_pylist() == [1, 4, 4, 0, 1, 0]
    # Cut at two hours, whose start is rounded down to a whole hour; the first event is 3,200 s past one.
    assert found["spent"].to_pylist() == [10.0, 30.0, 20.0, 0.0, 10.0, 0.0]
    assert found["duration_us"].to_pylist() == [0, 3 * HOUR_US, 3 * HOUR_US, None, 0, None]


EVENT = st.tuples(st.integers(1, 2), st.integers(0, 12), st.none() | st.floats(0, 9, width=32))


@given(st.lists(EVENT, max_size=12), st.lists(st.tuples(st.integers(1, 3), st.integers(0, 12)), min_size=1, max_size=8),
       st.integers(1, 6))  # fmt: skip
def test_label_is_the_newest_value_after_the_row_and_within_the_horizon(
    history: list[tuple[int, int, float | None]], spine: list[tuple[int, int]], horizon: int
) -> None:
    known = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=START_US + 14)
    found = label(
        asked(spine),
        ACTIVITY,
        events(history),
        entity=USER,
        source=EVENTS,
        horizon=timedelta(microseconds=horizon),
        known_until=known,
    )
    values, states = found["basket"].to_pylist(), found["basket__status"].to_pylist()
    for (user, at), value, state in zip(spine, values, states, strict=True):
        if at + horizon > 14:
            assert (value, state) == (None, rules.UNAVAILABLE)
            continue
        ahead = [row for row in history if row[0] == user and at < row[1] <= at + horizon]
        newest = max((row[1] for row in ahead), default=None)
        if newest is None:
            assert (value, state) == (None, rules.MISSING)
            continue
        first = next(row for row in ahead if row[1] == newest)  # equal rows keep the first
        assert (value, state) == (first[2], rules.NULL if first[2] is None else rules.PRESENT)


@pytest.mark.parametrize("horizon", [timedelta(0), timedelta(days=-1)])
def test_horizon_that_is_not_ahead_is_refused(horizon: timedelta) -> None:
    with pytest.raises(InvalidArgument, match="ahead"):
        label(asked([(1, 0)]), ACTIVITY, HISTORY, entity=USER, source=EVENTS, horizon=horizon)


def test_label_of_rows_without_a_zone_is_refused() -> None:
    rows = asked([(1, 0)])
    naive = rows.set_column(1, "event_time", rows["event_time"].cast(pa.timestamp("us")))
    with pytest.raises(InvalidArgument, match="UTC"):
        label(naive, ACTIVITY, HISTORY, entity=USER, source=EVENTS, horizon=timedelta(hours=1))
